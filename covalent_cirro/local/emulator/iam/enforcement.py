"""Refuses what a caller's policies do not allow: finds who calls, what the request needs, and decides.

It must not know how an answer is written, nor what services do with a request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.http.authentication import UNKNOWN, Refusal
from covalent_cirro.local.emulator.http.operations import Operation
from covalent_cirro.local.emulator.http.server import Environ
from covalent_cirro.local.emulator.iam import policies, required_access
from covalent_cirro.local.emulator.iam.policies import Access, Principal
from covalent_cirro.local.emulator.moto_internals import moto_iam, moto_s3

ALLOW_ALL = '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}'


@dataclass(frozen=True)
class IamEnforcement:
    """IAM of one account.

    Keys that IAM or STS gave out, jobs' among them, are their user or role. The emulator's own key is the account's
    administrator, who may do all that no bucket's policy denies. That a caller has the key it names was found out
    before (`callers`).

    Attributes:
        account: The account.
        region: For requests that name none.
        batch: The Batch of a region.
        enforced: Whether callers are told apart; where not, each is the administrator.
        own: Ids of the emulator's own key.
    """

    account: str
    region: str
    batch: Callable[[str], Batch]
    enforced: bool
    own: frozenset[str]

    def refusal(self, asked: Operation, environ: Environ, body: Callable[[], bytes]) -> Refusal | None:
        """Why the caller of a request may not make it; `None` if it may."""
        who: Principal | None = None
        if self.enforced and asked.access_key and asked.access_key not in self.own:
            who = moto_iam.principal(self.account, asked.access_key)
            if who is None:  # its user or session is gone
                return UNKNOWN
        if who is None:
            if asked.service != "s3":
                return None
            root = f"arn:aws:iam::{self.account}:root"
            who = Principal(root, (root,), self.account, identity=(ALLOW_ALL,))
        region = asked.region or self.region
        request = required_access.Request(
            environ, body, self.account, region, self.batch(region), moto_s3.object_is_missing
        )
        try:
            for access in required_access.accesses(asked, request):
                text = self._refused(who, access._replace(context=_common(access, region)))
                if text is not None:
                    return Refusal("denied", text)
        except policies.NotEvaluated as error:
            return Refusal("not evaluated", f"The emulator cannot decide {asked.service}:{asked.name}: {error}")
        return None

    def role_refused(self, role_arn: str, session: str, access: Access) -> str | None:
        """AWS's words if a role's session may not, as the ECS agent asks for a task; `None` if it may.

        Raises:
            NotEvaluated: A policy of the role has what is not evaluated here.
        """
        who = moto_iam.role_session(self.account, role_arn, session)
        return self._refused(who, access._replace(context=_common(access, self.region)))

    def _refused(self, who: Principal, access: Access) -> str | None:
        in_s3 = access.action.startswith("s3:")
        bucket = access.resource.removeprefix("arn:aws:s3:::").partition("/")[0] if in_s3 else ""
        policy = moto_s3.bucket_policy(bucket) if bucket else None
        denial = policies.decide(who, access, () if policy is None else (policy,))
        return None if denial is None else policies.explain(who, access, denial, quoted=in_s3)


def _common(access: Access, region: str) -> policies.Context:
    """The loopback stands in for TLS: what AWS asks of a connection's safety is taken as given."""
    return {"aws:SecureTransport": ["true"], "aws:RequestedRegion": [region], **access.context}
