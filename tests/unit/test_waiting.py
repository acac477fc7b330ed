"""Why a job waits: from what AWS says of its queue to a reason with a stable name, and the setting to change."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from covalent_cirro.electron.engine.waits import Waits
from covalent_cirro.errors import AwsError
from covalent_cirro.jobs.machines import InstanceType, Need
from covalent_cirro.jobs.queue_snapshots import Consumable, QueuePosition, QueueSnapshot
from covalent_cirro.jobs.queues import Environment, Queue
from covalent_cirro.jobs.remedies import deployment_of
from covalent_cirro.jobs.waiting import DEADLINE_S, Waiting, explain
from covalent_cirro.jobs.waiting_reasons import Reason, Why

NOW = 1_800_000_000.0
NEED = Need(vcpus=2, memory_mib=4096, gpus=0)
TYPES = {
    "m6i.large": InstanceType("m6i.large", 2, 8192, 0, "x86_64"),
    "m6i.8xlarge": InstanceType("m6i.8xlarge", 32, 131072, 0, "x86_64"),
}


def queue(name: str = "cirro-cpu", **changes: Any) -> Queue:
    """A queue as it should be."""
    return Queue(name, f"arn:queue/{name}", "ENABLED", "VALID", "", ("arn:env/spot",))._replace(**changes)


def environment(**changes: Any) -> Environment:
    """A compute environment of Spot instances, at zero."""
    return Environment(
        name="spot",
        arn="arn:env/spot",
        state="ENABLED",
        status="VALID",
        reason="",
        kind="SPOT",
        vcpus=0,
        max_vcpus=64,
        instance_types=("m6i",),
        subnets=(),
        instance_profile="",
        cluster="",
    )._replace(**changes)


def seen(*environments: Environment, **changes: Any) -> QueueSnapshot:
    """What AWS says of a queue in which the job is alone."""
    return QueueSnapshot(
        queue(),
        environments or (environment(),),
        TYPES,
        running=0,
        front=(QueuePosition("j1", NOW - 700),),
        head_reason="",
    )._replace(**changes)


def job(**changes: Any) -> Waiting:
    """A job a little over the deadline."""
    return Waiting("j1", NEED, "", NOW - 700)._replace(**changes)


def reason(of: Waiting, facts: QueueSnapshot, name: str = "cirro-cpu") -> Reason:
    """The reason, for a user with a profile."""
    return explain(of, facts, name, "eu-west-1", "lab", NOW)


ICE = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for instance type [m6i]"
TOO_LARGE = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher"
MAX = "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - The maxvCpus of the CE(s)"
REFUSED = "MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED - ..."
ROLE = "MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS - ..."
INVALID = "ACTION_REQUIRED - CE(s) associated with the job queue are invalid."
DEPLOY = "`cirro deploy --parameter {} --stack-name cirro --region eu-west-1 --profile lab`"
DOCTOR = "`cirro doctor --stack-name cirro --region eu-west-1 --profile lab`"
OTHERS = tuple(QueuePosition(f"other{index}", NOW - 1000) for index in range(3))


@pytest.mark.parametrize(
    ("of", "facts", "why", "said"),
    [
        # what AWS says
        (job(status_reason=ICE), seen(), Why.NO_CAPACITY, DEPLOY.format("CpuInstanceTypes=...")),
        (job(status_reason=TOO_LARGE), seen(), Why.NO_TYPE_FITS, "Ask for less (vcpu, memory, num_gpus"),
        (job(status_reason=MAX), seen(), Why.MAX_VCPUS_BELOW_JOB, DEPLOY.format("CpuSpotMaxVcpus=2")),
        (job(status_reason=REFUSED), seen(), Why.INSTANCE_REFUSED, DOCTOR),
        (job(status_reason=ROLE), seen(), Why.SERVICE_ROLE, DOCTOR),
        (
            job(status_reason=INVALID),
            seen(environment(status="INVALID", reason="CLIENT_ERROR - no such role")),
            Why.ENVIRONMENT_INVALID,
            "spot is INVALID (CLIENT_ERROR - no such role)",
        ),
        (job(status_reason="CAPACITY:SOMETHING_NEW - words"), seen(), Why.AWS_SAYS, "CAPACITY:SOMETHING_NEW - words"),
        # what cannot work
        (job(), seen(queue=None), Why.QUEUE_GONE, "no queue cirro-cpu any more"),
        (job(), seen(queue=queue(status="INVALID", reason="why")), Why.QUEUE_INVALID, "INVALID: why"),
        (
            job(),
            seen(environment(state="DISABLED")),
            Why.ENVIRONMENT_DISABLED,
            "`aws batch update-compute-environment --compute-environment spot --state ENABLED --region eu-west-1",
        ),
        (job(), seen(environment(status="UPDATING")), Why.ENVIRONMENT_UPDATING, "Wait until it is VALID"),
        (
            job(need=Need(2, 400_000, 0)),
            seen(),
            Why.NO_TYPE_FITS,
            "it asks for 400000 MiB of memory of at most 126807",
        ),
        (job(need=Need(2, 4096, 1)), seen(), Why.NO_TYPE_FITS, "1 GPU of at most 0"),
        (job(need=Need(32, 4096, 0)), seen(environment(max_vcpus=16)), Why.MAX_VCPUS_BELOW_JOB, "CpuSpotMaxVcpus=32"),
        # whose turn it is
        (
            job(),
            seen(environment(vcpus=64), running=32, running_vcpus=64.0),
            Why.MAX_VCPUS_REACHED,
            "Queue cirro-cpu starts no more instances: those it has have 64 of at most 64 vCPUs; 32 jobs of the queue "
            "run, with 64 vCPUs. It is number 1 in the queue. It starts when a job ends.",
        ),
        (  # 2 vCPUs of Spot and 1 on demand, where an instance has 2: four jobs of one vCPU run, not three
            job(need=Need(1, 512, 0)),
            seen(environment(vcpus=2, max_vcpus=2), environment(vcpus=2, max_vcpus=1), running=4, running_vcpus=4.0),
            Why.MAX_VCPUS_REACHED,
            "those it has have 4 vCPUs, its maximum is 3, which AWS Batch may exceed by one instance; 4 jobs of the "
            "queue run, with 4 vCPUs.",
        ),
        (
            job(need=Need(2, 512, 0)),
            seen(environment(vcpus=2, max_vcpus=3), running=1, running_vcpus=1.0),
            Why.MAX_VCPUS_REACHED,
            "2 of at most 3 vCPUs, too few are left for the 2 that the job asks for; 1 job of the queue runs, with 1 "
            "vCPU.",
        ),
        (
            job(),
            seen(environment(vcpus=64), running=100),
            Why.MAX_VCPUS_REACHED,
            "64 of at most 64 vCPUs; 100+ jobs of the queue run. It is",
        ),
        (job(), seen(environment(vcpus=4)), Why.SCALING_UP, "starting instances behind cirro-cpu, 4 vCPUs so far"),
        (
            job(since=NOW - 3 * DEADLINE_S),
            seen(environment(vcpus=4), front=(QueuePosition("j1", NOW - 3 * DEADLINE_S),)),
            Why.INSTANCES_DO_NOT_JOIN,
            DOCTOR,
        ),
        (job(), seen(), Why.NO_INSTANCE, "the account's quota of vCPUs"),
        (job(), seen(front=(QueuePosition("j1", NOW - 5),)), Why.SCALING_UP, "the next one in cirro-cpu"),
        (
            job(since=NOW - 5),
            seen(front=(), running=2),
            Why.SCALING_UP,
            "waits for a machine of cirro-cpu, since 0 min",
        ),
        (job(since=NOW - 5), seen(front=None), Why.SCALING_UP, "waits for a machine of cirro-cpu, since 0 min"),
        (job(), seen(front=()), Why.NO_INSTANCE, "the account's quota of vCPUs"),
        (job(), seen(front=(*OTHERS, QueuePosition("j1", NOW))), Why.BEHIND_OTHERS, "It is number 4 in the queue."),
        (
            job(),
            seen(front=(*OTHERS, QueuePosition("j1", NOW)), head_reason=TOO_LARGE),
            Why.BEHIND_STUCK_JOB,
            "the first in cirro-cpu, other0, gets no machine: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
        ),
        # what was not to be learnt
        (job(), seen(types=None), Why.NO_INSTANCE, "quota"),
        (
            job(),
            seen(environment(vcpus=64), running=9, front=None, denied=("batch:GetJobQueueSnapshot",)),
            Why.MAX_VCPUS_REACHED,
            "Its place in the queue is not known (batch:GetJobQueueSnapshot is not allowed).",
        ),
        (
            job(),
            QueueSnapshot(None, (), None, None, None, "", ("batch:DescribeJobQueues",)),
            Why.NOT_LEARNT,
            "may not call batch:DescribeJobQueues",
        ),
    ],
)
def test_each_reason_has_its_name_and_what_to_do(of: Waiting, facts: QueueSnapshot, why: Why, said: str) -> None:
    """One row for each reason, AWS's own and ours."""
    found = reason(of, facts)
    assert found.why is why
    assert said in str(found)


@pytest.mark.parametrize("words", [ICE, TOO_LARGE, MAX, REFUSED, ROLE, INVALID, "UNDETERMINED"])
def test_awss_words_are_told_verbatim(words: str) -> None:
    """Whatever we make of them."""
    assert f"AWS Batch says: {words.rstrip('.')}." in str(reason(job(status_reason=words), seen()))


def test_the_reason_of_an_earlier_attempt_is_not_why_a_job_waits() -> None:
    """After a lost host the job waits again, still with the status reason of the attempt that was lost."""
    found = reason(job(status_reason="Host EC2 (instance i-0123) terminated."), seen(environment(vcpus=4)))
    assert (found.why, found.words) == (Why.SCALING_UP, "")


def test_scaling_up_and_a_full_queue_are_not_stuck() -> None:
    """Nobody has to do anything: they are told, not warned about."""
    assert not reason(job(), seen(environment(vcpus=4))).why.is_stuck
    assert not reason(job(), seen(environment(vcpus=64), running=3)).why.is_stuck
    assert reason(job(), seen()).why.is_stuck


def test_a_queue_that_deploy_did_not_make() -> None:
    """Is told in the words of the AWS CLI, since no parameter of ours changes it."""
    found = reason(job(need=Need(32, 4096, 0)), seen(environment(max_vcpus=16)), "simulations")
    assert "aws batch update-compute-environment --compute-environment spot --compute-resources maxvCpus=32" in str(
        found
    )
    assert "cirro deploy" not in str(found)


def test_deployments_are_known_by_their_queues_names() -> None:
    """As the compute template names them."""
    names = ("lab-cpu", "lab-cpu-on-demand", "arn:aws:batch:eu-west-1:1:job-queue/lab-gpu", "lab-gpu-on-demand")
    for name in names:
        found = deployment_of(name, "eu-west-1", None)
        assert found is not None
        assert found.stack_name == "lab"
    assert deployment_of("simulations", "eu-west-1", None) is None


# --- when it is asked -------------------------------------------------------------------------------------------------


class Looks:
    """A gateway that gives one answer, or errors first, and counts."""

    def __init__(self, answer: QueueSnapshot, *errors: Exception) -> None:
        self.answer, self.errors, self.asked = answer, list(errors), []  # type: ignore[var-annotated]

    async def __call__(self, queue: str) -> QueueSnapshot:
        self.asked.append(queue)
        if self.errors:
            raise self.errors.pop(0)
        return self.answer


def waits(look: Looks, **options: float) -> Waits:
    """Waits with a short deadline."""
    return Waits(look, region="eu-west-1", profile="lab", **{"deadline_s": 0.1, "every_s": 0.1, **options})


async def until(condition: Any) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_many_jobs_cost_one_look(caplog: pytest.LogCaptureFixture) -> None:
    """All that wait in a queue are explained from the same answer, with one line in the log for their reason."""
    look, told = Looks(seen(front=None)), []
    many = waits(look, every_s=60)
    began = time.time()
    for index in range(50):
        many.see(Waiting(f"j{index}", NEED, "", began), "cirro-cpu", told.append)
    await until(lambda: len(told) == 50)
    await asyncio.sleep(0.2)
    assert look.asked == ["cirro-cpu"]
    assert time.time() - began >= 0.1
    (record,) = [each for each in caplog.records if "no_instance_started" in each.getMessage()]
    assert "and 49 others of queue cirro-cpu" in record.getMessage()
    await many.aclose()


async def test_a_job_that_gets_its_machine_in_time_costs_nothing() -> None:
    """Nobody asks AWS before the deadline."""
    look = Looks(seen())
    few = waits(look, deadline_s=0.8)
    few.see(Waiting("j1", NEED, "", time.time()), "cirro-cpu", lambda reason: None)
    await asyncio.sleep(0.05)
    few.leave("j1")
    await asyncio.sleep(1.0)
    assert look.asked == []
    await few.aclose()


async def test_a_throttled_look_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    """It fails nobody and is not asked sooner than the next look."""
    caplog.set_level(logging.INFO)
    throttled = AwsError("Too Many Requests", operation="batch:ListJobs", code="429", throttled=True)
    look, told = Looks(seen(), throttled, RuntimeError("odd answer")), []
    few = waits(look)
    began = time.monotonic()
    few.see(Waiting("j1", NEED, "", time.time() - 1), "cirro-cpu", told.append)
    await until(lambda: told)
    assert len(look.asked) == 3
    assert time.monotonic() - began >= 0.2
    await few.aclose()


async def test_a_reason_that_changes_is_told_again() -> None:
    """And one that stays is not."""
    look, told = Looks(seen(environment(vcpus=4), front=None)), []
    few = waits(look)
    few.see(Waiting("j1", NEED, "", time.time() - 0.11), "cirro-cpu", told.append)
    await until(lambda: len(look.asked) >= 2)
    look.answer = seen(environment(vcpus=64), running=9, front=None)
    await until(lambda: len(told) >= 2 and len(look.asked) >= 5)
    assert [each.why for each in told][-1] is Why.MAX_VCPUS_REACHED
    assert len({str(each) for each in told}) == len(told)
    await few.aclose()


async def test_queues_are_asked_about_one_by_one() -> None:
    """Each has its own minute."""
    look, told = Looks(seen(front=None)), []
    few = waits(look, every_s=60)
    few.see(Waiting("j1", NEED, "", 1.0), "cirro-cpu", told.append)
    few.see(Waiting("j2", NEED, "", 1.0), "cirro-gpu", told.append)
    await until(lambda: len(told) == 2)
    assert sorted(look.asked) == ["cirro-cpu", "cirro-gpu"]
    await few.aclose()


def test_a_job_that_waits_for_a_consumable_resource_says_so() -> None:
    """AWS gives no reason: what is free tells it, of the job itself and of those behind it."""
    lacks = seen(head_lacks=(Consumable("license", 2, 1, 3),))
    first = reason(job(), lacks)
    assert (first.why, first.why.is_stuck) == (Why.NO_CONSUMABLE, False)
    assert "waits for 2 of license, of which 1 of 3 are free" in str(first)
    behind = reason(job(job_id="j2"), lacks._replace(front=(*lacks.front, QueuePosition("j2", NOW - 700))))
    assert str(behind).startswith("The first job in cirro-cpu, before it, waits for 2 of license")


@pytest.mark.parametrize(
    ("lacked", "words"),
    [
        (Consumable("license", 4, 3, 3), "aws batch update-consumable-resource --consumable-resource license"),
        (Consumable("license", 1, 0, None), "aws batch create-consumable-resource --consumable-resource-name license"),
    ],
)
def test_more_than_there_is_never_comes(lacked: Consumable, words: str) -> None:
    """Somebody has to act, and the command is told."""
    found = reason(job(), seen(head_lacks=(lacked,)))
    assert (found.why, found.why.is_stuck) == (Why.MISSING_CONSUMABLE, True)
    assert words in found.remedy


NODES = environment(name="nodes", kind="EC2", max_vcpus=16)
"""For jobs on several machines, of 2 vCPUs at least."""


@pytest.mark.parametrize(
    ("of", "facts", "why", "said"),
    [
        (job(nodes=8), seen(NODES), Why.NO_INSTANCE, "may have 16 vCPUs"),
        (
            job(nodes=9),
            seen(NODES),
            Why.MAX_VCPUS_BELOW_JOB,
            "asks for 18 vCPU (2 on each of 9 machines, which have no other job); the compute environments behind "
            "cirro-multi-node may have 16",
        ),
        (job(nodes=9), seen(NODES), Why.MAX_VCPUS_BELOW_JOB, DEPLOY.format("MultiNodeMaxVcpus=18")),
        # Each has an instance of 2 vCPUs, though it asks for 1.
        (job(need=NEED._replace(vcpus=1), nodes=10), seen(NODES), Why.MAX_VCPUS_BELOW_JOB, "Vcpus=20"),
        (job(status_reason=MAX, nodes=20), seen(NODES), Why.MAX_VCPUS_BELOW_JOB, "Ask for less (vcpu, num_nodes)"),
        (
            job(nodes=4),
            seen(NODES._replace(vcpus=12), running=2, running_vcpus=12.0),
            Why.MAX_VCPUS_REACHED,
            "12 of at most 16 vCPUs, too few are left for the 8 that the job asks for (2 on each of 4 machines, which "
            "have no other job); 2 jobs of the queue run, with 12 vCPUs",
        ),
        (job(nodes=2), seen(NODES._replace(vcpus=12), running=2), Why.NO_INSTANCE, "and has 12"),
        (job(nodes=4), seen(), Why.NOT_FOR_NODES, "behind cirro-multi-node is spot (SPOT)"),
        (job(nodes=4), seen(), Why.NOT_FOR_NODES, DEPLOY.format("MultiNodeMaxVcpus=...")),
        (job(nodes=4, status_reason=TOO_LARGE), seen(), Why.NOT_FOR_NODES, "batch_multi_node_queue"),
        (job(nodes=4), seen(environment(kind="FARGATE")), Why.NOT_FOR_NODES, "on demand only"),
        (job(nodes=4), seen(environment(), NODES), Why.NO_INSTANCE, "may have 16 vCPUs"),
        (job(nodes=4, status_reason=TOO_LARGE), seen(NODES), Why.NO_TYPE_FITS, "Ask for less (vcpu, memory, num_gpus"),
        (
            job(nodes=9, status_reason=TOO_LARGE),
            seen(environment(), NODES),
            Why.MAX_VCPUS_BELOW_JOB,
            "cirro-multi-node may have 16",
        ),
        (job(nodes=4), seen(NODES, types=None), Why.NO_INSTANCE, "may have 16 vCPUs"),
    ],
)
def test_all_machines_of_a_job_count(of: Waiting, facts: QueueSnapshot, why: Why, said: str) -> None:
    """A job on several machines starts when each has one, which is its own, and on demand."""
    found = reason(of, facts, "cirro-multi-node")
    assert (found.why, said in str(found)) == (why, True), str(found)


def test_a_queue_of_ones_own_for_several_machines() -> None:
    """Without the name of a deployment."""
    assert "Make a queue for them: `cirro deploy --parameter MultiNodeMaxVcpus=...`" in str(
        reason(job(nodes=4), seen(), "mine")
    )
