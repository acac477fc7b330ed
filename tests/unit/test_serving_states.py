"""How a service's load balancer is waited for, and what AWS's answers about services mean."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from covalent_cirro.deployment.images import repository as images
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.serving import readiness, running_service, service_checks, service_facts, task_ends, task_logs
from covalent_cirro.serving.readiness import Reached
from covalent_cirro.serving.running_service import RunningService, TargetState
from covalent_cirro.serving.service_facts import AcmCertificate
from covalent_cirro.serving.service_values import ServedImage
from tests.unit.fake_clients import ACCOUNT, REGION, FakeClients, pages
from tests.unit.fake_formation import Time, refusal

WHERE = Where("cirro", REGION, None)
ARN = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/0a-1b"
URI = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/images"
DIGEST = f"sha256:{64 * '1'}"


# --- the wait ----------------------------------------------------------------------------------------------------


def wait(said: list[int | Exception], healthy: list[int], **more: Any) -> tuple[Reached, float]:
    """Wait for a service of two tasks; how the wait ended, and after how long.

    Args:
        said: Its answers, the last for ever.
        healthy: Numbers of its healthy targets, the last for ever.
        more: Given to `readiness.wait`.
    """
    time = Time()

    def next_of(found: list[Any]) -> Any:
        return found.pop(0) if len(found) > 1 else found[0]

    def get(url: str, path: str, host: str) -> int:
        found: int | Exception = next_of(said)
        if isinstance(found, Exception):
            raise found
        return found

    given = {"sleep": time.sleep, "clock": time.clock, "get": get, **more}
    return readiness.wait("http://a", "/ready", "", lambda: next_of(healthy), 2, **given), time.now


def test_an_answer_of_200_and_all_tasks_are_waited_for() -> None:
    """A name that is not in DNS yet, and a balancer without targets, are on the way to it."""
    reached, after_s = wait([OSError("Name or service not known"), 503, 503, 200], [0, 0, 0, 1, 2])
    assert reached == Reached(True, 2, "it answers /ready with 200")
    assert reached.serves
    assert after_s == pytest.approx(0.2 + 0.4 + 0.8 + 1.6)


def test_a_service_that_answers_something_else_is_told_with_it() -> None:
    """Though a target may be healthy by now: whoever asks gets this."""
    reached, after_s = wait([503], [2])
    assert reached == Reached(False, 2, "it answers /ready with 503")
    assert not reached.serves
    assert after_s >= readiness.TIMEOUT_S


def test_a_task_that_is_missing_is_told_of_a_service_that_serves() -> None:
    """After the same time."""
    reached, after_s = wait([200], [1])
    assert (reached.healthy, reached.serves) == (1, True)
    assert after_s >= readiness.TIMEOUT_S


def test_who_is_not_let_in_believes_the_targets() -> None:
    """After a minute without a connection."""
    reached, after_s = wait([OSError("timed out")], [2])
    assert reached == Reached(False, 2, "timed out")
    assert reached.serves
    assert readiness.UNREACHABLE_S <= after_s < readiness.UNREACHABLE_S + 5


def test_a_private_load_balancer_is_not_asked() -> None:
    """Its targets say whether it is well."""
    reached, after_s = wait([AssertionError()], [2], reachable=False)
    assert (reached.answered, reached.serves, after_s) == (False, True, 0)


def test_a_wrong_certificate_is_told_at_once() -> None:
    """No time makes it right."""
    error = ssl.SSLCertVerificationError()
    error.verify_message = "Hostname mismatch"
    reached, after_s = wait([error], [1])
    assert reached == Reached(False, 1, "its certificate is refused: Hostname mismatch")
    assert after_s == 0


# --- tasks that ended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        (
            {"stoppedReason": "Essential container in task exited", "containers": [{"exitCode": 1}]},
            "Essential container in task exited; exit code 1",
        ),
        (
            {
                "stoppedReason": "OutOfMemory",
                "containers": [{"exitCode": 137, "reason": "OutOfMemoryError: Container killed due to memory usage"}],
            },
            "OutOfMemory; OutOfMemoryError: Container killed due to memory usage; exit code 137",
        ),
        (
            {"stoppedReason": "CannotPullContainerError: not found", "containers": [{"reason": "CannotPull"}]},
            "CannotPullContainerError: not found",
        ),
        ({"stopCode": "TaskFailedToStart"}, "TaskFailedToStart"),
        ({"stoppedReason": "Scaling activity initiated by (deployment ecs-svc/1)"}, None),
    ],
)
def test_why_a_task_ended(described: dict[str, Any], reason: str | None) -> None:
    """In ECS's words, each once; one that was not needed any more has not failed."""
    found = task_ends.failed({"taskArn": "arn:aws:ecs:eu-west-1:1:task/cluster/0f1e", **described})
    assert (found and found.reason) == reason
    assert found is None or found.task_id == "0f1e"


# --- logs --------------------------------------------------------------------------------------------------------


def test_a_log_is_followed_without_a_line_twice() -> None:
    """Late lines are read again; the end of the log group is the end of it."""
    gone = refusal("FilterLogEvents", "no such group", "ResourceNotFoundException")
    rounds: list[list[tuple[str, int]] | ClientError] = [
        [("a", 1_000), ("b", 2_000)],
        [("b", 2_000), ("c", 1_500)],
        gone,
    ]

    def filter_log_events(**asked: Any) -> dict[str, Any]:
        found = rounds.pop(0)
        if isinstance(found, ClientError):
            raise found
        events = [
            {"eventId": id, "timestamp": at, "logStreamName": "films/service/0f1e", "message": f"line {id}\n"}
            for id, at in found
        ]
        return {"events": events}

    clients: Any = FakeClients(logs=SimpleNamespace(filter_log_events=filter_log_events))
    lines = list(task_logs.follow(clients, "group", 0, sleep=Time().sleep))
    assert [line.text for line in lines] == ["line a", "line b", "line c"]
    assert {line.task for line in lines} == {"0f1e"}


# --- certificate and image ---------------------------------------------------------------------------------------


def certificate(**said: Any) -> AcmCertificate:
    """What is known of a certificate of which ACM says this."""

    def describe_certificate(CertificateArn: str) -> dict[str, Any]:
        if "raises" in said:
            raise said["raises"]
        return {"Certificate": said}

    clients: Any = FakeClients(acm=SimpleNamespace(describe_certificate=describe_certificate))
    return service_facts.certificate_of(clients, ARN)


def test_a_certificate_that_is_issued_is_well() -> None:
    """Its name is where the service is asked."""
    assert certificate(Status="ISSUED", DomainName="films.example.org") == AcmCertificate("films.example.org", "", None)


def test_a_certificate_that_cannot_be_used_says_why() -> None:
    """Not validated yet, not there, of another region; who may not ask does not know."""
    assert "is PENDING_VALIDATION" in certificate(Status="PENDING_VALIDATION", DomainName="a").problem
    gone = refusal("DescribeCertificate", "Could not find certificate", "ResourceNotFoundException")
    assert "does not exist" in certificate(raises=gone).problem
    denied = refusal("DescribeCertificate", "not authorized", "AccessDeniedException")
    assert certificate(raises=denied) == AcmCertificate()
    clients: Any = FakeClients()
    elsewhere = service_facts.certificate_of(clients, ARN.replace(REGION, "us-east-1"))
    assert f"is in us-east-1, the load balancer in {REGION}" in elsewhere.problem
    assert "is not the ARN of a certificate" in service_facts.certificate_of(clients, "films").problem


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("nginx:latest", "is not in ECR"),
        ("public.ecr.aws/nginx/nginx:latest", "is not in ECR"),
        (f"210987654321.dkr.ecr.{REGION}.amazonaws.com/a:v1", "in the registry of account 210987654321"),
        (f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/a:v1", f"is in us-east-1, the deployment in {REGION}"),
        (f"{URI}:v2", "has no image with the tag 'v2'; it has the tags v1"),
        (f"{URI}:v1", ""),
        (f"{URI}@{DIGEST}", ""),
    ],
)
def test_an_image_is_pulled_from_ecr_only(monkeypatch: pytest.MonkeyPatch, uri: str, words: str) -> None:
    """Of this account and region; one that is there is known by its digest from then on."""
    pushed: Any = SimpleNamespace(digest=DIGEST, tags=("v1",))
    monkeypatch.setattr(images, "find", lambda repository, tag: pushed if tag == "v1" else None)
    monkeypatch.setattr(images, "listing", lambda repository: [pushed])
    monkeypatch.setattr(images, "architectures", lambda repository, digest: ("amd64",))
    clients: Any = FakeClients(ecr=None)
    found = service_facts.image_of(clients, ACCOUNT, uri)
    assert words in found.problem
    if not words:
        arn = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/images"
        assert found == ServedImage(f"{URI}@{DIGEST}", arn, ("amd64",))


def test_the_emulated_aws_has_images_of_its_own() -> None:
    """A folder, of which nothing can be looked up."""
    clients: Any = FakeClients()
    clients.endpoint_url = "http://127.0.0.1:4566"
    assert service_facts.image_of(clients, ACCOUNT, "recommender") == ServedImage("recommender", "")


# --- doctor ------------------------------------------------------------------------------------------------------


def seen(status: str = "CREATE_COMPLETE", **more: Any) -> RunningService:
    """A service of two tasks."""
    stack = Stack("cirro-serving-films", "arn", status, "because", "covalent-cirro", {"MinTasks": "2"}, {}, {})
    given = {"desired": 2, "running": 2, "targets": targets("healthy", "healthy"), **more}
    return RunningService("films", stack, "http://a", **given)


def targets(*states: str) -> tuple[TargetState, ...]:
    """Targets in these states."""
    return tuple(TargetState(f"10.0.0.{number}:8000", state, "") for number, state in enumerate(states))


def test_a_service_that_serves_is_well() -> None:
    """With its numbers; while it is changed, too."""
    for status in ("CREATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"):
        found = service_checks.state(seen(status), "", WHERE)
        assert found == Finding("service", "films", OK, "2 of 2 tasks run; targets: 2 healthy")


def test_a_service_that_does_not_serve_is_a_failure() -> None:
    """With the reason of the newest failed task; fewer tasks than there should be are a warning."""
    none = service_checks.state(seen(targets=targets("unhealthy")), "task 0f1e ended: exit code 3", WHERE)
    assert none.level == FAILURE
    assert none.seen.endswith("targets: 1 unhealthy; task 0f1e ended: exit code 3")
    fewer = service_checks.state(seen(targets=targets("healthy", "draining")), "", WHERE)
    assert fewer.level == WARNING
    broken = service_checks.state(seen("UPDATE_ROLLBACK_FAILED"), "", WHERE)
    assert (broken.level, "is UPDATE_ROLLBACK_FAILED (because)" in broken.seen) == (FAILURE, True)


def test_an_image_or_model_that_is_gone_is_a_failure() -> None:
    """What runs goes on; what starts does not."""
    gone = service_checks.image("films", ServedImage("a", "", problem="the image a is not in ECR"), "x86_64", WHERE)
    assert (gone.level, "no new task can start: the image a is not in ECR" in gone.seen) == (FAILURE, True)
    other = service_checks.image("films", ServedImage("a", "", ("arm64",)), "x86_64", WHERE)
    assert other.level == FAILURE
    assert service_checks.image("films", ServedImage("a", "", ("arm64",)), "arm64", WHERE).level == OK
    lost = service_checks.model("films", "films/1", "", "there is no such model", WHERE)
    assert lost.level == FAILURE
    newer = service_checks.model("films", "films/1", "2", "", WHERE)
    assert (newer.level, "the current version is 2" in newer.seen) == (OK, True)


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (None, WARNING, "HTTP alone, which anybody on the way reads, from 203.0.113.0/24"),
        (AcmCertificate("a.org", "", 100 * 86400.0), OK, "HTTPS for a.org, from 203.0.113.0/24"),
        (AcmCertificate("a.org", "", 10 * 86400.0), WARNING, "for a.org expires in 10 days"),
        (AcmCertificate("a.org", "", -1.0), FAILURE, "for a.org has expired"),
        (AcmCertificate("a.org", "is EXPIRED"), FAILURE, "is EXPIRED"),
    ],
)
def test_who_reaches_a_service_and_how(found: AcmCertificate | None, level: str, words: str) -> None:
    """HTTP alone is a warning, for ever; a certificate that expires one in time."""
    said = service_checks.access("films", {"AllowFrom": "203.0.113.0/24"}, found, 0.0, WHERE)
    assert (said.level, words in said.seen) == (level, True)


# --- state -------------------------------------------------------------------------------------------------------


def test_the_state_of_a_service_is_read() -> None:
    """Tasks with what they serve, targets with reasons, requests, errors and latency."""
    definition = {
        "containerDefinitions": [
            {
                "name": "service",
                "image": "images@sha256:1",
                "environment": [
                    {"name": "CIRRO_MODEL", "value": "s3://bucket/a/b/models/films/20261130T081500Z-0a1b2c3d"}
                ],
            }
        ]
    }
    task = {
        "taskArn": "arn:task/cluster/0f1e",
        "taskDefinitionArn": "arn:definition:1",
        "availabilityZone": "eu-west-1a",
        "lastStatus": "RUNNING",
    }
    service = {
        "status": "ACTIVE",
        "desiredCount": 2,
        "runningCount": 1,
        "pendingCount": 1,
        "taskDefinition": "arn:definition:2",
        "deployments": [{"status": "PRIMARY", "rolloutState": "IN_PROGRESS", "rolloutStateReason": "in progress."}],
        "events": [{"message": "has started 1 tasks"}],
    }
    target = {"Target": {"Id": "10.0.0.1", "Port": 80}, "TargetHealth": {"State": "unhealthy", "Description": "503"}}
    values = {
        "requests": [5.0, 7.0],
        "target_errors": [1.0],
        "balancer_errors": [2.0],
        "p50": [0.01],
        "p99": [0.05, 9.0],
    }
    asked: list[Any] = []

    def get_metric_data(**request: Any) -> dict[str, Any]:
        asked.append(request)
        return {"MetricDataResults": [{"Id": id, "Values": found} for id, found in values.items()]}

    clients: Any = FakeClients(
        ecs=SimpleNamespace(
            describe_services=lambda **_: {"services": [service]},
            get_paginator=lambda _: pages(taskArns=["arn:task/cluster/0f1e"]),
            describe_tasks=lambda **_: {"tasks": [task]},
            describe_task_definition=lambda **_: {"taskDefinition": definition},
        ),
        elasticloadbalancing=SimpleNamespace(describe_target_health=lambda **_: {"TargetHealthDescriptions": [target]}),
        cloudwatch=SimpleNamespace(get_metric_data=get_metric_data),
    )
    outputs = {
        "Url": "http://a",
        "ClusterName": "cluster",
        "ServiceName": "service",
        "LoadBalancer": "app/balancer/1",
        "TargetGroup": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/group/2",
    }
    stack = Stack("cirro-serving-films", "arn", "UPDATE_IN_PROGRESS", "", "", {}, outputs, {})
    found = running_service.look(clients, "films", stack, now=lambda: 7200.0)
    assert (found.running, found.desired, found.pending, found.healthy) == (1, 2, 1, 0)
    [running] = found.tasks
    assert (running.model, running.is_new) == ("films/20261130T081500Z-0a1b2c3d", False)
    assert found.targets == (TargetState("10.0.0.1:80", "unhealthy", "503"),)
    assert found.traffic is not None
    assert (found.traffic.requests, found.traffic.errors, found.traffic.p99_s) == (12, 3, 0.05)
    dimensions = {each["Value"] for each in asked[0]["MetricDataQueries"][0]["MetricStat"]["Metric"]["Dimensions"]}
    assert dimensions == {"app/balancer/1", "targetgroup/group/2"}
