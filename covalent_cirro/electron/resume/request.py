"""Asks the running Covalent server to resume dispatches that an earlier server left unfinished.

This is the client of `server_life.answer`. It uses Covalent's HTTP API, and reads the answer that the server writes
into its cache folder: it has to run on the server's host, with the server's config. Decides nothing.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple

from covalent._shared_files.config import get_config

from covalent_cirro.covalent_server.assets import OURS
from covalent_cirro.covalent_server.dispatches import UNFINISHED
from covalent_cirro.electron.resume.server_life import REQUEST, answer_path
from covalent_cirro.errors import HostError

ANSWER_S = 60.0
"""Longest time that a server may need to resume one dispatch and its sublattices."""

LOOK_S = 0.1
MAX_DISPATCHES = 10_000
TIMEOUT_S = 30.0


class ResumeAnswer(NamedTuple):
    """The answer of the server for one dispatch.

    Attributes:
        dispatch_id: Dispatch id.
        state: ``"resumed"``; ``"under way"``: the server works on it already; ``"ended"``; ``"refused"``; ``"failed"``.
        electrons: Number of electrons that were under way or ready when it was resumed.
        why: Why it was refused or failed; else empty.
    """

    dispatch_id: str
    state: str
    electrons: int
    why: str

    @property
    def is_good(self) -> bool:
        """Whether the dispatch was neither refused nor did it fail to be resumed."""
        return self.state not in ("refused", "failed")


def resume(dispatch_ids: Sequence[str]) -> list[ResumeAnswer]:
    """Have the server resume these dispatches; without any, all that are unfinished.

    Raises:
        HostError: The server does not answer, or does not know a dispatch.
    """
    address = f"http://{get_config('dispatcher.address')}:{get_config('dispatcher.port')}/api/v2/dispatches"
    return [_resume_one(address, dispatch_id) for dispatch_id in dispatch_ids or _unfinished(address)]


def _unfinished(address: str) -> list[str]:
    query = urllib.parse.urlencode({"status": UNFINISHED, "count": MAX_DISPATCHES, "latest": "false"}, doseq=True)
    return [each["dispatch_id"] for each in _ask(f"{address}?{query}")["dispatches"]]


def _resume_one(address: str, dispatch_id: str) -> ResumeAnswer:
    manifest = _ask(f"{address}/{urllib.parse.quote(dispatch_id, safe='')}")
    nodes = manifest["lattice"]["transport_graph"]["nodes"]
    executors = {node["id"]: node["metadata"]["executor"] for node in nodes}
    # Covalent calls the executor of the node whose number is that of the task group.
    ours = [node["id"] for node in nodes if executors.get(node["metadata"]["task_group_id"]) == OURS]
    if not ours:
        return ResumeAnswer(dispatch_id, "refused", 0, "it has no electron on CirroBatchExecutor")
    token = secrets.token_hex(8)
    _ask(f"{address}/{dispatch_id}/electrons/{ours[0]}/job", {REQUEST: token})
    path = answer_path(token)
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        if path.exists():
            said = json.loads(path.read_text())
            with contextlib.suppress(OSError):
                path.unlink()
            return ResumeAnswer(dispatch_id, said["state"], int(said.get("electrons") or 0), said["why"])
        time.sleep(LOOK_S)
    return ResumeAnswer(
        dispatch_id,
        "failed",
        0,
        f"the server gave no answer in {path.parent} for {ANSWER_S:.0f} s: is it of this host and this config, with "
        "this version of covalent-cirro? Its log says more (`covalent logs`)",
    )


def _ask(url: str, body: object = None) -> Any:
    request = urllib.request.Request(  # noqa: S310  (http only)
        url,
        data=None if body is None else json.dumps(body).encode(),
        method="GET" if body is None else "PUT",
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        words = error.read().decode(errors="replace")[:500]
        if error.code == 404:
            raise HostError(
                f"the Covalent server at {urllib.parse.urlsplit(url).netloc} knows no dispatch "
                f"{urllib.parse.unquote(url.partition('/dispatches/')[2].partition('/')[0])!r}: give its whole id, or "
                f"none to resume all that are unfinished. It says: {words}"
            ) from error
        raise HostError(f"the Covalent server refused {url}: {error.code} {words}") from error
    except (OSError, ValueError) as error:
        raise HostError(
            f"the Covalent server does not answer at {url} ({error}). Start it with `covalent start`, or that of a "
            "local stack with `cirro local up --server`: it goes on with its unfinished dispatches by itself."
        ) from error
