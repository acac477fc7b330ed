"""``infra/network.yaml``: what makes instances reach AWS and nothing reach them, which no linter knows."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.unit.template_facts import TEMPLATES

NETWORK = TEMPLATES["network"]
EXISTING = {"ExistingVpcId": "vpc-0123456789abcdef0", "ExistingSubnetIds": "subnet-01234567,subnet-89abcdef"}
ROUTE_TABLES = {"ExistingRouteTableIds": "rtb-01234567,rtb-89abcdef"}
MODES = {
    "public": {"Subnets": "public"},
    "private": {"Subnets": "private"},
    "existing": EXISTING,
    "existing with route tables": {**EXISTING, **ROUTE_TABLES},
}
SERVICES = {"ecs", "ecs-agent", "ecs-telemetry", "ecr.api", "ecr.dkr", "logs"}
"""What an instance of AWS Batch needs beside S3 (ECS Developer Guide and ECR User Guide, interface VPC endpoints)."""


@pytest.mark.parametrize(("mode", "zones"), list(itertools.product(MODES, ("2", "3"))))
def test_no_mode_leaves_a_dangling_reference(mode: str, zones: str) -> None:
    """Whatever is left out, nothing that stays refers to it, and every output has a value."""
    stack = NETWORK.with_values(**MODES[mode], Zones=zones)
    assert stack.references() <= set(stack.resources)
    assert all(stack.outputs.values())
    assert stack.broken_rules() == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ExistingVpcId": EXISTING["ExistingVpcId"]}, "ExistingVpcId is given without ExistingSubnetIds"),
        ({**EXISTING, "Subnets": "private"}, "Subnets is private with an ExistingVpcId"),
        ({"ExistingSubnetIds": "subnet-01234567"}, "ExistingSubnetIds is given without the ExistingVpcId"),
        (ROUTE_TABLES, "ExistingRouteTableIds is given without the ExistingVpcId"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, str], words: str) -> None:
    """By a rule that says why, before anything is made."""
    [broken] = NETWORK.with_values(**given).broken_rules()
    assert words in broken


@pytest.mark.parametrize("subnets", ["public", "private"])
@pytest.mark.parametrize("zones", ["2", "3"])
def test_instances_spread_over_the_zones(subnets: str, zones: str) -> None:
    """One subnet in each, in the output too; capacity, of GPUs above all, differs from zone to zone."""
    stack = NETWORK.with_values(Subnets=subnets, Zones=zones)
    made = stack.of_type("AWS::EC2::Subnet")
    places = [subnet["AvailabilityZone"] for subnet in made.values()]
    assert places == [{"Fn::Select": [place, {"Fn::GetAZs": ""}]} for place in range(int(zones))]
    assert len({subnet["CidrBlock"] for subnet in made.values()}) == int(zones)
    assert stack.outputs["SubnetIds"] == {"Fn::Join": [{"Ref": name} for name in made]}


@pytest.mark.parametrize("subnets", ["public", "private"])
@pytest.mark.parametrize("zones", ["us-east-1b,us-east-1d", "us-east-1d,us-east-1a,us-east-1f"])
def test_zones_can_be_named(subnets: str, zones: str) -> None:
    """Each subnet is in the one that is named in its place: the first two have the endpoints."""
    stack = NETWORK.with_values(Subnets=subnets, Zones=zones)
    made = stack.of_type("AWS::EC2::Subnet")
    assert [subnet["AvailabilityZone"] for subnet in made.values()] == zones.split(",")
    assert stack.outputs["SubnetIds"] == {"Fn::Join": [{"Ref": name} for name in made]}
    assert stack.references() <= set(stack.resources)


@pytest.mark.parametrize(
    ("zones", "fits"),
    [
        *(("2", True), ("3", True), ("1", False), ("4", False), ("", False)),
        *(("us-east-1a,us-east-1b", True), ("us-gov-west-1a,us-gov-west-1c", True)),
        *(("us-east-1a", False), ("us-east-1a, us-east-1b", False), ("us-east-1a,us-east-1b,", False)),
        ("us-east-1a,us-east-1b,us-east-1c,us-east-1d", False),
        ("us-east-1a,us-east-1-bos-1a", False),
    ],
)
def test_what_zones_can_be(zones: str, fits: bool) -> None:
    """A number of them, or two or three names; no local zones, which have hardly any of what is needed."""
    assert (re.fullmatch(NETWORK.parameters["Zones"]["AllowedPattern"], zones) is not None) is fits


def test_public_subnets_reach_ecs() -> None:
    """An instance without a public address or without the route never joins its cluster, and jobs wait for ever."""
    stack = NETWORK.with_values()
    routed = list(stack.of_type("AWS::EC2::SubnetRouteTableAssociation").values())
    for name, subnet in stack.of_type("AWS::EC2::Subnet").items():
        assert subnet["MapPublicIpOnLaunch"] is True
        assert {"SubnetId": {"Ref": name}, "RouteTableId": {"Ref": "RouteTable"}} in routed
    assert stack.resources["InternetRoute"]["RouteTableId"] == {"Ref": "RouteTable"}
    assert stack.resources["InternetRoute"]["DestinationCidrBlock"] == "0.0.0.0/0"
    assert NETWORK.resources["InternetRoute"]["DependsOn"] == "InternetGatewayAttachment"


def test_public_network_costs_nothing_while_idle() -> None:
    """No NAT gateway, no address kept, and of endpoints only the one that is free."""
    stack = NETWORK.with_values()
    assert not stack.of_type("AWS::EC2::NatGateway")
    assert not stack.of_type("AWS::EC2::EIP")
    assert [each["VpcEndpointType"] for each in stack.of_type("AWS::EC2::VPCEndpoint").values()] == ["Gateway"]


def test_private_subnets_have_no_way_out() -> None:
    """No public address, no gateway, no route."""
    stack = NETWORK.with_values(Subnets="private")
    assert {subnet["MapPublicIpOnLaunch"] for subnet in stack.of_type("AWS::EC2::Subnet").values()} == {False}
    for kind in ("InternetGateway", "VPCGatewayAttachment", "Route", "NatGateway"):
        assert not stack.of_type(f"AWS::EC2::{kind}")


def test_private_subnets_reach_what_an_instance_needs() -> None:
    """All six services under their usual names, which needs the VPC's own DNS, and from within both zones."""
    stack = NETWORK.with_values(Subnets="private")
    interfaces = [
        each for each in stack.of_type("AWS::EC2::VPCEndpoint").values() if each["VpcEndpointType"] == "Interface"
    ]
    services = {
        re.sub(r"^com\.amazonaws\.\$\{AWS::Region\}\.", "", each["ServiceName"]["Fn::Sub"]) for each in interfaces
    }
    assert services == SERVICES
    for endpoint in interfaces:
        assert endpoint["PrivateDnsEnabled"] is True
        assert endpoint["SubnetIds"] == [{"Ref": "SubnetA"}, {"Ref": "SubnetB"}]
        assert endpoint["SecurityGroupIds"] == [{"Ref": "EndpointSecurityGroup"}]
    assert (stack.resources["Vpc"]["EnableDnsSupport"], stack.resources["Vpc"]["EnableDnsHostnames"]) == (True, True)


def test_private_subnets_reach_secrets_where_jobs_have_some() -> None:
    """The ECS agent reads them; without any, and where there is a way out, nothing is paid for that."""
    arn = "arn:aws:ssm:eu-west-1:123456789012:parameter/team/db"
    for mode, values in MODES.items():
        more = set(NETWORK.with_values(**values, SecretArns=arn).resources) - set(
            NETWORK.with_values(**values).resources
        )
        assert more == ({"SecretsManagerEndpoint", "SsmEndpoint"} if mode == "private" else set())
    stack = NETWORK.with_values(Subnets="private", SecretArns=arn)
    for name, service in (("SecretsManagerEndpoint", "secretsmanager"), ("SsmEndpoint", "ssm")):
        like = {**stack.resources["LogsEndpoint"], "Tags": stack.resources[name]["Tags"]}
        assert stack.resources[name] == {
            **like,
            "ServiceName": {"Fn::Sub": "com.amazonaws.${AWS::Region}." + service},
        }
    assert stack.references() <= set(stack.resources)


def test_endpoints_answer_the_instances_only() -> None:
    """HTTPS, from their group; and they begin no connection."""
    group = NETWORK.properties("EndpointSecurityGroup")
    [rule] = group["SecurityGroupIngress"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 443, 443)
    assert rule["SourceSecurityGroupId"] == {"Ref": "SecurityGroup"}
    assert not {"CidrIp", "CidrIpv6", "SourcePrefixListId"} & set(rule)
    assert [rule["CidrIp"] for rule in group["SecurityGroupEgress"]] == ["127.0.0.1/32"]


@pytest.mark.parametrize("mode", MODES)
def test_nothing_comes_in(mode: str) -> None:
    """No inbound rule for instances, in their group or beside it."""
    stack = NETWORK.with_values(**MODES[mode])
    assert "SecurityGroupIngress" not in stack.resources["SecurityGroup"]
    assert not stack.of_type("AWS::EC2::SecurityGroupIngress")
    assert stack.outputs["SecurityGroupIds"] == {"Ref": "SecurityGroup"}


@pytest.mark.parametrize("mode", ["public", "private"])
def test_s3_is_reached_without_the_internet(mode: str) -> None:
    """A gateway endpoint on the route table of the subnets: it costs nothing, and image layers are in S3 too."""
    endpoint = NETWORK.with_values(**MODES[mode]).resources["S3Endpoint"]
    assert endpoint["VpcEndpointType"] == "Gateway"
    assert endpoint["ServiceName"] == {"Fn::Sub": "com.amazonaws.${AWS::Region}.s3"}
    assert endpoint["RouteTableIds"] == [{"Ref": "RouteTable"}]


def test_an_existing_network_is_used_as_it_is() -> None:
    """Only a security group is added to it; outputs are what was given."""
    stack = NETWORK.with_values(**EXISTING)
    assert list(stack.resources) == ["SecurityGroup"]
    assert stack.resources["SecurityGroup"]["VpcId"] == EXISTING["ExistingVpcId"]
    assert stack.outputs["VpcId"] == EXISTING["ExistingVpcId"]
    assert stack.outputs["SubnetIds"] == EXISTING["ExistingSubnetIds"]


def test_an_existing_networks_route_tables_get_the_gateway_to_s3() -> None:
    """Where they are given: a table that has one already takes no second."""
    stack = NETWORK.with_values(**EXISTING, **ROUTE_TABLES)
    assert set(stack.resources) == {"SecurityGroup", "S3Endpoint"}
    assert stack.resources["S3Endpoint"]["VpcId"] == EXISTING["ExistingVpcId"]
    assert stack.resources["S3Endpoint"]["RouteTableIds"] == ["rtb-01234567", "rtb-89abcdef"]
