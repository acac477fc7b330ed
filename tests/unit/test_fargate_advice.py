"""When Fargate is the cheaper choice."""

from __future__ import annotations

import pytest

from covalent_cirro.deployment import fargate_advice
from covalent_cirro.deployment.fargate_advice import break_even_s


def test_one_job_alone_pays_for_the_start_of_its_instance() -> None:
    """Five minutes at $0.08 an hour are worth 20 minutes of the difference to $0.10."""
    assert break_even_s(0.10, 0.08) == pytest.approx(20 * 60)
    assert break_even_s(0.05, 0.08) is None


@pytest.mark.parametrize(("architecture", "instance"), [("x86_64", "m6i.large"), ("arm64", "m6g.large")])
def test_it_is_told_with_prices(architecture: str, instance: str) -> None:
    """Of a usual electron and of a small one, with the day of the prices."""
    told = fargate_advice.words(architecture, "us-east-1")
    assert instance in told
    assert "2 vCPU and 4 GB" in told
    assert "0.25 vCPU and 0.5 GB" in told
    assert "2026-" in told
