"""The scheduler alone, with a clock of its own: no processes, no threads. And the small laws of its parts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.deployment.template_functions import TemplateError
from covalent_cirro.local.emulator.batch import lookup
from covalent_cirro.local.emulator.batch.actions import Kill, Stop
from covalent_cirro.local.emulator.batch.fleet import expand
from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.batch.retries import matches
from covalent_cirro.local.emulator.formation.template_checks import order
from tests.emulator.simulation import Simulation

_numbers = itertools.count()


def test_a_job_waits_for_its_instance_to_boot() -> None:
    """And the scheduler says when to look again."""
    simulation = Simulation(Timing(boot_s=60))
    job = simulation.job()
    assert job.status == "RUNNABLE"
    assert simulation.scheduler.next_due == simulation.now + 60
    simulation.go(59)
    assert job.status == "RUNNABLE"
    simulation.go(1)
    assert job.status == "RUNNING"


def test_a_second_job_gets_an_instance_of_its_own_meanwhile() -> None:
    """What boots for one is not promised to another."""
    simulation = Simulation(Timing(boot_s=60))
    first, second, third = simulation.job(), simulation.job(), simulation.job()
    assert len(simulation.fleet.hosts) == 2
    simulation.go(60)
    assert [job.status for job in (first, second, third)] == ["RUNNING", "RUNNING", "RUNNABLE"]
    simulation.end(first, 0)
    assert third.status == "RUNNING"


def test_a_cancelled_job_gives_back_what_boots_for_it() -> None:
    """The next one takes it."""
    simulation = Simulation(Timing(boot_s=60), max_vcpus=2)
    first = simulation.job()
    simulation.scheduler.cancel(first, "no", simulation.now)
    second = simulation.job()
    assert len(simulation.fleet.hosts) == 1
    simulation.go(60)
    assert (first.status, second.status) == ("FAILED", "RUNNING")


def test_an_instance_goes_when_it_was_idle_long_enough() -> None:
    """Not before, and not while it has a job."""
    simulation = Simulation(Timing(boot_s=0, idle_s=60))
    job = simulation.job()
    simulation.go(1000)
    simulation.end(job, 0)
    assert simulation.scheduler.next_due == simulation.now + 60
    simulation.go(59)
    assert len(simulation.fleet.hosts) == 1
    simulation.go(1)
    assert len(simulation.fleet.hosts) == 0


def test_a_time_limit_is_counted_from_the_start_of_the_attempt() -> None:
    """Waiting does not count; each attempt has all of it."""
    simulation = Simulation(Timing(boot_s=500))
    job = simulation.job(timeout_s=60, retry={"attempts": 2})
    simulation.go(500)
    simulation.go(59)
    simulation.end(job, 1)
    assert [each for each in simulation.go(59) if isinstance(each, Stop)] == []
    assert [each.job for each in simulation.go(1) if isinstance(each, Stop)] == [job]


def test_a_terminal_job_is_forgotten_after_seven_days() -> None:
    """With an array's children."""
    simulation = Simulation(Timing(boot_s=0))
    job = simulation.job()
    simulation.end(job, 0)
    simulation.go(7 * 24 * 3600 - 1)
    assert job.id in simulation.scheduler.jobs
    simulation.go(1)
    assert simulation.scheduler.jobs == {}


def test_a_lost_host_frees_what_was_booked_on_it() -> None:
    """Its jobs are killed; those without a retry are FAILED."""
    simulation = Simulation(Timing(boot_s=0), types=("m6i.xlarge",))
    jobs = [simulation.job() for _ in range(2)]
    (host,) = simulation.fleet.hosts.values()
    simulation.scheduler.lose(host, simulation.now)
    assert [each.job for each in simulation.go() if isinstance(each, Kill)] == jobs
    assert {job.status for job in jobs} == {"FAILED"}
    assert all(job.attempts[0].exit_code is None for job in jobs)
    assert simulation.fleet.hosts == {}


def test_a_quota_is_over_all_environments() -> None:
    """Jobs above it wait, without a reason, as for EC2's vCPU quota."""
    simulation = Simulation(Timing(boot_s=0), max_vcpus=100, quota_vcpus=4)
    jobs = [simulation.job() for _ in range(3)]
    assert [job.status for job in jobs] == ["RUNNING", "RUNNING", "RUNNABLE"]
    assert jobs[2].status_reason is None


def test_submitted_and_starting_can_take_time() -> None:
    """For tests that want to see these states."""
    simulation = Simulation(Timing(boot_s=0, submitted_s=5))
    job = simulation.job()
    assert job.status == "SUBMITTED"
    simulation.go(5)
    assert job.status == "RUNNING"


@given(st.text(alphabet="abc. ", max_size=8), st.text(alphabet="abc. ", max_size=8))
def test_a_pattern_with_a_star_is_a_prefix(prefix: str, rest: str) -> None:
    """And without one it is the whole."""
    assert matches(prefix + "*", prefix + rest)
    assert matches(prefix, prefix + rest) == (rest == "")


def test_an_absent_reason_is_matched_by_a_star_only() -> None:
    """That is how ``onReason: *`` ends the retries of a user's error."""
    assert matches("*", None)
    assert not matches("Host*", None)
    assert not matches("x", None)


@given(st.lists(st.integers(), unique=True, max_size=30), st.integers(1, 7))
def test_pages_together_are_the_list(items: list[int], limit: int) -> None:
    """Nothing is left out or shown twice, whatever the page's size."""
    seen: list[int] = []
    token = None
    while True:
        shown, token = lookup.page(items, str, limit, token)
        seen += shown
        if token is None:
            break
    assert seen == items


@given(st.dictionaries(st.sampled_from("ABCDEF"), st.lists(st.sampled_from("ABCDEF"), max_size=3)))
def test_an_order_puts_each_after_what_it_needs(needs: dict[str, list[str]]) -> None:
    """Unless there is a circle."""
    try:
        found = order({name: {"DependsOn": needed} for name, needed in needs.items()})
    except TemplateError:
        return
    for name, needed in needs.items():
        for each in needed:
            if each in needs and each != name:
                assert found.index(each) < found.index(name)


@pytest.mark.parametrize(
    ("names", "smallest", "largest"),
    [
        (("g5",), "g5.xlarge", "g5.48xlarge"),
        (("m6i.large", "m6i.4xlarge"), "m6i.large", "m6i.4xlarge"),
        (("optimal",), "c6i.large", "c7i.48xlarge"),
    ],
)
def test_instance_types_are_expanded(names: tuple[str, ...], smallest: str, largest: str) -> None:
    """Families and bundles, without metal, smallest first."""
    types = expand(names)
    assert (types[0].name, types[-1].name) == (smallest, largest)
    assert not any(each.metal for each in types)
