"""Checks who a request comes from: by the signature of an AWS call, or by the emulator's key itself.

It must not know what a caller may do (`iam.enforcement`), nor the form of a refusal.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qs

from covalent_cirro.local.emulator.http.operations import Operation
from covalent_cirro.local.emulator.http.server import Environ
from covalent_cirro.local.emulator.iam import signatures
from covalent_cirro.local.emulator.iam.signatures import Signature
from covalent_cirro.local.emulator.keys import Key


class Refusal(NamedTuple):
    """Why a request is refused.

    Attributes:
        kind: ``unsigned``, ``unknown`` (key), ``signature`` (of another secret), ``denied`` (by a policy), or
            ``not evaluated``.
        text: The reason, in AWS's words.
    """

    kind: str
    text: str


UNSIGNED = Refusal("unsigned", "The request is not signed with AWS Signature Version 4.")
UNKNOWN = Refusal("unknown", "The security token included in the request is invalid.")
WRONG = Refusal(
    "signature",
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method.",
)


@dataclass(frozen=True)
class Authentication:
    """Accepts calls with the emulator's key, the keys of its jobs, and those of users and roles of its IAM.

    Attributes:
        key: The emulator's.
        secret_of: Gives the secret of an access key of a job, IAM or STS; `None` for an unknown key.
        web_identity: The token that identifies a CI service. A call with it is the only one that needs no signature.
    """

    key: Key
    secret_of: Callable[[str], str | None]
    web_identity: str

    def refusal(
        self, asked: Operation, signature: Signature | None, environ: Environ, body: Callable[[], bytes]
    ) -> Refusal | None:
        """Why an AWS call is refused; `None`: it comes from the caller that it names."""
        if signature is None:
            return None if self._is_identified(asked, body) else UNSIGNED
        own = signature.access_key in self.key.ids
        secret = self.key.secret if own else self.secret_of(signature.access_key)
        if secret is None:
            return UNKNOWN
        return None if signatures.holds(signature, environ, secret, body, now=time.time()) else WRONG

    def has_key(self, environ: Environ) -> bool:
        """Whether a request that is no AWS call has the emulator's key (HTTP Basic, RFC 7617)."""
        given: str = environ.get("HTTP_AUTHORIZATION", "")
        return hmac.compare_digest(given.encode("latin-1", "replace"), self.key.basic.encode())

    def _is_identified(self, asked: Operation, body: Callable[[], bytes]) -> bool:
        if (asked.service, asked.name) != ("sts", "AssumeRoleWithWebIdentity"):
            return False
        given = parse_qs(body().decode("latin-1")).get("WebIdentityToken", [""])[0]
        return hmac.compare_digest(given.encode(), self.web_identity.encode())
