"""A service is made, changed, taken back by AWS and deleted: against fakes of CloudFormation, ECS and the rest."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from covalent_cirro.deployment.doctor import subnet_facts
from covalent_cirro.deployment.doctor.verdicts.network import Subnet
from covalent_cirro.errors import Declined, ModelError, NotFound, ServingError, SettingsError
from covalent_cirro.serving import deploying, readiness, removing, running_service, service_facts
from covalent_cirro.serving.deploying import DEPLOY, ROLLBACK, UPDATE, Choice, ServedService, ServicePlan, Shown
from covalent_cirro.serving.readiness import Reached
from covalent_cirro.serving.service_values import ServedImage
from tests.unit.fake_clients import FakeClients, pages
from tests.unit.fake_formation import FakeFormation, Time

STACK = "cirro-serving-films"
GROUP = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/cirro/1"
REPOSITORY = "arn:aws:ecr:eu-west-1:123456789012:repository/images"
DEPLOYED = {
    "network": {
        "VpcId": "vpc-01234567",
        "SubnetIds": "subnet-0000000a,subnet-0000000b",
        "SecurityGroupIds": "sg-01234567",
    },
    "storage": {
        "S3BucketName": "bucket",
        "S3Prefix": "cirro",
        "ImageRepositoryArn": REPOSITORY,
        "ImageRepository": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/images",
    },
}
OUTPUTS = {
    "Url": "http://balancer.example.org",
    "ClusterName": "cluster",
    "ServiceName": "service",
    "TaskDefinition": "arn:definition:1",
    "TargetGroup": GROUP,
    "LogGroup": "log-group",
    "LoadBalancer": "app/balancer/1",
}
V1, V2 = "20261129T081500Z-0a1b2c3d", "20261130T081500Z-0a1b2c3d"
CHOICE = Choice(image="images:v1", parameters={"AllowFrom": "203.0.113.0/24"})
BREAKER = (
    "Resource handler returned message: \"Error occurred during operation 'ECS Deployment Circuit Breaker was "
    "triggered'.\""
)


class FakeEcs:
    """Services and tasks as they are told."""

    def __init__(self) -> None:
        self.definition = "arn:definition:1"
        self.events: list[dict[str, Any]] = []
        self.stopped: dict[str, dict[str, Any]] = {}

    def describe_services(self, cluster: str, services: list[str]) -> dict[str, Any]:
        assert cluster == "cluster"
        return {"services": [{"status": "ACTIVE", "taskDefinition": self.definition, "events": self.events}]}

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_tasks"
        return pages(taskArns=list(self.stopped))

    def describe_tasks(self, cluster: str, tasks: list[str]) -> dict[str, Any]:
        return {"tasks": [self.stopped[arn] for arn in tasks]}

    def fail(self, task: str, reason: str) -> None:
        """A task that ended."""
        arn = f"arn:aws:ecs:eu-west-1:123456789012:task/cluster/{task}"
        self.stopped[arn] = {
            "taskArn": arn,
            "taskDefinitionArn": "arn:definition:2",
            "lastStatus": "STOPPED",
            "stoppedReason": reason,
            "containers": [{"name": "service", "exitCode": 3}],
        }


class FakeLogs:
    """One line in each stream."""

    def get_log_events(self, logGroupName: str, logStreamName: str, limit: int, startFromHead: bool) -> dict[str, Any]:
        assert logGroupName == "log-group"
        return {"events": [{"message": f"the last line of {logStreamName}"}]}


class Account:
    """An account with a deployment, in which services are made."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.formation, self.ecs, self.time = FakeFormation(), FakeEcs(), Time()
        for part, outputs in DEPLOYED.items():
            said = [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()]
            self.formation.add(f"cirro-{part}", "CREATE_COMPLETE", Outputs=said)
        self.formation.outputs[STACK] = OUTPUTS
        self.formation.listed[STACK] = [
            {
                "LogicalResourceId": each,
                "ResourceType": kind,
                "PhysicalResourceId": id,
                "ResourceStatus": "CREATE_COMPLETE",
            }
            for each, kind, id in (
                ("Cluster", "AWS::ECS::Cluster", "cluster"),
                ("Service", "AWS::ECS::Service", "service"),
                ("LogGroup", "AWS::Logs::LogGroup", "log-group"),
                ("LoadBalancer", "AWS::ElasticLoadBalancingV2::LoadBalancer", "arn:balancer"),
            )
        ]
        self.healthy = 2
        self.tagged: list[str] = []
        elb = SimpleNamespace(describe_target_health=self._targets)
        tagging = SimpleNamespace(get_paginator=lambda operation: pages(ResourceTagMappingList=self._tags()))
        self.clients: Any = FakeClients(
            self.formation, ecs=self.ecs, logs=FakeLogs(), elasticloadbalancing=elb, tag=tagging
        )
        zones = {id: Subnet(id, f"eu-west-1{id[-1]}", True, "igw-1", frozenset()) for id in self.subnets()}
        self.current = V1
        self.asked: list[str] = []
        patch.setattr(subnet_facts, "subnets", lambda clients, ids: zones)
        patch.setattr(service_facts, "image_of", self._image)
        patch.setattr(readiness, "wait", lambda *_, **__: Reached(True, 2, "it answers /health with 200"))
        patch.setattr(
            deploying, "ModelRegistry", lambda *_: SimpleNamespace(version=self._version, current=self._current)
        )

    @staticmethod
    def subnets() -> list[str]:
        """Ids of the deployment's subnets."""
        return DEPLOYED["network"]["SubnetIds"].split(",")

    def carry_out(self, choice: Choice = CHOICE, what: str = DEPLOY, **shown: Any) -> ServedService:
        """Deploy, update or roll back."""
        given = Shown(**shown)
        return deploying.carry_out(
            self.clients, "cirro", "films", choice, what, shown=given, sleep=self.time.sleep, clock=self.time.clock
        )

    def changes(self, *names: str) -> None:
        """What the next change set of the service has."""
        self.formation.changes[STACK] = [
            {"Action": "Modify", "LogicalResourceId": name, "ResourceType": "AWS::ECS::Service", "Replacement": "False"}
            for name in names
        ]

    def parameters(self) -> dict[str, str]:
        """Those of the service's stack."""
        [stack] = [each for each in self.formation.stacks.values() if each["StackName"] == STACK]
        return {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}

    def _targets(self, TargetGroupArn: str) -> dict[str, Any]:
        assert TargetGroupArn == GROUP
        target = {"Target": {"Id": "10.0.0.1", "Port": 8000}, "TargetHealth": {"State": "healthy"}}
        return {"TargetHealthDescriptions": [target] * self.healthy}

    def _tags(self) -> list[dict[str, str]]:
        return [{"ResourceARN": arn} for arn in self.tagged]

    def _image(self, clients: Any, account: str, uri: str) -> ServedImage:
        self.asked.append(uri)
        known = uri if "@" in uri else f"{uri}@sha256:0"
        return ServedImage(known, REPOSITORY, ("amd64",))

    def _version(self, name: str, version: str) -> Any:
        if version not in (V1, V2):
            raise ModelError(f"the model {name!r} has no version {version}.")
        return SimpleNamespace(name=name, version=version)

    def _current(self, name: str) -> Any:
        return self._version(name, self.current)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    """An account with a deployment."""
    return Account(monkeypatch)


# --- deploy ------------------------------------------------------------------------------------------------------


def test_a_service_is_shown_asked_about_and_made(account: Account) -> None:
    """With the digest of its image; nothing is executed before the answer."""
    plans: list[ServicePlan] = []

    def confirm(plan: ServicePlan) -> bool:
        assert ("create", STACK) not in account.formation.done
        plans.append(plan)
        return True

    served = account.carry_out(confirm=confirm)
    assert (served.changed, served.outputs, served.reached.answered) == (True, OUTPUTS, True)
    assert account.parameters()["Image"] == "images:v1@sha256:0"
    assert account.parameters()["SubnetIds"] == DEPLOYED["network"]["SubnetIds"]
    [plan] = plans
    assert (plan.part.action, plan.min_tasks, plan.max_tasks, plan.size.zones) == ("create", 2, 4, 2)
    assert account.formation.change_sets == {}


def test_who_says_no_changes_nothing(account: Account) -> None:
    """The change set goes, and the empty stack that it made."""
    with pytest.raises(Declined, match="nothing was changed"):
        account.carry_out(confirm=lambda plan: False)
    assert account.formation.change_sets == {}
    assert STACK not in account.formation.alive()


def test_a_service_without_changes_is_not_asked_about(account: Account) -> None:
    """It is waited for all the same."""
    account.carry_out()
    account.formation.changes[STACK] = None

    def confirm(plan: ServicePlan) -> bool:
        raise AssertionError("nobody is asked")

    again = account.carry_out(confirm=confirm)
    assert (again.changed, again.reached.answered) == (False, True)


def test_a_model_needs_no_image(account: Account) -> None:
    """Its own is that with the tag `serve`; it answers `/ready`, and is pinned to its current version."""
    account.carry_out(Choice(model="films", parameters=CHOICE.parameters))
    assert account.asked == ["123456789012.dkr.ecr.eu-west-1.amazonaws.com/images:serve"]
    found = account.parameters()
    assert (found["Model"], found["HealthPath"]) == (f"films/{V1}", "/ready")
    assert found["Command"] == "python,-m,recommender_service"


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice(), "Give --model NAME, or --image IMAGE"),
        (Choice(image="a"), "HTTP alone"),
        (
            Choice(image="a", model="films@20200101T000000Z-00000000", parameters=CHOICE.parameters),
            "has no version 2020",
        ),
        (Choice(image="a", parameters={"AllowFrom": "0.0.0.0/0"}), "lets in the whole internet"),
        (Choice(image="a", parameters={**CHOICE.parameters, "TaskMemory": "513"}), "Fargate has no task of"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(account: Account, choice: Choice, words: str) -> None:
    """Not even a change set."""
    with pytest.raises(SettingsError, match=words):
        account.carry_out(choice)
    assert STACK not in account.formation.alive()
    assert account.formation.done == []


def test_everything_that_is_wrong_is_said_at_once(account: Account) -> None:
    """Nobody likes to be told one thing after the other."""
    with pytest.raises(SettingsError) as refused:
        account.carry_out(Choice(image="a", model="films@20200101T000000Z-00000000", parameters={"MinTasks": "9"}))
    said = str(refused.value)
    assert all(words in said for words in ("has no version", "HTTP alone", "MinTasks=9", "Nothing was changed."))


def test_without_a_deployment_there_is_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its network and its bucket."""
    account = Account(monkeypatch)
    account.formation.stacks.clear()
    with pytest.raises(NotFound, match="there is no deployment 'cirro'"):
        account.carry_out()


def test_a_failed_creation_is_made_anew(account: Account) -> None:
    """The rest of it is deleted, after the question."""
    account.formation.add(STACK, "ROLLBACK_COMPLETE")
    plans: list[ServicePlan] = []
    account.carry_out(confirm=lambda plan: not plans.append(plan))  # type: ignore[func-returns-value]
    assert plans[0].part.action == "recreate"
    assert [change.logical_id for change in plans[0].part.changes if change.resource_type == "AWS::ECS::Service"]
    assert account.formation.done[:2] == [("delete", STACK), ("create", STACK)]


# --- update and rollback -----------------------------------------------------------------------------------------


def test_an_update_serves_the_current_version(account: Account) -> None:
    """Of the model that is served, and remembers the one before; the image is not looked up again."""
    account.carry_out(Choice(model="films", parameters=CHOICE.parameters))
    account.current = V2
    account.changes("Service")
    account.asked.clear()
    account.carry_out(Choice(), UPDATE)
    found = account.parameters()
    assert (found["Model"], found["PreviousModel"]) == (f"films/{V2}", f"films/{V1}")
    assert account.asked == []


def test_a_rollback_goes_back_and_forth(account: Account) -> None:
    """To the model and the image that were served before; twice is forward again."""
    account.carry_out(Choice(image="images:v1", model=f"films@{V1}", parameters=CHOICE.parameters))
    account.changes("Service")
    account.carry_out(Choice(image="images:v2", model=f"films@{V2}"), UPDATE)
    account.carry_out(Choice(), ROLLBACK)
    back = account.parameters()
    assert (back["Model"], back["Image"]) == (f"films/{V1}", "images:v1@sha256:0")
    account.carry_out(Choice(), ROLLBACK)
    forth = account.parameters()
    assert (forth["Model"], forth["Image"]) == (f"films/{V2}", "images:v2@sha256:0")


def test_a_first_service_has_nothing_to_go_back_to(account: Account) -> None:
    """It says so."""
    account.carry_out()
    with pytest.raises(ServingError, match="nothing to go back to"):
        account.carry_out(Choice(), ROLLBACK)


@pytest.mark.parametrize("what", [UPDATE, ROLLBACK])
def test_a_service_that_is_not_there_is_not_updated(account: Account, what: str) -> None:
    """It says which there are."""
    with pytest.raises(ServingError, match="has no service 'films': it has none"):
        account.carry_out(CHOICE, what)


def fails(account: Account, verb: str, *statuses: str) -> Callable[[], None]:
    """Have the next operation on the service fail by the circuit breaker, and tasks fail meanwhile."""
    event = ("Service", "AWS::ECS::Service", f"{verb}_FAILED", BREAKER)

    def begin() -> None:
        account.formation.runs[STACK] = [(statuses[0], [event]), *((each, []) for each in statuses[1:])]

    return begin


def test_an_update_that_goes_back_says_why(account: Account) -> None:
    """CloudFormation's words, ECS's, the reason for which a task ended, and its last lines."""
    account.carry_out()
    account.changes("Service")
    account.ecs.events = [{"id": "0", "message": "(service a) has reached a steady state."}]
    fails(account, "UPDATE", "UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE")()
    told: list[str] = []

    def confirm(plan: ServicePlan) -> bool:
        return True

    def say(step: str) -> None:
        if step.startswith("updating"):
            account.time.sleep(10)

    def on_event(event: Any) -> None:
        account.ecs.fail("t1", "Task failed ELB health checks in (target-group arn).")
        account.ecs.fail("t2", "Scaling activity initiated by (deployment ecs-svc/1)")
        broken = "(service a) deployment failed: tasks failed to start. rolling back to deployment ecs-svc/0."
        account.ecs.events = [{"id": "1", "message": broken}, *account.ecs.events[-1:]]

    with pytest.raises(ServingError) as failed:
        account.carry_out(
            Choice(image="images:v2"), UPDATE, confirm=confirm, say=say, on_event=on_event, on_message=told.append
        )
    said = str(failed.value)
    assert "taken back by itself, and what it served before goes on" in said
    assert "ECS Deployment Circuit Breaker was triggered" in said
    assert "ECS said: (service a) deployment failed: tasks failed to start." in said
    assert "task t1 ended: Task failed ELB health checks in (target-group arn); exit code 3" in said
    assert "the last line of films/service/t1" in said
    assert "t2" not in said
    assert not [message for message in told if "steady state" in message]


def test_an_update_that_ecs_took_back_alone_is_noticed(account: Account) -> None:
    """CloudFormation may call it complete."""
    account.carry_out()
    account.changes("Service")
    account.ecs.definition = "arn:definition:0"
    with pytest.raises(ServingError, match="ECS does not run arn:definition:1, which the stack asks for"):
        account.carry_out(Choice(image="images:v2"), UPDATE)


# --- which service -----------------------------------------------------------------------------------------------


def service_stack(account: Account, name: str, deployment: str = "cirro") -> None:
    """A stack of a service."""
    parameters = [{"ParameterKey": "DeploymentName", "ParameterValue": deployment}]
    account.formation.add(f"{deployment}-serving-{name}", "CREATE_COMPLETE", Parameters=parameters)


def test_the_only_service_needs_no_name(account: Account) -> None:
    """Of several, it says which; of a deployment whose name begins alike, none."""
    with pytest.raises(ServingError, match="has no service"):
        running_service.choose(account.clients, "cirro", None)
    service_stack(account, "films")
    service_stack(account, "b", deployment="cirro-serving-a")
    name, stack = running_service.choose(account.clients, "cirro", None)
    assert (name, stack.name) == ("films", STACK)
    service_stack(account, "books")
    with pytest.raises(ServingError, match="several services: books, films"):
        running_service.choose(account.clients, "cirro", None)
    with pytest.raises(ServingError, match="no service 'shop': it has books, films"):
        running_service.choose(account.clients, "cirro", "shop")


# --- destroy -----------------------------------------------------------------------------------------------------


def test_a_service_is_deleted_and_looked_for(account: Account) -> None:
    """What ECS lists at no cost does not count; what has the tag of the deployment and is not of the stack neither."""
    account.carry_out()
    account.tagged = [
        "arn:aws:ecs:eu-west-1:123456789012:cluster/cluster",
        "arn:aws:s3:::bucket",
        "arn:aws:logs:eu-west-1:123456789012:log-group:another",
    ]
    _, stack = running_service.choose(account.clients, "cirro", "films")
    left = removing.remove(account.clients, "cirro", stack, sleep=account.time.sleep, clock=account.time.clock)
    assert left == ()
    assert STACK not in account.formation.alive()


def test_what_is_left_of_a_service_is_said(account: Account) -> None:
    """After a minute, for which the tagging API may be late."""
    account.carry_out()
    account.tagged = ["arn:balancer", "arn:aws:logs:eu-west-1:123456789012:log-group:log-group"]
    _, stack = running_service.choose(account.clients, "cirro", "films")
    left = removing.remove(account.clients, "cirro", stack, sleep=account.time.sleep, clock=account.time.clock)
    assert left == tuple(account.tagged)
    assert account.time.now >= removing.PATIENCE_S
