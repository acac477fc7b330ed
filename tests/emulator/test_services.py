"""ECS services on the emulator: tasks are processes that answer behind a balancer, updates roll, failures go back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from covalent_cirro.local.emulator import Emulator, Timing
from covalent_cirro.local.emulator.batch import shapes
from tests.emulator.conftest import SCALE, Aws, alive, poll
from tests.emulator.web_services import Answer, Web, ask, load


@pytest.fixture
def web(aws: Aws) -> Iterator[Web]:
    """A balancer and a cluster; the service that a test makes is deleted."""
    made = Web(aws)
    yield made
    found = made.ecs.describe_services(cluster=made.cluster, services=[made.name])["services"]
    if found and found[0]["status"] == "ACTIVE":
        made.delete()


def pids(web: Web) -> set[int]:
    """Processes that answer, as seen by enough requests for each task to be asked."""
    return {json.loads(ask(web.address).body)["pid"] for _ in range(8)}


def test_a_service_answers_behind_its_balancer(web: Web, aws: Aws) -> None:
    """Two tasks share the requests; all that ECS tells of them has the form of the API."""
    aws.logs.create_log_group(logGroupName=web.name)
    role = aws.role()
    options = {"awslogs-group": web.name, "awslogs-region": "us-east-1", "awslogs-stream-prefix": "web"}
    container = {"logConfiguration": {"logDriver": "awslogs", "options": options}}
    web.create(web.define(container=container, taskRoleArn=role, executionRoleArn=role))
    service = web.settle()
    assert len(pids(web)) == 2
    assert (service["runningCount"], service["pendingCount"], service["desiredCount"]) == (2, 0, 2)
    assert web.messages()[0] == f"(service {web.name}) has reached a steady state."
    assert {each["TargetHealth"]["State"] for each in web.health()} == {"healthy"}
    tasks = web.tasks()
    assert {each["lastStatus"] for each in tasks} == {"RUNNING"}
    assert {each["group"] for each in tasks} == {f"service:{web.name}"}
    credentials = json.loads(ask(web.address, "/credentials").body)
    assert credentials["RoleArn"] == role
    for task in tasks:
        stream = f"web/app/{task['taskArn'].rpartition('/')[2]}"
        events = aws.logs.get_log_events(logGroupName=web.name, logStreamName=stream)["events"]
        assert events[0]["message"] == "version 1 listens"


def test_answers_have_the_form_of_the_api(web: Web, aws: Aws) -> None:
    """botocore drops what its model lacks: the answers themselves are looked at."""
    wrong: list[str | None] = []

    def check(http_response: Any, model: Any, **_: Any) -> None:
        wrong.append(shapes.mistake(model.output_shape, json.loads(http_response.content)))

    client = aws.emulator.client("ecs")
    client.meta.events.register("after-call.ecs", check)
    web.ecs = client
    web.create(count=1)
    web.settle()
    web.tasks()
    client.describe_task_definition(taskDefinition=web.name)
    client.describe_clusters(clusters=[web.cluster])
    client.list_task_definitions()
    client.list_services(cluster=web.cluster)
    client.list_clusters()
    assert set(wrong) == {None}


def test_a_rolling_update_under_load_has_no_failed_answer(web: Web) -> None:
    """New tasks are healthy before old ones are drained, and those finish what they have begun."""
    web.create()
    web.settle()
    with load(web.address) as answers:
        poll(lambda: len(answers) > 20, "answers before the update")
        web.update(taskDefinition=web.define("2"))
        web.settle()
        seen = len(answers)
        poll(lambda: len(answers) > seen + 20, "answers after the update")
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers[:10]} == {"1"}
    assert {version for _, version in answers[seen + 5 :]} == {"2"}
    assert [each["status"] for each in web.described()["deployments"]] == ["PRIMARY"]
    stopped = web.tasks("STOPPED")
    assert {each["stoppedReason"].partition(" (")[0] for each in stopped} == {"Scaling activity initiated by"}
    assert {each["containers"][0]["exitCode"] for each in stopped} == {0}


def test_an_update_that_does_not_start_goes_back(web: Web) -> None:
    """The circuit breaker ends it after three tasks; the version of before answers all the time."""
    web.create()
    web.settle()
    good = web.described()["taskDefinition"]
    with load(web.address) as answers:
        web.update(taskDefinition=web.define("crashes"))
        web.settle("FAILED")
        poll(lambda: len(web.described()["deployments"]) == 1, "the failed deployment is gone")
        poll(lambda: web.described()["deployments"][0]["rolloutState"] == "COMPLETED", "it is complete")
    assert set(answers) == {(200, "1")}
    assert web.described()["taskDefinition"] == good
    state = web.aws.emulator.serving.deployment_state(web.cluster, web.name)
    assert state["rolloutStateReason"] == "ECS deployment circuit breaker: tasks failed to start."
    assert any("rolling back to (deployment" in text for text in web.messages())
    assert any("deployment failed: tasks failed to start." in text for text in web.messages())


def test_requests_in_progress_are_finished_before_a_task_stops(web: Web, tmp_path: Path) -> None:
    """The target drains: it gets no new request, and SIGTERM only after its last answer."""
    delay = {"Key": "deregistration_delay.timeout_seconds", "Value": "3000"}
    web.elb.modify_target_group_attributes(TargetGroupArn=web.group, Attributes=[delay])
    web.create(count=1)
    web.settle()
    old, file, answers = pids(web), tmp_path / "slow", list[Answer]()
    slow = threading.Thread(target=lambda: answers.append(ask(web.address, f"/slow?{file}")), daemon=True)
    slow.start()
    poll(file.exists, "the slow request has begun")
    web.update(taskDefinition=web.define("2"))
    poll(lambda: any("has begun draining" in text for text in web.messages()), "draining")
    assert all(alive(pid) for pid in old)
    assert {ask(web.address).headers["X-Version"] for _ in range(4)} == {"2"}
    assert "draining" in {each["TargetHealth"]["State"] for each in web.health()}
    assert web.rollout() == "IN_PROGRESS"
    file.unlink()
    slow.join()
    assert [(each.status, each.headers["X-Version"]) for each in answers] == [(200, "1")]
    web.settle()
    assert not any(alive(pid) for pid in old)


def test_a_task_that_is_killed_is_replaced(web: Web, faults: Any) -> None:
    """By the fault ``kill_task``, which hits running tasks of the service."""
    web.create()
    web.settle()
    faults.add("kill_task", job=web.name, count=1)
    poll(lambda: [each["lastStatus"] for each in web.tasks("STOPPED")] == ["STOPPED"], "a task stopped")
    (stopped,) = web.tasks("STOPPED")
    assert stopped["containers"][0]["exitCode"] == 137
    assert (stopped["stopCode"], stopped["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    poll(lambda: [each["TargetHealth"]["State"] for each in web.health()] == ["healthy"] * 2, "two healthy targets")
    assert len(pids(web)) == 2


def test_an_image_that_cannot_be_pulled_fails_the_deployment(web: Web, faults: Any) -> None:
    """The first deployment has nothing to go back to."""
    faults.add("image_pull", job=web.name)
    web.create()
    web.settle("FAILED")
    stopped = web.tasks("STOPPED")
    assert {each["stopCode"] for each in stopped} == {"TaskFailedToStart"}
    assert all(each["stoppedReason"].startswith("CannotPullContainerError: ") for each in stopped)


def test_a_stopped_task_is_replaced(web: Web) -> None:
    """StopTask gives it a reason, and drains it."""
    web.create(count=1)
    web.settle()
    (task,) = web.tasks()
    web.ecs.stop_task(cluster=web.cluster, task=task["taskArn"], reason="enough")
    poll(lambda: [each["lastStatus"] for each in web.tasks("STOPPED")] == ["STOPPED"], "it stopped")
    (stopped,) = web.tasks("STOPPED")
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "enough")
    poll(lambda: ask(web.address).status == 200, "another task answers")


def test_a_task_that_ignores_sigterm_is_killed(web: Web) -> None:
    """After its container's stopTimeout."""
    web.create(web.define("stubborn", {"stopTimeout": 1}), count=1)
    web.settle()
    web.update(desiredCount=0)
    poll(lambda: [each["lastStatus"] for each in web.tasks("STOPPED")] == ["STOPPED"], "it stopped")
    (stopped,) = web.tasks("STOPPED")
    assert stopped["containers"][0]["exitCode"] == 137
    assert ask(web.address).status == 503


def test_the_count_can_be_changed(web: Web) -> None:
    """Without a new deployment."""
    web.create(count=1)
    before = web.settle()["deployments"][0]["id"]
    web.update(desiredCount=3)
    poll(lambda: len(web.health()) == 3 and len(pids(web)) == 3, "three tasks answer")
    web.update(desiredCount=1)
    poll(lambda: web.described()["runningCount"] == 1, "one task is left")
    assert [each["id"] for each in web.described()["deployments"]] == [before]
    assert len(pids(web)) == 1


def test_nothing_is_left_when_the_emulator_ends(tmp_path: Path) -> None:
    """No process, and no port; and meanwhile everything listens on the loopback only."""
    with Emulator(state_dir=tmp_path / "state", timing=Timing(scale=SCALE)) as emulator:
        web = Web(Aws(emulator))
        web.create()
        web.settle()
        left = pids(web)
        own = psutil.Process()
        listening = [
            each.laddr
            for process in (own, *(psutil.Process(pid) for pid in left))
            for each in process.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        ]
        assert {each.ip for each in listening} == {"127.0.0.1"}
        assert len(listening) >= 4
        port = int(web.address.rpartition(":")[2])
    poll(lambda: not any(alive(pid) for pid in left), "all tasks have ended")
    with pytest.raises(ConnectionRefusedError):
        ask(f"127.0.0.1:{port}")


def test_tasks_that_are_not_healthy_fail_a_deployment(tmp_path: Path) -> None:
    """Each is drained and stopped, and says why."""
    with Emulator(state_dir=tmp_path / "state", timing=Timing(scale=SCALE, task_start_s=0.0)) as emulator:
        web = Web(Aws(emulator))
        web.create(web.define("sick"))
        web.settle("FAILED")
        state = emulator.serving.deployment_state(web.cluster, web.name)
        assert state["rolloutStateReason"] == "ECS deployment circuit breaker: tasks failed ELB health checks."
        assert {each["stoppedReason"] for each in web.tasks("STOPPED")} == {
            f"Task failed ELB health checks in (target-group {web.group})"
        }
        assert any(f"is unhealthy in (target-group {web.group}) due to" in text for text in web.messages())


def refused(call: Any, **request: Any) -> tuple[str, str]:
    """Code and message with which a call is refused."""
    with pytest.raises(ClientError) as error:
        call(**request)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def test_what_does_not_fit_together_is_refused(web: Web) -> None:
    """In AWS's words, before anything is made."""
    definition = web.define()
    given = {
        "cluster": web.cluster,
        "serviceName": web.name,
        "taskDefinition": definition,
        "desiredCount": 1,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": web.subnets}},
    }
    balancer = {"targetGroupArn": web.group, "containerName": "app", "containerPort": 8000}

    def create(**changes: Any) -> tuple[str, str]:
        return refused(web.ecs.create_service, **{**given, **changes})

    assert create(cluster="nowhere") == ("ClusterNotFoundException", "Cluster not found.")
    assert create(taskDefinition="nothing") == ("ClientException", "TaskDefinition not found.")
    assert create(networkConfiguration={}) == (
        "InvalidParameterException",
        "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
    )
    assert create(loadBalancers=[{**balancer, "containerName": "other"}]) == (
        "InvalidParameterException",
        "The container other does not exist in the task definition.",
    )
    assert create(loadBalancers=[{**balancer, "containerPort": 1}])[1] == (
        "The container app did not have a container port 1 defined."
    )
    web.elb.delete_listener(ListenerArn=web.listener)
    assert create(loadBalancers=[balancer])[1] == (
        f"The target group with targetGroupArn {web.group} does not have an associated load balancer."
    )
    web.ecs.create_service(**{**given, "desiredCount": 0})
    assert create()[1] == "Creation of service was not idempotent."
    assert refused(web.ecs.delete_cluster, cluster=web.cluster) == (
        "ClusterContainsServicesException",
        "The Cluster cannot be deleted while Services are active.",
    )


def test_task_definitions_have_revisions(web: Web) -> None:
    """A deregistered one can be described, and not be used."""
    first, second = web.define(), web.define()
    assert [first.rpartition(":")[2], second.rpartition(":")[2]] == ["1", "2"]
    assert web.ecs.describe_task_definition(taskDefinition=web.name)["taskDefinition"]["revision"] == 2
    web.ecs.deregister_task_definition(taskDefinition=second)
    assert web.ecs.describe_task_definition(taskDefinition=web.name)["taskDefinition"]["revision"] == 1
    assert web.ecs.list_task_definitions(familyPrefix=web.name)["taskDefinitionArns"] == [first]
    assert refused(web.create, definition=second) == ("ClientException", "TaskDefinition is inactive")
    assert refused(web.define, cpu="256", memory="4096") == (
        "ClientException",
        "No Fargate configuration exists for given values.",
    )
