"""Decides whether a request may be answered: by its headers, and by the user who has the connection's other end."""

from __future__ import annotations

import os

from covalent_cirro.loopback import peers, web_pages
from covalent_cirro.loopback.peers import Address


class Callers:
    """The programs and pages that a server on the loopback answers.

    It refuses what a web page of another origin makes a browser send (`web_pages`), and on Linux the connections of
    other users of this machine, except root.

    Attributes:
        knows_users: Whether this system says which user owns a connection.
    """

    def __init__(self) -> None:
        self._users = {os.geteuid(), 0}
        self.knows_users = peers.can_tell()

    def refusal(
        self, host: str | None, origin: str | None, fetch_site: str | None, client: Address, server: Address
    ) -> str | None:
        """Why a request is refused; `None` where it is answered.

        Args:
            host: The header ``Host``; `None` where the request has none, as for the other headers.
            origin: The header ``Origin``.
            fetch_site: The header ``Sec-Fetch-Site``.
            client: Address and port of the end that connected.
            server: Address and port of the end that listened.
        """
        return web_pages.refusal(host, origin, fetch_site) or self._other_user(client, server)

    def _other_user(self, client: Address, server: Address) -> str | None:
        if not self.knows_users:
            return None
        try:
            uid = peers.owner(client, server)
        except peers.CannotTell as error:  # it could at the start; a busy system must not let others in
            return f"It is not known who sent this: {error}. Try again."
        if uid in self._users:
            return None
        who = "the user who sent this is not known" if uid is None else f"uid {uid} sent this"
        return f"This server is for uid {os.geteuid()} only; {who}."
