"""Stacks: resources of other services than AWS Batch, which moto does by half or not at all."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from covalent_cirro.local.emulator.formation import balancer_kinds, batch_kinds, service_kinds, serving_kinds
from tests.emulator.formation_stacks import Stacks

ACCOUNT = "123456789012"


@pytest.fixture
def stacks(aws: Any) -> Stacks:
    """A new stack's name."""
    return Stacks(aws)


# --- what makes another resource -----------------------------------------------------------------------------------

KINDS: dict[str, Any] = {
    **{
        kind.kind: kind
        for kind in (*batch_kinds.KINDS, *service_kinds.KINDS, *serving_kinds.KINDS, *balancer_kinds.KINDS)
    },
    **service_kinds.COMPLETED,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_never_changes_is_what_the_registry_says(kind: str) -> None:
    """The properties of which another value makes another resource, as AWS publishes them."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    assert {f"/properties/{path}" for path in KINDS[kind].create_only} == set(schema.get("createOnlyProperties", []))


def test_what_a_compute_environment_changes_in_place_is_what_the_registry_says() -> None:
    """With ReplaceComputeEnvironment false."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", "AWS::Batch::ComputeEnvironment").schema
    ours = {f"/properties/{path}" for path in batch_kinds.ComputeEnvironmentResource.in_place_on_request}
    assert ours == set(schema["conditionalCreateOnlyProperties"])


def test_what_may_replace_a_service_is_what_the_registry_says() -> None:
    """Another launch type."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", "AWS::ECS::Service").schema
    ours = {f"/properties/{path}" for path in serving_kinds.ServiceResource.replaced_on_request}
    assert ours == set(schema["conditionalCreateOnlyProperties"])


@pytest.mark.parametrize("kind", [*serving_kinds.KINDS, *balancer_kinds.KINDS], ids=lambda kind: kind.kind)
def test_a_service_has_the_attributes_of_the_registry(kind: Any) -> None:
    """All that a template can read of it, except the list of load balancers that a target group has."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind.kind).schema
    known = {path.removeprefix("/properties/") for path in schema.get("readOnlyProperties", [])}
    assert set(kind.attributes) == known - {"LoadBalancerArns"}


# --- exports and roles ----------------------------------------------------------------------------------------------


def test_another_stack_imports_what_a_stack_made(aws: Any, stacks: Stacks) -> None:
    """The value of an attribute, which is known once the resource is made; the stack's end is that of its exports."""
    trust = {
        "Version": "2008-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust}}
    name = {"Fn::Sub": "${AWS::StackName}-role"}
    exporting = {
        "Resources": {"Role": role},
        "Outputs": {"Role": {"Value": {"Fn::GetAtt": ["Role", "Arn"]}, "Export": {"Name": name}}},
    }
    assert stacks.create(exporting) == "CREATE_COMPLETE"
    importing = {
        "Resources": {"Bucket": {"Type": "AWS::S3::Bucket"}},
        "Outputs": {"Role": {"Value": {"Fn::ImportValue": f"{stacks.name}-role"}}},
    }
    other = Stacks(aws)
    assert other.create(importing) == "CREATE_COMPLETE"
    assert other.outputs() == stacks.outputs()
    assert stacks.outputs()["Role"].startswith(f"arn:aws:iam::{ACCOUNT}:role/")
    other.delete()
    stacks.delete()
    assert f"{stacks.name}-role" not in [each["Name"] for each in stacks.client.list_exports()["Exports"]]


# --- buckets, repositories and log groups ---------------------------------------------------------------------------

BUCKET: dict[str, Any] = {
    "Resources": {
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {
                "LifecycleConfiguration": {
                    "Rules": [{"Id": "old", "Status": "Enabled", "Prefix": "a/", "ExpirationInDays": 30}]
                },
                "PublicAccessBlockConfiguration": {"BlockPublicAcls": True, "BlockPublicPolicy": True},
                "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            },
        },
        "Policy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {
                "Bucket": {"Ref": "Bucket"},
                "PolicyDocument": {"Version": "2012-10-17", "Statement": []},
            },
        },
        "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 7}},
    },
    "Outputs": {"Bucket": {"Value": {"Ref": "Bucket"}}, "Logs": {"Value": {"Ref": "Logs"}}},
}


def test_what_moto_drops_is_there(aws: Any, stacks: Stacks) -> None:
    """Lifecycle, public access, ownership, the bucket's policy, the group's retention; and their updates."""
    assert stacks.create(BUCKET) == "CREATE_COMPLETE"
    outputs = stacks.outputs()
    bucket = outputs["Bucket"]
    (rule,) = aws.s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert (rule["ID"], rule["Expiration"], rule["Filter"]) == ("old", {"Days": 30}, {"Prefix": "a/"})
    block = aws.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert block["BlockPublicPolicy"] is True
    assert json.loads(aws.s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"] == []
    (group,) = aws.logs.describe_log_groups(logGroupNamePrefix=outputs["Logs"])["logGroups"]
    assert group["retentionInDays"] == 7
    body = copy.deepcopy(BUCKET)
    body["Resources"]["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"] = 60
    body["Resources"]["Logs"]["Properties"]["RetentionInDays"] = 30
    assert stacks.update(body) == "UPDATE_COMPLETE"
    (rule,) = aws.s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rule["Expiration"] == {"Days": 60}
    (group,) = aws.logs.describe_log_groups(logGroupNamePrefix=outputs["Logs"])["logGroups"]
    assert group["retentionInDays"] == 30


def test_a_bucket_that_is_not_empty_stops_the_deletion(aws: Any, stacks: Stacks) -> None:
    """All else is deleted; once it is empty, the bucket too."""
    stacks.create(BUCKET)
    outputs = stacks.outputs()
    aws.s3.put_object(Bucket=outputs["Bucket"], Key="k", Body=b"x")
    assert stacks.delete() == "DELETE_FAILED"
    status, reason = stacks.events("Bucket")[-1]
    assert status == "DELETE_FAILED"
    assert "BucketNotEmpty" in reason
    assert aws.logs.describe_log_groups(logGroupNamePrefix=outputs["Logs"])["logGroups"] == []
    aws.s3.delete_object(Bucket=outputs["Bucket"], Key="k")
    assert stacks.delete() == "DELETE_COMPLETE"


@pytest.mark.parametrize("keep", [False, True])
def test_what_becomes_of_a_replaced_bucket_is_not_what_becomes_of_a_removed_one(
    aws: Any, stacks: Stacks, keep: bool
) -> None:
    """UpdateReplacePolicy is for the one, DeletionPolicy for the other."""
    body = copy.deepcopy(BUCKET)
    del body["Resources"]["Policy"]
    body["Resources"]["Bucket"].update(
        DeletionPolicy="Delete" if keep else "Retain", UpdateReplacePolicy="Retain" if keep else "Delete"
    )
    body["Resources"]["Bucket"]["Properties"]["BucketName"] = f"{stacks.name}-first"
    stacks.create(body)
    body["Resources"]["Bucket"]["Properties"]["BucketName"] = f"{stacks.name}-second"
    assert stacks.update(body) == "UPDATE_COMPLETE"
    assert stacks.outputs()["Bucket"] == f"{stacks.name}-second"
    del body["Resources"]["Bucket"], body["Outputs"]["Bucket"]
    assert stacks.update(body) == "UPDATE_COMPLETE"
    left = {each["Name"] for each in aws.s3.list_buckets()["Buckets"] if each["Name"].startswith(stacks.name)}
    assert left == {f"{stacks.name}-{'first' if keep else 'second'}"}


# --- networks ------------------------------------------------------------------------------------------------------


def network(port: int = 443, *, both: bool = False, vpc: str = "First") -> dict[str, Any]:
    """Two VPCs, a group in one that lets another group in, and an endpoint in it."""
    subnets = [{"Ref": "SubnetA"}, {"Ref": "SubnetB"}] if both else [{"Ref": "SubnetA"}]
    vpcs = {
        name: {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": f"10.{number}.0.0/16"}}
        for number, name in enumerate(("First", "Second"))
    }
    made = {
        f"Subnet{letter}": {
            "Type": "AWS::EC2::Subnet",
            "Properties": {"VpcId": {"Ref": "First"}, "CidrBlock": f"10.0.{number}.0/24"},
        }
        for number, letter in enumerate("AB")
    }
    caller = {"GroupDescription": "caller", "VpcId": {"Ref": vpc}}
    rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "10.0.0.0/16"}
    endpoint = {
        "VpcId": {"Ref": "First"},
        "VpcEndpointType": "Interface",
        "ServiceName": "com.amazonaws.us-east-1.logs",
        "PrivateDnsEnabled": True,
        "SubnetIds": subnets,
        "SecurityGroupIds": [{"Ref": "Group"}],
    }
    group = {"GroupDescription": "group", "VpcId": {"Ref": "First"}, "SecurityGroupIngress": [rule]}
    return {
        "Resources": {
            **vpcs,
            **made,
            "Caller": {"Type": "AWS::EC2::SecurityGroup", "Properties": caller},
            "Group": {"Type": "AWS::EC2::SecurityGroup", "Properties": group},
            "Endpoint": {"Type": "AWS::EC2::VPCEndpoint", "Properties": endpoint},
        },
        "Outputs": {name: {"Value": {"Ref": name}} for name in ("Caller", "Group", "Endpoint", "SubnetB")},
    }


def test_rules_of_a_group_and_subnets_of_an_endpoint_change_in_place(aws: Any, stacks: Stacks) -> None:
    """Both keep their ids; a rule that the template lacks is removed."""
    assert stacks.create(network()) == "CREATE_COMPLETE"
    before = stacks.outputs()
    assert stacks.update(network(8443, both=True)) == "UPDATE_COMPLETE"
    assert stacks.outputs() == before
    ec2 = aws.client("ec2")
    (group,) = ec2.describe_security_groups(GroupIds=[before["Group"]])["SecurityGroups"]
    assert [rule["FromPort"] for rule in group["IpPermissions"]] == [8443]
    (endpoint,) = ec2.describe_vpc_endpoints(VpcEndpointIds=[before["Endpoint"]])["VpcEndpoints"]
    assert before["SubnetB"] in endpoint["SubnetIds"]
    assert stacks.delete() == "DELETE_COMPLETE"
    assert endpoint["VpcId"] not in {each["VpcId"] for each in ec2.describe_vpcs()["Vpcs"]}
    interfaces = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert not [each for each in interfaces if each["SubnetId"] in endpoint["SubnetIds"]]


def test_a_group_cannot_move_to_another_vpc(aws: Any, stacks: Stacks) -> None:
    """Another one is made there, and the first deleted."""
    stacks.create(network())
    first = stacks.outputs()["Caller"]
    assert stacks.update(network(vpc="Second")) == "UPDATE_COMPLETE"
    second = stacks.outputs()["Caller"]
    assert second != first
    groups = {each["GroupId"] for each in aws.client("ec2").describe_security_groups()["SecurityGroups"]}
    assert second in groups
    assert first not in groups


# --- budgets -------------------------------------------------------------------------------------------------------


def budget(amount: int = 50, address: str = "a@example.org", **more: Any) -> dict[str, Any]:
    """A budget that notifies one address."""
    notification = {
        "NotificationType": "ACTUAL",
        "ComparisonOperator": "GREATER_THAN",
        "Threshold": 100,
        "ThresholdType": "PERCENTAGE",
    }
    properties = {
        "Budget": {
            "BudgetType": "COST",
            "TimeUnit": "MONTHLY",
            "BudgetLimit": {"Amount": amount, "Unit": "USD"},
            "CostFilters": {"TagKeyValue": ["user:a$b"]},
        },
        "NotificationsWithSubscribers": [
            {"Notification": notification, "Subscribers": [{"SubscriptionType": "EMAIL", "Address": address}]}
        ],
    }
    return {
        "Resources": {"Budget": {"Type": "AWS::Budgets::Budget", "Properties": properties}, **more},
        "Outputs": {"Budget": {"Value": {"Ref": "Budget"}}},
    }


def described(aws: Any, name: str) -> dict[str, Any]:
    """What AWS Budgets says of one."""
    return dict(aws.client("budgets").describe_budget(AccountId=ACCOUNT, BudgetName=name)["Budget"])


def names(aws: Any) -> set[str]:
    """Of all budgets."""
    return {each["BudgetName"] for each in aws.client("budgets").describe_budgets(AccountId=ACCOUNT)["Budgets"]}


def test_a_budget_comes_changes_and_goes(aws: Any, stacks: Stacks) -> None:
    """Its limit in place; the address by a replacement."""
    before = names(aws)
    assert stacks.create(budget()) == "CREATE_COMPLETE"
    first = stacks.outputs()["Budget"]
    assert described(aws, first)["CostFilters"] == {"TagKeyValue": ["user:a$b"]}
    assert stacks.update(budget(80)) == "UPDATE_COMPLETE"
    assert stacks.outputs()["Budget"] == first
    assert float(described(aws, first)["BudgetLimit"]["Amount"]) == 80
    assert stacks.update(budget(80, "b@example.org")) == "UPDATE_COMPLETE"
    second = stacks.outputs()["Budget"]
    assert names(aws) - before == {second}
    assert second != first
    assert stacks.delete() == "DELETE_COMPLETE"
    assert names(aws) == before


def test_a_failed_update_gives_the_budget_back(aws: Any, stacks: Stacks) -> None:
    """Its limit is what it was."""
    stacks.create(budget())
    name = stacks.outputs()["Budget"]
    broken = {"Type": "AWS::Strange::Thing", "Properties": {}, "DependsOn": "Budget"}
    assert stacks.update(budget(80, Broken=broken)) == "UPDATE_ROLLBACK_COMPLETE"
    assert float(described(aws, name)["BudgetLimit"]["Amount"]) == 50
