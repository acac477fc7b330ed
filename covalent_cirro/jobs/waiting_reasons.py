"""The reasons why a job waits, which `waiting.py` finds. Pure."""

from __future__ import annotations

import enum
from typing import NamedTuple

from covalent_cirro.jobs.formatting import sentences


class Why(str, enum.Enum):
    """The reasons. Their values are stable, for programs."""

    NO_TYPE_FITS = "no_instance_type_fits"
    NOT_FOR_NODES = "no_queue_for_several_machines"
    MAX_VCPUS_BELOW_JOB = "max_vcpus_below_job"
    NO_CAPACITY = "no_capacity"
    INSTANCE_REFUSED = "instance_refused"
    SERVICE_ROLE = "service_role"
    QUEUE_GONE = "queue_gone"
    QUEUE_INVALID = "queue_invalid"
    ENVIRONMENT_INVALID = "environment_invalid"
    ENVIRONMENT_DISABLED = "environment_disabled"
    ENVIRONMENT_UPDATING = "environment_updating"
    BEHIND_STUCK_JOB = "behind_stuck_job"
    MAX_VCPUS_REACHED = "max_vcpus_reached"
    SCALING_UP = "scaling_up"
    INSTANCES_DO_NOT_JOIN = "instances_do_not_join"
    NO_INSTANCE = "no_instance_started"
    BEHIND_OTHERS = "behind_others"
    NO_CONSUMABLE = "consumable_resource"
    MISSING_CONSUMABLE = "consumable_resource_missing"
    AWS_SAYS = "aws_says"
    NOT_LEARNT = "not_learnt"

    @property
    def is_stuck(self) -> bool:
        """Whether a user has to do something; otherwise the job only has to wait."""
        return self not in (
            Why.ENVIRONMENT_UPDATING,
            Why.MAX_VCPUS_REACHED,
            Why.SCALING_UP,
            Why.BEHIND_OTHERS,
            Why.NO_CONSUMABLE,
            Why.NOT_LEARNT,
        )


class Reason(NamedTuple):
    """Why a job waits.

    Attributes:
        why: The reason.
        seen: The facts that show it.
        words: AWS's own reason, verbatim; empty where AWS gave none.
        remedy: What to change; empty where the job only has to wait.
        position: The job's position in the queue, as a sentence; empty where it is not known.
    """

    why: Why
    seen: str
    words: str = ""
    remedy: str = ""
    position: str = ""

    def __str__(self) -> str:
        words = f"AWS Batch says: {self.words.rstrip('.')}." if self.words else ""
        return sentences(f"{self.seen[:1].upper()}{self.seen[1:].rstrip('.')}.", words, self.position, self.remedy)
