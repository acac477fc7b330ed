"""What the ECS agent does with a task's execution role before a container starts: image pull, secrets, log stream.

Where policies are checked, it fails in AWS's words if the role may not do so. It must not know how a container runs.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from covalent_cirro.local.emulator.attempts import container_secrets, job_log_stream
from covalent_cirro.local.emulator.attempts.runtime import StartFailed
from covalent_cirro.local.emulator.batch.model import Attempt, Job, Json
from covalent_cirro.local.emulator.iam.policies import Access, NotEvaluated
from covalent_cirro.local.emulator.moto_internals import moto_iam

RoleRefusal = Callable[[str, str, Access], "str | None"]
"""``refused(role_arn, session, access)`` gives the reason in AWS's words; `None` if the role may."""

_ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/(?P<name>[^:@]+)")
PULL = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability")
"""ECR User Guide, IAM permissions for pulling images."""


class AgentRole(NamedTuple):
    """The role that the agent uses for a task, and the name of its session; ``arn`` is `None` where it has none."""

    arn: str | None
    session: str


@dataclass(frozen=True)
class Agent:
    """The agent of all instances of one region.

    Attributes:
        account: Number of the account.
        region: The region.
        registry: Host and port of the emulated registry; images there are ECR's.
        clock: Gives epoch seconds, for events of the log.
        refused: Whether a role may do something; `None` where policies are not checked.
    """

    account: str
    region: str
    registry: str
    clock: Callable[[], float]
    refused: RoleRefusal | None

    def pull(self, image: str, role: AgentRole) -> None:
        """Check that the role may pull an image, if it is one of ECR. The runtime pulls it.

        Raises:
            StartFailed: The role may not. Logging in: OvertureMaps/overture-tiles#20; pulling: the text is ECR's, as
                docker shows it (unverified).
        """
        repository = self._repository(image)
        if repository is None:
            return
        reason = self._ask(role, Access("ecr:GetAuthorizationToken"))
        if reason is not None:
            raise StartFailed(f"CannotPullECRContainerError: AccessDeniedException: {reason}")
        for action in PULL:
            reason = self._ask(role, Access(action, repository))
            if reason is not None:
                raise StartFailed(f"CannotPullContainerError: Error response from daemon: denied: {reason}")

    def open_log(self, container: Json, name: str | None, role: AgentRole) -> job_log_stream.LogStream | None:
        """Make the log stream of this name; `None` without a name, or if the role may not write.

        The log driver fails to start without its stream, and drops what it may not send (docker, awslogs driver).

        Raises:
            StartFailed: The group does not exist, or the role may not make the stream
                (Rayraegah/terraform-aws-hasura#25, prakhar1989/docker-curriculum#260).
        """
        if name is None:
            return None
        group, its_region, create = job_log_stream.target(container)
        region = its_region or self.region
        stream = f"arn:aws:logs:{region}:{self.account}:log-group:{group}:log-stream:{name}"
        reason = self._ask(role, Access("logs:CreateLogStream", stream))
        if reason is not None:
            raise StartFailed(f"{job_log_stream.NO_STREAM}AccessDeniedException: {reason} request id: {uuid.uuid4()}")
        opened = job_log_stream.LogStream(self.account, region, group, name, create_group=create, clock=self.clock)
        reason = self._ask(role, Access("logs:PutLogEvents", stream))
        return opened if reason is None else None

    def secrets(self, container: Json, role: AgentRole, *, fargate: bool) -> dict[str, str]:
        """The values of the container's secrets, by name.

        Raises:
            StartFailed: One is not there, or the role may not read it.
        """
        return container_secrets.read(
            container, self.account, self.region, lambda access: self._ask(role, access), fargate=fargate
        )

    def _repository(self, image: str) -> str | None:
        found = _ECR.match(image)
        if found is not None:
            return f"arn:aws:ecr:{found['region']}:{found['account']}:repository/{found['name']}"
        host, _, name = image.partition("/")
        if host != self.registry:
            return None
        return f"arn:aws:ecr:{self.region}:{self.account}:repository/{re.split('[:@]', name)[0]}"

    def _ask(self, role: AgentRole, access: Access) -> str | None:
        if self.refused is None or role.arn is None:
            return None
        try:
            return self.refused(role.arn, role.session, access)
        except NotEvaluated as error:
            text = f"CannotStartContainerError: the emulator cannot decide {access.action}: {error}"
            raise StartFailed(text) from None

    def role_of(self, job: Job, attempt: Attempt) -> AgentRole:
        """The role for an attempt of a job: without an execution role that of the instance.

        Source: ECS agent, README: ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE, which ecs-init sets.
        """
        execution = job.container.get("executionRoleArn")
        if execution:
            return AgentRole(execution, attempt.task_id)
        profile = str(attempt.host.environment.resources.get("instanceRole") or "")
        arn = moto_iam.role_of_instances(self.account, profile) if profile else None
        return AgentRole(arn, attempt.host.instance_id)
