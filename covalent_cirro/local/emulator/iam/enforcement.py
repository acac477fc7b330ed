"""Refuses requests that the policies of their caller do not allow.

It must not know the form of answers, nor what services do with a request.
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

    The caller is the user or role that IAM or STS made the access key for; the key of a job is its role's. The
    emulator's own key is the account's administrator, who may do everything that no bucket policy denies. Before, the
    signature was checked (`http.authentication`).

    Attributes:
        account: Number of the account.
        region: For requests that name none.
        batch: Gives the AWS Batch of a region.
        enforced: Whether policies are checked; if not, each caller is the administrator.
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
            if who is None:  # its user or session was deleted
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
        """Why a session of a role, which the ECS agent uses, may not do something, in AWS's words; `None` if it may.

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
    """Condition keys of every request. A connection over the loopback counts as one with TLS."""
    return {"aws:SecureTransport": ["true"], "aws:RequestedRegion": [region], **access.context}
