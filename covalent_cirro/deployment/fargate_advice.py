"""When a job is cheaper on Fargate than on an instance, in a few words, by the prices of this package. Pure."""

from __future__ import annotations

from covalent_cirro.aws import fargate_prices
from covalent_cirro.aws.prices import ON_DEMAND, shipped
from covalent_cirro.jobs.fargate_machines import FargateMachine
from covalent_cirro.jobs.formatting import duration, usd
from covalent_cirro.jobs.machines import InstanceType, Need, of_environment
from covalent_cirro.settings.fargate_sizes import Size

NOT_USED_S = 300.0
"""Seconds that an instance is paid for beside its jobs: it starts and joins its cluster (2 to 5 minutes), and stands
idle until AWS Batch stops it."""

USUAL, SMALL = Size(2, 4096), Size(0.25, 512)
"""The sizes of which is told: that of the executor's defaults on Fargate, and the smallest."""


def words(architecture: str, region: str) -> str:
    """When Fargate is the cheaper choice, with prices.

    Args:
        architecture: ``"x86_64"`` or ``"arm64"``.
        region: Region of the deployment; the prices are those of the package, and differ by region.
    """
    instance, instance_usd = cheapest(USUAL, architecture)
    usual = fargate_prices.price(FargateMachine(USUAL, architecture), region, ON_DEMAND)
    small = fargate_prices.price(FargateMachine(SMALL, architecture), region, ON_DEMAND)
    limit_s = break_even_s(usual.usd_per_hour, instance_usd)
    until = "however long it runs" if limit_s is None else f"while it runs for less than {duration(limit_s)}"
    return (
        "Fargate is the cheaper choice for electrons that are short, rare or small: an instance is paid for whether it "
        f"is full or not, and about {duration(NOT_USED_S)} before and after its jobs. Alone, an electron of {USUAL} "
        f"costs {usd(usual.usd_per_hour)} an hour on Fargate and {usd(instance_usd)} on an {instance.name}: Fargate is "
        f"cheaper {until}; one of {SMALL} costs {usd(small.usd_per_hour)} an hour there. Many electrons that keep "
        f"instances full are cheaper on instances (on demand, {usual.date}; {usual.source})."
    )


def cheapest(size: Size, architecture: str) -> tuple[InstanceType, float]:
    """The cheapest instance type of AWS's choice on which a job of a size has room, and its price of an hour.

    A size of Fargate is the job's own; an instance keeps some of its memory, for which a job asks for less.
    """
    table = shipped()
    need = Need(size.vcpus, int(size.memory_mib * 0.9), 0)
    fitting = [kind for kind in of_environment([f"default_{architecture}"], table.types) if need.fits(kind)]
    best = min(fitting, key=lambda kind: table.usd_per_hour[kind.name])
    return best, table.usd_per_hour[best.name]


def break_even_s(fargate_usd: float, instance_usd: float, not_used_s: float = NOT_USED_S) -> float | None:
    """Seconds that one job runs alone when an instance becomes the cheaper one; `None` if it never does.

    Args:
        fargate_usd: Price of an hour on Fargate.
        instance_usd: Price of an hour of the instance.
        not_used_s: Seconds that the instance is paid for beside the job.
    """
    if fargate_usd <= instance_usd:
        return None
    return instance_usd * not_used_s / (fargate_usd - instance_usd)
