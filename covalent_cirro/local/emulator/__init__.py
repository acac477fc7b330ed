"""An emulated AWS on a laptop: moto for S3, IAM, Logs and others, and an AWS Batch that really runs jobs.

| where | what |
| --- | --- |
| `emulator` | puts everything together; `command_line` runs it as a process |
| `http/` | the server, which calls it gets, who may call, and the emulator's own routes |
| `batch/` | AWS Batch: its data, the scheduler, the operations of its API |
| `attempts/` | attempts of jobs as processes or containers, with their logs and credentials |
| `formation/` | CloudFormation: stacks, change sets, types of resources |
| `serving/` | ECS services, whose tasks run, and load balancers, which forward requests to them |
| `ecr/` | ECR: the registry and the operations on images |
| `iam/` | signatures, policies, and what each request needs |
| `moto_internals/` | all that reads or changes moto |
| `account`, `price_api`, `faults`, `keys` | quotas and other calls that moto lacks; prices; faults on demand; the key |

The package itself imports nothing before `Emulator` or `Timing` is used (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covalent_cirro.local.emulator.batch.model import Timing as Timing
    from covalent_cirro.local.emulator.emulator import Emulator as Emulator

__all__ = ["Emulator", "Timing"]


def __getattr__(name: str) -> Any:
    if name == "Emulator":
        from covalent_cirro.local.emulator.emulator import Emulator

        return Emulator
    if name == "Timing":
        from covalent_cirro.local.emulator.batch.model import Timing

        return Timing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
