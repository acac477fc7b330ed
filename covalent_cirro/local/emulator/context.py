"""What all regions of one emulator share. Data; it must not know what is done with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covalent_cirro.local.emulator.attempts import tasks
from covalent_cirro.local.emulator.attempts.agent import RoleRefusal
from covalent_cirro.local.emulator.attempts.runtime import Runtime
from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.faults import Faults


@dataclass(frozen=True)
class EmulatorContext:
    """What the AWS Batch of each region of an emulator uses.

    Attributes:
        account: Number of the account.
        endpoint_url: URL by which jobs reach the emulated AWS.
        runtime: Runs attempts.
        faults: Faults that are set.
        tasks: Credentials and metadata of tasks.
        timing: Durations.
        quota_vcpus: vCPUs of all hosts together; `None` for no limit.
        clock: Epoch seconds.
        files: Folder of the file systems of EFS.
        efs: Gives a client of EFS for a region.
        role_refused: Whether a role that the ECS agent uses may do something; `None`: policies are not checked.
    """

    account: str
    endpoint_url: str
    runtime: Runtime
    faults: Faults
    tasks: tasks.Tasks
    timing: Timing
    files: Path
    efs: Callable[[str], Any]
    quota_vcpus: float | None = None
    clock: Callable[[], float] = time.time
    role_refused: RoleRefusal | None = None
