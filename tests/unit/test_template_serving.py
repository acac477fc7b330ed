"""``infra/serving.yaml``: facts about ECS, load balancers and IAM that no linter knows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from covalent_cirro.serving import service_values, task_ends
from tests.unit.template_facts import TEMPLATES, as_list, walk

SERVING = TEMPLATES["serving"]
HTTP = {"AllowFrom": "203.0.113.0/24"}
HTTPS = {"CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/0a-1b"}
MODEL = {"Model": "recommender/20261130T081500Z-0a1b2c3d"}
OLDER = {"PreviousModel": "films/20261129T081500Z-0a1b2c3d", "PreviousImage": "older"}


def container(**given: object) -> dict[str, Any]:
    """The container of a task."""
    [found] = SERVING.with_values(**given).resources["TaskDefinition"]["ContainerDefinitions"]
    return dict(found)


def ingress(group: str, **given: object) -> list[tuple[object, object]]:
    """Ports, and who is let in to them."""
    rules = SERVING.with_values(**given).resources[group]["SecurityGroupIngress"]
    return [(rule["FromPort"], rule.get("CidrIp") or rule["SourceSecurityGroupId"]) for rule in rules]


@pytest.mark.parametrize(
    ("access", "model", "older", "more"),
    list(
        itertools.product(
            (HTTP, HTTPS), ({}, MODEL), ({}, OLDER), ({}, {"WebAclArn": "a", "AccessLogsBucket": "b", "Command": "c"})
        )
    ),
)
def test_no_mode_leaves_a_dangling_reference(
    access: dict[str, str], model: dict[str, str], older: dict[str, str], more: dict[str, str]
) -> None:
    """Whatever is left out, nothing that stays refers to it."""
    stack = SERVING.with_values(**access, **model, **older, **more)
    assert stack.references() <= set(stack.resources)
    assert all(stack.outputs.values())
    assert stack.broken_rules() == []


# --- who reaches it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [({}, "which anybody on the way reads"), ({"AllowFrom": "0.0.0.0/0"}, "lets in the whole internet")],
)
def test_http_alone_is_for_named_addresses(given: dict[str, str], words: str) -> None:
    """Without a certificate nobody else is let in, and the whole internet is no address."""
    [broken] = SERVING.with_values(**given).broken_rules()
    assert words in broken


def test_http_alone_forwards() -> None:
    """To the tasks, and only from the addresses that are named."""
    stack = SERVING.with_values(**HTTP)
    assert "HttpsListener" not in stack.resources
    [action] = stack.resources["HttpListener"]["DefaultActions"]
    assert action == {"Type": "forward", "TargetGroupArn": {"Ref": "TargetGroup"}}
    assert ingress("BalancerSecurityGroup", **HTTP) == [(80, "203.0.113.0/24")]
    assert stack.outputs["Url"] == {"Fn::Sub": "http://${LoadBalancer.DNSName}"}


def test_with_a_certificate_http_is_redirected() -> None:
    """Nothing is served without TLS, of version 1.2 or 1.3."""
    stack = SERVING.with_values(**HTTPS)
    [action] = stack.resources["HttpListener"]["DefaultActions"]
    assert action == {
        "Type": "redirect",
        "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"},
    }
    listener = stack.resources["HttpsListener"]
    assert (listener["Port"], listener["Protocol"], listener["SslPolicy"]) == (
        443,
        "HTTPS",
        "ELBSecurityPolicy-TLS13-1-2-2021-06",
    )
    assert ingress("BalancerSecurityGroup", **HTTPS) == [(80, "0.0.0.0/0"), (443, "0.0.0.0/0")]


def test_up_to_three_ranges_are_let_in() -> None:
    """Each to both ports; one that is not named is none."""
    ranges = ("203.0.113.0/24", "198.51.100.7/32", "10.0.0.0/8")
    both = ingress("BalancerSecurityGroup", **HTTPS, AllowFrom=",".join(ranges))
    assert both == [(port, each) for port in (80, 443) for each in ranges]
    assert ingress("BalancerSecurityGroup", AllowFrom=",".join(ranges[:2])) == [(80, each) for each in ranges[:2]]


def test_only_the_load_balancer_reaches_the_tasks() -> None:
    """On their port, by its security group. What they reach out to goes by the deployment's group."""
    assert ingress("TaskSecurityGroup", **HTTP, Port=9000) == [("9000", {"Ref": "BalancerSecurityGroup"})]
    [out] = SERVING.properties("TaskSecurityGroup")["SecurityGroupEgress"]
    assert out["CidrIp"] == "127.0.0.1/32"
    groups = SERVING.properties("Service")["NetworkConfiguration"]["AwsvpcConfiguration"]["SecurityGroups"]
    named = [item["Ref"] for item in walk(groups) if isinstance(item, dict) and "Ref" in item]
    assert named == ["TaskSecurityGroup", "SecurityGroupIds"]


def test_the_load_balancer_reaches_the_tasks_only() -> None:
    """Its egress is their port."""
    [out] = SERVING.with_values(**HTTP, Port=9000).resources["BalancerSecurityGroup"]["SecurityGroupEgress"]
    assert (out["IpProtocol"], out["FromPort"], out["ToPort"]) == ("tcp", "9000", "9000")


@pytest.mark.parametrize(("public", "scheme"), [("ENABLED", "internet-facing"), ("DISABLED", "internal")])
def test_a_private_network_has_a_private_load_balancer(public: str, scheme: str) -> None:
    """One with public addresses needs subnets with a route to the internet."""
    assert SERVING.with_values(**HTTP, AssignPublicIp=public).resources["LoadBalancer"]["Scheme"] == scheme


def test_access_logs_and_waf_are_parameters() -> None:
    """Both need something of the user's, which costs."""
    without = SERVING.with_values(**HTTP)
    attributes = {each["Key"]: each["Value"] for each in without.resources["LoadBalancer"]["LoadBalancerAttributes"]}
    assert attributes["access_logs.s3.enabled"] == "false"
    assert "WebAclAssociation" not in without.resources
    acl = "arn:aws:wafv2:us-east-1:123456789012:regional/webacl/a/0a"
    stack = SERVING.with_values(**HTTP, AccessLogsBucket="logs-1", WebAclArn=acl)
    attributes = {each["Key"]: each["Value"] for each in stack.resources["LoadBalancer"]["LoadBalancerAttributes"]}
    assert attributes["access_logs.s3.enabled"] == "true"
    assert attributes["access_logs.s3.bucket"] == "logs-1"
    assert stack.resources["WebAclAssociation"] == {"ResourceArn": {"Ref": "LoadBalancer"}, "WebACLArn": acl}


# --- tasks -------------------------------------------------------------------------------------------------------


def test_an_update_is_rolling_and_goes_back_by_itself() -> None:
    """Old tasks stay until new ones are healthy; where they do not get healthy, ECS goes back."""
    assert SERVING.properties("Service")["DeploymentConfiguration"] == {
        "MinimumHealthyPercent": 100,
        "MaximumPercent": 200,
        "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
    }


def test_a_task_has_time_for_what_it_still_answers() -> None:
    """No new requests for 30 s, and 60 s after SIGTERM, of Fargate's 120 s at most."""
    attributes = {each["Key"]: each["Value"] for each in SERVING.properties("TargetGroup")["TargetGroupAttributes"]}
    assert attributes["deregistration_delay.timeout_seconds"] == "30"
    assert container(**HTTP)["StopTimeout"] == 60


def test_health_is_what_the_path_says() -> None:
    """A target is an address; nothing but 200 is healthy."""
    group = SERVING.with_values(**HTTP, HealthPath="/ready", Port=9000).resources["TargetGroup"]
    assert (group["TargetType"], group["HealthCheckPath"], group["Port"]) == ("ip", "/ready", "9000")
    assert group["Matcher"] == {"HttpCode": "200"}


def test_a_service_waits_for_its_listeners() -> None:
    """To which it refers: ECS refuses a target group that no load balancer has."""
    for access, listener in ((HTTP, "HttpListener"), (HTTPS, "HttpsListener")):
        stack = SERVING.with_values(**access)
        assert {"Key": "Listener", "Value": {"Ref": listener}} in stack.resources["Service"]["Tags"]
        assert stack.resources[listener]["DefaultActions"][0]["Type"] == "forward"


def test_an_update_does_not_undo_scaling() -> None:
    """A DesiredCount in the template would be set at each update; the scalable target has the least and the most."""
    assert "DesiredCount" not in SERVING.properties("Service")
    stack = SERVING.with_values(**HTTP)
    target = stack.resources["ScalableTarget"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == ("2", "4")
    assert int(SERVING.defaults["MinTasks"]) >= 2


def test_scaling_follows_requests_a_target() -> None:
    """The metric is that of this load balancer and target group."""
    tracking = SERVING.properties("ScalingPolicy")["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == {"Ref": "RequestsPerTarget"}
    assert tracking["PredefinedMetricSpecification"] == {
        "PredefinedMetricType": "ALBRequestCountPerTarget",
        "ResourceLabel": {"Fn::Sub": "${LoadBalancer.LoadBalancerFullName}/${TargetGroup.TargetGroupFullName}"},
    }


def test_the_container_knows_its_port_and_model() -> None:
    """By its environment; and prints into the log group, in a stream that `cirro serve logs` finds."""
    found = container(**HTTP, **MODEL, Port=9000, S3BucketName="b", S3Prefix="p")
    environment = {each["Name"]: each["Value"] for each in found["Environment"]}
    assert environment == {"PORT": "9000", "CIRRO_MODEL": f"s3://b/p/models/{MODEL['Model']}"}
    assert found["Name"] == task_ends.CONTAINER
    options = found["LogConfiguration"]["Options"]
    assert (options["awslogs-group"], options["awslogs-stream-prefix"]) == ({"Ref": "LogGroup"}, "recommender")
    assert "Command" not in found
    assert container(**HTTP, Command="python,-m,x")["Command"] == "python,-m,x"
    assert "CIRRO_MODEL" not in {each["Name"] for each in container(**HTTP)["Environment"]}


# --- roles -------------------------------------------------------------------------------------------------------


def statements(role: str, **given: object) -> dict[str, dict[str, Any]]:
    """The statements of a role's policies, by their ids."""
    policies = SERVING.with_values(**HTTP, **given).resources[role].get("Policies", [])
    return {each["Sid"]: each for policy in policies for each in policy["PolicyDocument"]["Statement"]}


def test_tasks_read_their_model_and_nothing_else() -> None:
    """The versions of it, and of the one before: old tasks run while new ones start, and may start again."""
    assert statements("TaskRole") == {}
    [read] = statements("TaskRole", **MODEL).values()
    assert read["Action"] == "s3:GetObject"
    assert [each["Fn::Sub"][0].rsplit("/models/")[1] for each in read["Resource"]] == ["${Name}/*"]
    [both] = statements("TaskRole", **MODEL, **OLDER).values()
    names = [each["Fn::Sub"][1]["Name"] for each in both["Resource"]]
    assert names == ["recommender", "films"]


def test_the_agent_pulls_from_one_repository() -> None:
    """And writes into one log group; the login is for no repository in particular."""
    found = statements("ExecutionRole")
    assert found["PullImage"]["Resource"] == SERVING.with_values(**HTTP)._values["ImageRepositoryArn"]
    assert found["WriteLog"]["Resource"]["Fn::Sub"].endswith(":log-group:${LogGroup}:*")
    assert [sid for sid, each in found.items() if each["Resource"] == "*"] == ["LogInToRegistry"]


@pytest.mark.parametrize("role", ["TaskRole", "ExecutionRole"])
def test_only_ecs_of_this_account_becomes_a_role(role: str) -> None:
    """Not a service of another account that was told of its ARN."""
    [trust] = SERVING.properties(role)["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}


# --- what is left ------------------------------------------------------------------------------------------------


def test_nothing_outlives_the_stack() -> None:
    """No resource is kept or protected, and none has a name that the next stack would need."""
    for name, resource in SERVING.resources.items():
        assert resource.get("DeletionPolicy", "Delete") == "Delete", name
        assert not {"Name", "ClusterName", "ServiceName", "RoleName", "LogGroupName", "Family", "GroupName"} & set(
            resource["Properties"]
        ), name
    attributes = [
        each["Key"] for each in as_list(SERVING.with_values().resources["LoadBalancer"]["LoadBalancerAttributes"])
    ]
    assert "deletion_protection.enabled" not in attributes


def test_what_was_served_before_is_remembered() -> None:
    """By parameters that no resource uses: remembering changes nothing that runs."""
    for name in service_values.PREVIOUS.values():
        users = [each for each, body in SERVING.resources.items() if {"Ref": name} in list(walk(body))]
        assert users == (["TaskRole"] if name == "PreviousModel" else [])
