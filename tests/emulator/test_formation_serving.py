"""Stacks of infra/serving.yaml: a service that answers, its change in place, what goes back by itself, its end."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from covalent_cirro.deployment import templates
from covalent_cirro.local.emulator import Emulator, Timing
from covalent_cirro.local.emulator.attempts.runtime import ImageConfig
from tests.emulator.deployments import Account, Deployment

pytestmark = pytest.mark.timeout(300)

Poll = Callable[..., Any]

PROGRAM = """
import http.server, os, sys

class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = sys.argv[1].encode()
        self.send_response(500 if text == b"sick" else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass

if sys.argv[1] == "gone":
    sys.exit("it does not want to")
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""
"""The only program of the image: it answers with its argument; one that is sick answers 500, one that is gone ends."""

FAILED = (
    'Resource handler returned message: "Error occurred during operation '
    "'ECS Deployment Circuit Breaker was triggered'.\""
)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator whose tasks have the program."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "answering.py").write_text(PROGRAM)
    images = {"app": ImageConfig(environment={"PYTHONPATH": str(folder)})}
    timing = Timing(scale=0.02, task_start_s=5.0)
    with Emulator(state_dir=tmp_path_factory.mktemp("state"), timing=timing, images=images) as running:
        yield running


@pytest.fixture(scope="module")
def network(emulator: Emulator) -> dict[str, str]:
    """Outputs of the stacks that a service is deployed in."""
    deployment = Deployment(Account(emulator), "shared")
    for part in ("network", "storage"):
        deployment.deploy_part(part)
    return deployment.outputs


class Service:
    """A stack of the template, changed by change sets as `cirro` does it."""

    def __init__(self, emulator: Emulator, network: dict[str, str], poll: Poll) -> None:
        self._emulator = emulator
        self._network = network
        self._poll = poll
        self._number = 0
        self.formation: Any = emulator.client("cloudformation")
        self.ecs: Any = emulator.client("ecs")
        self.elb: Any = emulator.client("elbv2")
        self.id = ""

    def change_set(self, word: str, **more: object) -> list[dict[str, Any]]:
        """Plan the stack with a program that answers so; what changes."""
        self._number += 1
        names = ("VpcId", "SubnetIds", "SecurityGroupIds", "S3BucketName", "S3Prefix", "ImageRepositoryArn")
        values = {name: self._network[name] for name in names} | {
            "DeploymentName": "shared",
            "ServiceName": "answering",
            "Image": "app",
            "Command": f"python,-m,answering,{word}",
            "AllowFrom": "127.0.0.0/8",
            "MinTasks": "1",
            "HealthCheckGracePeriodSeconds": "0",
            **{key: str(value) for key, value in more.items()},
        }
        made = self.formation.create_change_set(
            StackName="shared-serving-answering",
            ChangeSetName=f"change-{self._number}",
            ChangeSetType="UPDATE" if self.id else "CREATE",
            TemplateBody=templates.body("serving"),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        self.id = made["StackId"]
        found = self.formation.describe_change_set(StackName=self.id, ChangeSetName=f"change-{self._number}")
        return [each["ResourceChange"] for each in found["Changes"]]

    def execute(self) -> str:
        """Carry the last plan out; the status of the stack when that is over."""
        self.formation.execute_change_set(StackName=self.id, ChangeSetName=f"change-{self._number}")
        return self.ended()

    def deploy(self, word: str, **more: object) -> str:
        """Plan it and carry it out."""
        self.change_set(word, **more)
        return self.execute()

    def status(self) -> str:
        """Of the stack."""
        return str(self.formation.describe_stacks(StackName=self.id)["Stacks"][0]["StackStatus"])

    def ended(self) -> str:
        """The status of the stack once nothing goes on."""
        return str(self._poll(lambda: not (now := self.status()).endswith("_IN_PROGRESS") and now, "the stack's end"))

    def outputs(self) -> dict[str, str]:
        """By key."""
        stack = self.formation.describe_stacks(StackName=self.id)["Stacks"][0]
        return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}

    def physical_ids(self) -> dict[str, str]:
        """By logical id."""
        found = self.formation.describe_stack_resources(StackName=self.id)["StackResources"]
        return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in found}

    def events(self, resource: str) -> list[tuple[str, str]]:
        """Status and reason of a resource, oldest first."""
        events = self.formation.describe_stack_events(StackName=self.id)["StackEvents"]
        return [
            (each["ResourceStatus"], each.get("ResourceStatusReason", ""))
            for each in reversed(events)
            if each["LogicalResourceId"] == resource
        ]

    def failures(self) -> list[str]:
        """What went wrong with its resources."""
        events = self.formation.describe_stack_events(StackName=self.id)["StackEvents"]
        return [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
            for event in reversed(events)
            if event["ResourceStatus"].endswith("_FAILED")
        ]

    def answer(self) -> str:
        """What the load balancer answers."""
        with urllib.request.urlopen(self.outputs()["Url"], timeout=30) as answer:
            return str(answer.read().decode())

    def described(self) -> dict[str, Any]:
        """What ECS says of the service."""
        outputs = self.outputs()
        found = self.ecs.describe_services(cluster=outputs["ClusterName"], services=[outputs["ServiceName"]])
        return dict(found["services"][0])

    def left(self) -> dict[str, list[str]]:
        """What costs something, or stands in the way of the next one."""
        return {
            "clusters": [
                arn
                for arn in self.ecs.list_clusters()["clusterArns"]
                if self.ecs.describe_clusters(clusters=[arn])["clusters"][0]["status"] == "ACTIVE"
            ],
            "load balancers": [each["LoadBalancerArn"] for each in self.elb.describe_load_balancers()["LoadBalancers"]],
            "target groups": [each["TargetGroupArn"] for each in self.elb.describe_target_groups()["TargetGroups"]],
            "task definitions": self.ecs.list_task_definitions(status="ACTIVE")["taskDefinitionArns"],
            "targets of scaling": self._emulator.client("application-autoscaling").describe_scalable_targets(
                ServiceNamespace="ecs"
            )["ScalableTargets"],
        }

    def delete(self) -> None:
        """Delete the stack, and wait until it is gone."""
        self.formation.delete_stack(StackName=self.id)
        assert self.ended() == "DELETE_COMPLETE", self.failures()


@pytest.fixture
def service(emulator: Emulator, network: dict[str, str], poll: Poll) -> Iterator[Service]:
    """A service that is not there yet, and of which nothing is left in the end."""
    made = Service(emulator, network, poll)
    yield made
    if made.status() != "DELETE_COMPLETE":
        made.delete()
    assert not any(made.left().values())


def test_a_stack_serves_and_is_changed_in_place(service: Service, poll: Poll) -> None:
    """Only the task definition is replaced; the service keeps its name, and the load balancer its address."""
    assert {each["Action"] for each in service.change_set("first")} == {"Add"}
    assert service.execute() == "CREATE_COMPLETE", service.failures()
    assert service.answer() == "first"
    outputs, ids = service.outputs(), service.physical_ids()
    assert ids["Service"].endswith(f"/{outputs['ClusterName']}/{outputs['ServiceName']}")
    assert ids["Cluster"] == outputs["ClusterName"]
    assert outputs["LoadBalancer"].startswith("app/")
    assert outputs["TargetGroup"] == ids["TargetGroup"]
    assert ids["ScalableTarget"] == (
        f"service/{outputs['ClusterName']}/{outputs['ServiceName']}|ecs:service:DesiredCount|ecs"
    )

    changes = {each["LogicalResourceId"]: each for each in service.change_set("second")}
    assert changes["TaskDefinition"]["Replacement"] == "True"
    assert changes["Service"]["Replacement"] == "False"
    assert "LoadBalancer" not in changes
    assert service.execute() == "UPDATE_COMPLETE", service.failures()
    assert service.answer() == "second"
    now = service.physical_ids()
    assert {name for name in ids if ids[name] != now[name]} == {"TaskDefinition"}
    old = service.ecs.describe_task_definition(taskDefinition=ids["TaskDefinition"])["taskDefinition"]
    assert old["status"] == "INACTIVE"
    assert service.described()["taskDefinition"] == now["TaskDefinition"]

    assert service.deploy("second", MinTasks=2, RequestsPerTarget=50) == "UPDATE_COMPLETE"
    poll(lambda: service.described()["runningCount"] == 2, "two tasks, which is the new minimum")


@pytest.mark.parametrize("word", ["sick", "gone"])
def test_what_is_not_healthy_goes_back_by_itself(service: Service, word: str) -> None:
    """ECS's circuit breaker undoes the deployment, then CloudFormation the rest; what was served before goes on."""
    assert service.deploy("well") == "CREATE_COMPLETE", service.failures()
    before = service.physical_ids()
    assert service.deploy(word) == "UPDATE_ROLLBACK_COMPLETE", service.failures()
    [(_, reason)] = [each for each in service.events("Service") if each[0] == "UPDATE_FAILED"]
    assert reason.startswith(FAILED)
    assert reason.endswith("HandlerErrorCode: GeneralServiceException)")
    assert service.answer() == "well"
    assert service.physical_ids() == before
    assert service.described()["taskDefinition"] == before["TaskDefinition"]
    assert service.left()["task definitions"] == [before["TaskDefinition"]]


def test_a_certificate_is_put_before_a_service_that_runs(service: Service, emulator: Emulator) -> None:
    """Its listener for HTTP is changed in place once the new one forwards to its targets; and back."""
    assert service.deploy("well") == "CREATE_COMPLETE", service.failures()
    before = service.physical_ids()
    arn = emulator.client("acm").request_certificate(DomainName="example.org")["CertificateArn"]
    changes = {each["LogicalResourceId"]: each for each in service.change_set("well", CertificateArn=arn)}
    assert changes["HttpsListener"]["Action"] == "Add"
    assert changes["HttpListener"]["Replacement"] == "False"
    assert {each.get("Replacement", "False") for each in changes.values()} <= {"False", "Conditional"}
    assert "TaskDefinition" not in changes
    assert service.execute() == "UPDATE_COMPLETE", service.failures()
    with pytest.raises(urllib.error.HTTPError) as redirected:
        urllib.request.build_opener(_Unfollowed).open(service.outputs()["Url"].replace("https", "http"), timeout=30)
    assert redirected.value.headers["Location"].startswith("https://")
    assert asked(service.outputs()["Url"]) == b"well"
    assert service.deploy("well") == "UPDATE_COMPLETE", service.failures()
    assert service.physical_ids() == before
    assert asked(service.outputs()["Url"]) == b"well"


def asked(url: str) -> bytes:
    """What a load balancer answers."""
    with urllib.request.urlopen(url, timeout=30, context=ssl._create_unverified_context()) as answer:
        return bytes(answer.read())


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    """Redirects are errors."""

    def redirect_request(self, *_: Any) -> None:
        """Do not go there."""


def test_a_service_that_never_runs_is_not_made(service: Service) -> None:
    """Its stack says why, and nothing of it is left but the stack itself."""
    assert service.deploy("gone") == "ROLLBACK_COMPLETE", service.failures()
    [(_, reason)] = [each for each in service.events("Service") if each[0] == "CREATE_FAILED"]
    assert reason.startswith(FAILED)
    assert service.events("Service")[-1][0] == "DELETE_COMPLETE"
    assert not any(service.left().values())


def test_what_a_service_refuses_fails_its_resource(service: Service) -> None:
    """With the service's words, in CloudFormation's form; what was made before it is deleted again."""
    arn = "arn:aws:wafv2:us-east-1:123456789012:regional/webacl/none/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
    assert service.deploy("well", WebAclArn=arn) == "ROLLBACK_COMPLETE"
    [(_, reason)] = [each for each in service.events("WebAclAssociation") if each[0] == "CREATE_FAILED"]
    assert reason.startswith('Resource handler returned message: "')
    assert "(Service: WAFV2, Status Code: 400)" in reason
    assert not any(service.left().values())


def test_an_answer_ends_with_the_service(service: Service) -> None:
    """Once its stack is deleted, nothing listens at its address any more."""
    assert service.deploy("well") == "CREATE_COMPLETE", service.failures()
    url = service.outputs()["Url"]
    service.delete()
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(url, timeout=10)
