"""Decisions of the emulated ECS: which tasks of a service start and stop, and how a deployment ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.local.emulator.moto_internals import moto_target_tracking
from covalent_cirro.local.emulator.moto_internals.moto_target_tracking import TargetTracking
from covalent_cirro.local.emulator.serving.scaling import LOOKS_TO_SCALE_IN, Scaling, desired_count
from covalent_cirro.local.emulator.serving.service_model import (
    Cluster,
    Deployment,
    Service,
    ServiceTask,
    TaskDefinition,
)
from covalent_cirro.local.emulator.serving.service_scheduler import ServiceScheduler, ended, failed_to_start

GROUP = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web/1"


@dataclass
class FakeHands:
    """Notes what is decided; targets have the state that a test gives them."""

    states: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def launch(self, service: Service, deployment: Deployment) -> ServiceTask:
        self.made += 1
        task = ServiceTask(str(self.made), f"arn:{self.made}", deployment, created_at=self.made, port=8000 + self.made)
        service.tasks.append(task)
        return task

    def stop(self, task: ServiceTask) -> None:
        task.last_status = "STOPPING"

    def register(self, group: str, task: ServiceTask) -> None:
        self.states[task.id] = "initial"

    def deregister(self, group: str, task: ServiceTask) -> None:
        self.states[task.id] = "draining"

    def health(self, group: str, task: ServiceTask) -> Any:
        return SimpleNamespace(state=self.states.get(task.id, "unused"), reason="", description="Health checks failed")


class World:
    """A service with a scheduler, whose tasks do what a test says."""

    def __init__(self, desired: int = 2, **body: Any) -> None:
        self.hands = FakeHands()
        self.scheduler = ServiceScheduler(self.hands, Timing())
        self.now = 1000.0
        given = {"desiredCount": desired, "loadBalancers": [{"targetGroupArn": GROUP}], **body}
        self.service = Service("web", "arn:web", Cluster("main", "arn:main", {}), given, self.now)
        self.deploy()

    def deploy(self) -> Deployment:
        """Begin a deployment of a new definition."""
        definition = TaskDefinition("web", 1, "arn:definition", {"containerDefinitions": [{"name": "web"}]}, self.now)
        made = Deployment(definition, {}, self.now, self.now)
        for each in self.service.deployments:
            each.status = "ACTIVE"
        self.service.deployments.insert(0, made)
        self.service.latest = made
        self.advance()
        return made

    def advance(self, seconds: float = 0.0) -> float | None:
        self.now += seconds
        return self.scheduler.advance(self.service, self.now)

    def run(self, state: str = "healthy") -> None:
        """Have all pending tasks run, and get their targets into a state."""
        for task in self.active():
            if task.last_status == "PROVISIONING":
                task.last_status, task.started_at = "RUNNING", self.now
        self.advance()
        for task in self.active():
            if self.hands.states.get(task.id) == "initial":
                self.hands.states[task.id] = state
        self.advance()

    def end_stops(self) -> None:
        """Drain, and end, what was asked to stop."""
        for task in self.service.tasks:
            if task.desired_status == "STOPPED":
                self.hands.states.pop(task.id, None)
        self.advance()
        for task in self.service.tasks:
            if task.last_status == "STOPPING":
                ended(task, self.now, 0, None)
        self.advance()

    def settle(self) -> None:
        for _ in range(6):
            self.run()
            self.end_stops()

    def crash(self) -> None:
        """Have all tasks that were not healthy yet end by themselves."""
        for task in self.active():
            if self.hands.states.get(task.id) != "healthy":
                ended(task, self.now, 1, None)
        self.advance()

    def active(self) -> list[ServiceTask]:
        return [task for task in self.service.tasks if task.active]

    def healthy(self) -> int:
        return sum(self.hands.states.get(task.id) == "healthy" for task in self.active())

    def events(self) -> list[str]:
        return [each["message"] for each in self.service.events]


BREAKER = {"deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}}


def test_a_new_service_starts_its_tasks_and_completes_when_they_are_healthy() -> None:
    """Not before: running alone is not enough behind a balancer."""
    world = World()
    assert len(world.active()) == 2
    world.run("initial")
    assert world.service.primary.rollout_state == "IN_PROGRESS"
    world.run()
    assert world.service.primary.rollout_state == "COMPLETED"
    assert world.events()[:2] == [
        "(service web) has reached a steady state.",
        f"(service web) (deployment {world.service.primary.id}) deployment completed.",
    ]


def test_without_a_balancer_a_running_task_is_healthy() -> None:
    """There is nothing that could say otherwise."""
    world = World(loadBalancers=[])
    world.run()
    assert world.service.primary.rollout_state == "COMPLETED"


def test_an_update_starts_new_tasks_before_it_drains_old_ones() -> None:
    """As 100 and 200 percent ask for; and the deployment completes when the old ones are gone."""
    world = World()
    world.settle()
    old = world.active()
    new = world.deploy()
    assert len(world.active()) == 4
    world.run("initial")
    assert all(task.active for task in old)
    world.run()
    assert [task.desired_status for task in old] == ["STOPPED", "STOPPED"]
    assert [task.last_status for task in old] == ["DEACTIVATING", "DEACTIVATING"], "they drain before they stop"
    assert new.rollout_state == "IN_PROGRESS"
    assert world.healthy() == 2
    world.end_stops()
    assert new.rollout_state == "COMPLETED"
    assert world.service.deployments == [new]


def test_maximum_percent_bounds_the_tasks() -> None:
    """With 50 and 100 percent one task goes before the next comes."""
    world = World(4, deploymentConfiguration={"minimumHealthyPercent": 50, "maximumPercent": 100})
    world.settle()
    world.deploy()
    seen = []
    for _ in range(12):
        seen.append((world.healthy(), len(world.active())))
        world.run()
        world.end_stops()
    assert min(healthy for healthy, _ in seen) >= 2
    assert max(active for _, active in seen) <= 4
    assert world.service.primary.rollout_state == "COMPLETED"


def test_a_task_that_ends_by_itself_is_replaced() -> None:
    """At once, and it says why it stopped."""
    world = World()
    world.settle()
    task = world.active()[0]
    ended(task, world.now, 137, None)
    world.advance()
    assert len(world.active()) == 2
    assert (task.stop_code, task.stopped_reason) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert world.service.primary.rollout_state == "COMPLETED", "the deployment was complete before"


def test_an_unhealthy_task_is_drained_and_replaced() -> None:
    """After the grace period of the service."""
    world = World(healthCheckGracePeriodSeconds=60)
    world.run("unhealthy")
    assert len(world.active()) == 2
    assert not any("unhealthy" in text for text in world.events())
    stopped = world.active()
    world.advance(61)
    assert all(task.stopped_reason == f"Task failed ELB health checks in (target-group {GROUP})" for task in stopped)
    assert len(world.active()) == 2


@pytest.mark.parametrize("how", ["crash", "no start"])
def test_the_circuit_breaker_goes_back_to_what_was_complete(how: str) -> None:
    """After three failed tasks; the tasks of before have served all the time."""
    world = World(**BREAKER)
    world.settle()
    before, good = world.service.primary, world.active()
    bad = world.deploy()
    for _ in range(3):
        if how == "crash":
            world.run("initial")
            world.crash()
        else:
            for task in world.service.of(bad):
                failed_to_start(task, world.now, "CannotPullContainerError: not found")
            world.advance()
    assert bad.rollout_state == "FAILED"
    assert bad.rollout_reason == "ECS deployment circuit breaker: tasks failed to start."
    assert world.service.primary is before
    assert all(task.active for task in good)
    world.settle()
    assert before.rollout_state == "COMPLETED"
    assert world.active() == good
    assert world.service.deployments == [before]


def test_the_first_deployment_has_nothing_to_go_back_to() -> None:
    """It fails, and starts no more tasks."""
    world = World(**BREAKER)
    for _ in range(5):
        world.run("initial")
        world.crash()
    assert world.service.primary.rollout_state == "FAILED"
    assert world.active() == []


def test_unhealthy_tasks_open_the_circuit_too() -> None:
    """And the reason says so."""
    world = World(**BREAKER)
    world.settle()
    bad = world.deploy()
    for _ in range(4):
        world.run("unhealthy")
        world.end_stops()
    assert bad.rollout_state == "FAILED"
    assert bad.rollout_reason == "ECS deployment circuit breaker: tasks failed ELB health checks."


def test_without_the_breaker_failing_tasks_are_started_later_and_later() -> None:
    """A program that cannot start must not take the machine."""
    world = World(1)
    delays = []
    for _ in range(6):
        world.run("initial")
        world.crash()
        due = world.advance()
        delays.append(0.0 if due is None else due - world.now)
        world.now += delays[-1]
        world.advance()
    assert delays == [0.0, 0.0, 0.0, 10.0, 20.0, 40.0]


def test_scaling_in_drains_what_is_too_much() -> None:
    """The event tells which deployment asked for it."""
    world = World(3)
    world.settle()
    world.service.body["desiredCount"] = 1
    world.advance()
    assert len(world.active()) == 1
    world.settle()
    assert len(world.service.tasks) == 1
    (_, task) = world.service.cluster.stopped[0]
    assert task.stopped_reason == f"Scaling activity initiated by (deployment {world.service.primary.id})"


def test_a_deleted_service_is_inactive_once_its_tasks_have_stopped() -> None:
    """It drains them before."""
    world = World()
    world.settle()
    world.service.status = "DRAINING"
    world.service.body["desiredCount"] = 0
    world.advance()
    assert world.service.status == "DRAINING"
    world.end_stops()
    world.advance()
    assert world.service.status == "INACTIVE"


def test_a_policy_changes_the_service_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a minute, and not again before its cooldown has passed."""
    policy = TargetTracking("main", "web", "targetgroup/web/1", 100.0, least=1, most=8, in_s=300, out_s=300)
    monkeypatch.setattr(moto_target_tracking, "policies", lambda account, region: [policy])
    counts = iter((350, 700))
    scaling = Scaling(("1", "us-east-1"), Timing(), lambda group, since: next(counts))
    world = World()
    world.service.cluster.services["web"] = world.service
    for _ in range(2):
        scaling.look({"main": world.service.cluster}, world.now)
    assert world.service.desired == 4
    assert world.events()[0] == "(service web) has set the desired count to 4: 350 requests in the last minute."
    scaling._due = 0.0
    scaling.look({"main": world.service.cluster}, world.now)
    assert world.service.desired == 4


@pytest.mark.parametrize(
    ("count", "requests", "looks", "wanted"),
    [
        (2, 150, 0, 2),
        (2, 201, 0, 3),
        (2, 950, 0, 8),
        (4, 10, LOOKS_TO_SCALE_IN - 1, 4),
        (4, 10, LOOKS_TO_SCALE_IN, 2),
        (1, 0, 0, 2),
    ],
)
def test_the_desired_count_follows_the_requests(count: int, requests: int, looks: int, wanted: int) -> None:
    """Out at once, in after many quiet minutes, and always within the bounds."""
    policy = TargetTracking("main", "web", "targetgroup/web/1", 100.0, least=2, most=8, in_s=0, out_s=0)
    assert desired_count(policy, count, requests, looks) == wanted
