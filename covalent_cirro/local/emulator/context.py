"""What all regions of one emulator share. Plain data; it must not know what is made of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from covalent_cirro.local.emulator.attempts import tasks
from covalent_cirro.local.emulator.attempts.agent import RoleRefusal
from covalent_cirro.local.emulator.attempts.runtime import Runtime
from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.faults import Faults


@dataclass(frozen=True)
class EmulatorContext:
    """What all Batches of one emulator share.

    Attributes:
        account: The account.
        endpoint_url: Where jobs reach the emulated AWS.
        runtime: Runs attempts.
        faults: Faults asked for.
        tasks: Credentials and metadata of tasks.
        timing: Durations.
        quota_vcpus: vCPUs of all hosts together; `None` for no limit.
        clock: Epoch seconds.
        role_refused: AWS's words if a role that the ECS agent uses may not do something; `None`: IAM is not enforced.
    """

    account: str
    endpoint_url: str
    runtime: Runtime
    faults: Faults
    tasks: tasks.Tasks
    timing: Timing
    quota_vcpus: float | None = None
    clock: Callable[[], float] = time.time
    role_refused: RoleRefusal | None = None
