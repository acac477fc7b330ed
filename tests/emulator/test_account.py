"""What an emulated account may have: quotas, cost tags, instance types; IAM's simulator; its clock and credentials."""

from __future__ import annotations

import email.utils
import json
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.access import control


@pytest.fixture
def account_settings(aws: Any) -> Iterator[Any]:
    """The account's settings, which are restored afterwards."""
    account_settings = aws.emulator.account_settings
    before = {key: dict(value) for key, value in account_settings.update({}).items()}
    yield account_settings
    account_settings.update(before)


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    """AWS's error code."""
    return str(error.value.response["Error"]["Code"])


def test_quotas_are_ample_until_they_are_set(aws: Any, account_settings: Any) -> None:
    """One value for a quota; `None` is AWS's default, which GetServiceQuota does not have."""
    quotas = aws.client("service-quotas")
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-DB2E81BA"}
    assert quotas.get_service_quota(**asked)["Quota"]["Value"] == 1000.0
    account_settings.update({"quotas": {"L-DB2E81BA": 4.0}})
    found = quotas.get_service_quota(**asked)["Quota"]
    assert (found["Value"], found["QuotaName"]) == (4.0, "Running On-Demand G and VT instances")
    account_settings.update({"quotas": {"L-DB2E81BA": None}})
    with pytest.raises(ClientError) as error:
        quotas.get_service_quota(**asked)
    assert code_of(error) == "NoSuchResourceException"
    assert quotas.get_aws_default_service_quota(**asked)["Quota"]["Value"] == 0.0


def test_quotas_are_listed(aws: Any, account_settings: Any) -> None:
    """Those of EC2's vCPUs."""
    account_settings.update({"quotas": {"L-1216C47A": 5.0}})
    found = aws.client("service-quotas").list_service_quotas(ServiceCode="ec2")["Quotas"]
    assert {each["QuotaCode"]: each["Value"] for each in found}["L-1216C47A"] == 5.0


def test_the_settings_can_be_set_over_http(aws: Any, account_settings: Any) -> None:
    """As the emulator's other routes; an unknown key is refused."""
    assert control(aws.emulator, "account", {"quotas": {"L-1216C47A": 0.0}})["quotas"]["L-1216C47A"] == 0.0
    assert account_settings.quotas["L-1216C47A"] == 0.0
    with pytest.raises(urllib.error.HTTPError, match="400"):
        control(aws.emulator, "account", {"quota": {}})


def types(aws: Any, pattern: str, region: str = "us-east-1") -> set[str]:
    """Names of the instance types that a region has."""
    pages = (
        aws.emulator.client("ec2", region_name=region)
        .get_paginator("describe_instance_types")
        .paginate(Filters=[{"Name": "instance-type", "Values": [pattern]}])
    )
    return {each["InstanceType"] for page in pages for each in page["InstanceTypes"]}


def zones(aws: Any, pattern: str) -> set[str]:
    """Zones that have any of the types."""
    offers = aws.client("ec2").describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [pattern]}]
    )["InstanceTypeOfferings"]
    return {each["Location"] for each in offers}


def test_a_region_has_what_it_has(aws: Any, account_settings: Any) -> None:
    """Patterns are taken; a region describes its own types only; some can be taken away, everywhere or by zone."""
    assert "g5.xlarge" in types(aws, "g5.*")
    assert types(aws, "p4d*", "af-south-1") == set()
    assert {"us-east-1a", "us-east-1b"} < zones(aws, "g5.*")
    account_settings.update({"absent_types": {"g5.*": ["us-east-1a"]}})
    assert "us-east-1a" not in zones(aws, "g5.*")
    assert "g5.xlarge" in types(aws, "g5.*")
    account_settings.update({"absent_types": {"g5.*": []}})
    assert (zones(aws, "g5.*"), types(aws, "g5.*")) == (set(), set())


def test_the_simulator_decides_as_iam_does(aws: Any) -> None:
    """Each action on each resource, with context; the administrator may do everything; other names are unknown."""
    aws.iam.create_user(UserName="simulated")
    statement = {
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Resource": "arn:aws:iam::*:role/mine",
        "Condition": {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    aws.iam.put_user_policy(UserName="simulated", PolicyName="p", PolicyDocument=json.dumps(policy))

    def decisions(source: str, service: str = "ecs-tasks.amazonaws.com") -> list[str]:
        results = aws.iam.simulate_principal_policy(
            PolicySourceArn=source,
            ActionNames=["iam:PassRole"],
            ResourceArns=["arn:aws:iam::1:role/mine", "arn:aws:iam::1:role/other"],
            ContextEntries=[
                {"ContextKeyName": "iam:PassedToService", "ContextKeyType": "string", "ContextKeyValues": [service]}
            ],
        )["EvaluationResults"]
        return [each["EvalResourceDecision"] for each in results[0]["ResourceSpecificResults"]]

    arn = aws.iam.get_user(UserName="simulated")["User"]["Arn"]
    assert decisions(arn) == ["allowed", "implicitDeny"]
    assert decisions(arn, "ec2.amazonaws.com") == ["implicitDeny", "implicitDeny"]
    assert decisions(aws.client("sts").get_caller_identity()["Arn"]) == ["allowed", "allowed"]
    with pytest.raises(ClientError) as error:
        decisions("arn:aws:iam::123456789012:user/nobody")
    assert code_of(error) == "NoSuchEntity"


def test_clusters_of_compute_environments(aws: Any) -> None:
    """ECS knows the clusters that AWS Batch makes, and how many instances are in them."""
    name = aws.environment()
    described = aws.batch.describe_compute_environments(computeEnvironments=[name])["computeEnvironments"][0]
    (cluster,) = aws.client("ecs").describe_clusters(clusters=[described["ecsClusterArn"]])["clusters"]
    assert (cluster["registeredContainerInstancesCount"], cluster["runningTasksCount"]) == (0, 0)


def test_cost_tags(aws: Any, account_settings: Any) -> None:
    """A cost tag is unknown until it is set."""
    explorer = aws.client("ce")
    assert explorer.list_cost_allocation_tags(TagKeys=["t"])["CostAllocationTags"] == []
    account_settings.update({"cost_tags": {"t": "Active"}})
    assert explorer.list_cost_allocation_tags(TagKeys=["t"])["CostAllocationTags"][0]["Status"] == "Active"


def test_placement_groups(aws: Any) -> None:
    """They are made, described by name, id and filter, and deleted; what is wrong has EC2's codes."""
    ec2 = aws.client("ec2")
    tags = [{"ResourceType": "placement-group", "Tags": [{"Key": "team", "Value": "vision"}]}]
    near = ec2.create_placement_group(GroupName="near", Strategy="cluster", TagSpecifications=tags)["PlacementGroup"]
    apart = ec2.create_placement_group(GroupName="apart", Strategy="partition", PartitionCount=3)["PlacementGroup"]
    assert (near["State"], near["Strategy"], near["Tags"]) == ("available", "cluster", tags[0]["Tags"])
    assert near["GroupArn"].endswith(":placement-group/near")
    assert (apart["PartitionCount"], apart.get("SpreadLevel")) == (3, None)

    def found(**asked: Any) -> list[str]:
        return sorted(each["GroupName"] for each in ec2.describe_placement_groups(**asked)["PlacementGroups"])

    def where(name: str, *values: str) -> list[str]:
        return found(Filters=[{"Name": name, "Values": list(values)}])

    assert found() == ["apart", "near"]
    assert found(GroupNames=["near"]) == found(GroupIds=[near["GroupId"]]) == where("tag:team", "vision") == ["near"]
    assert where("strategy", "partition", "spread") == ["apart"]
    assert where("group-name", "*a*") == ["apart", "near"]
    assert where("tag-key", "owner") == []
    for code, wrong in (
        ("InvalidPlacementGroup.Unknown", lambda: found(GroupNames=["near", "nobody"])),
        ("InvalidPlacementGroup.Unknown", lambda: ec2.delete_placement_group(GroupName="nobody")),
        ("InvalidPlacementGroup.Duplicate", lambda: ec2.create_placement_group(GroupName="near", Strategy="cluster")),
        ("InvalidParameterValue", lambda: ec2.create_placement_group(GroupName="x", Strategy="far")),
        ("MissingParameter", lambda: ec2.create_placement_group(Strategy="cluster")),
        ("InvalidParameterValue", lambda: where("color", "red")),
    ):
        with pytest.raises(ClientError) as error:
            wrong()
        assert code_of(error) == code
    for name in ("near", "apart"):
        ec2.delete_placement_group(GroupName=name)
    assert found() == []


def test_what_the_emulator_does_not_have_is_said_in_the_form_of_the_service(aws: Any) -> None:
    """Of services that speak XML and JSON alike, with the name of the call."""
    calls = {
        "ec2:DescribeInstanceEventWindows": lambda: aws.client("ec2").describe_instance_event_windows(),
        "logs:ListAnomalies": lambda: aws.client("logs").list_anomalies(),
        "ssm:DescribeSessions": lambda: aws.client("ssm").describe_sessions(State="Active"),
    }
    for name, call in calls.items():
        with pytest.raises(ClientError, match=f"does not have {name}") as error:
            call()
        assert code_of(error) == "NotImplemented"


def test_another_clock(aws: Any, faults: Any) -> None:
    """The Date header says AWS's time; beyond five minutes it takes no signature."""
    sts = aws.client("sts")
    faults.add("clock", seconds=200.0)
    headers = sts.get_caller_identity()["ResponseMetadata"]["HTTPHeaders"]
    assert 195 < email.utils.parsedate_to_datetime(headers["date"]).timestamp() - time.time() < 205
    faults.clear()
    faults.add("clock", seconds=-400.0)
    with pytest.raises(ClientError) as error:
        sts.get_caller_identity()
    assert code_of(error) == "SignatureDoesNotMatch"
    with pytest.raises(ClientError) as error:
        aws.s3.list_objects_v2(Bucket="any")
    assert code_of(error) == "RequestTimeTooSkewed"


def test_expired_credentials(aws: Any, faults: Any) -> None:
    """In the words of each protocol."""
    faults.add("expired")
    with pytest.raises(ClientError) as error:
        aws.client("sts").get_caller_identity()
    assert code_of(error) == "ExpiredToken"
    with pytest.raises(ClientError) as error:
        aws.logs.describe_log_groups()
    assert code_of(error) == "ExpiredTokenException"


def test_an_invalid_compute_environment(aws: Any, faults: Any) -> None:
    """It says why, takes no job, and is well again when the fault is over."""
    name = aws.environment()
    faults.add("invalid", environment=name, reason="because")

    def now() -> tuple[str, str]:
        found = aws.batch.describe_compute_environments(computeEnvironments=[name])["computeEnvironments"][0]
        return found["status"], found["statusReason"]

    assert now() == ("INVALID", "because")
    faults.clear()
    assert now() == ("VALID", "ComputeEnvironment Healthy")
