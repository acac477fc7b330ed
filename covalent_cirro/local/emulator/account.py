"""Quotas, cost tags and instance types of an emulated account, and the calls about them; also IAM's policy simulator.

Answers calls that moto lacks, or that it answers without regard to this account. It must not know HTTP servers.
"""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from covalent_cirro.local.emulator import price_api
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.formation import new_account
from covalent_cirro.local.emulator.formation.new_account import NewAccount
from covalent_cirro.local.emulator.http.answers import Answer, aws_json_answer, xml_answer
from covalent_cirro.local.emulator.http.operations import Operation
from covalent_cirro.local.emulator.iam import policies
from covalent_cirro.local.emulator.moto_internals import moto_ec2, moto_iam
from covalent_cirro.local.emulator.placement_groups import PlacementGroups

ON_DEMAND, SPOT = "Running On-Demand {} instances", "All {} Spot Instance Requests"

QUOTA_NAMES = {
    "L-1216C47A": ON_DEMAND.format("Standard (A, C, D, H, I, M, R, T, Z)"),
    "L-34B43A08": SPOT.format("Standard (A, C, D, H, I, M, R, T, Z)"),
    "L-DB2E81BA": ON_DEMAND.format("G and VT"),
    "L-3819A6DF": SPOT.format("G and VT"),
    "L-417A185B": ON_DEMAND.format("P"),
    "L-7212CCBC": SPOT.format("P4, P3 and P2"),
    "L-C4BD4855": SPOT.format("P5"),
    "L-7295265B": ON_DEMAND.format("X"),
    "L-E3A00192": SPOT.format("X"),
    "L-3032A538": "Fargate On-Demand vCPU resource count",
    "L-36FBB829": "Fargate Spot vCPU resource count",
}
"""Quotas of vCPUs of EC2 and Fargate (AWS General Reference, Amazon EC2 instance type quotas, AWS Fargate quotas)."""

OF_FARGATE = ("L-3032A538", "L-36FBB829")

ENOUGH_VCPUS = 1000.0
"""Value of each quota until another one is set: that of an account whose quotas were raised."""

NEW_ACCOUNT_VCPUS = {"L-1216C47A": 5.0, "L-34B43A08": 5.0, **dict.fromkeys(OF_FARGATE, 6.0)}
"""AWS's defaults; all others are 0 (AWS General Reference, the same pages)."""

IAM_XMLNS = "https://iam.amazonaws.com/doc/2010-05-08/"


class Account:
    """Limits and offers of an emulated account. They can be set at any time.

    Args:
        account: Gives its number, which is known once the emulator has started.
        batch: Gives the AWS Batch of a region.

    Attributes:
        quotas: vCPUs by quota code; `None`: as AWS has it by default.
        cost_tags: ``"Active"`` or ``"Inactive"`` by tag key.
        absent_types: By pattern of instance types, the zones that lack them; an empty list stands for all zones.
        new: What a new account lacks.
        placement_groups: Placement groups.
    """

    def __init__(self, account: Callable[[], str], batch: Callable[[str], Batch]) -> None:
        self._account = account
        self._batch = batch
        self.quotas: dict[str, float | None] = dict.fromkeys(QUOTA_NAMES, ENOUGH_VCPUS)
        self.cost_tags: dict[str, str] = {}
        self.absent_types: dict[str, list[str]] = {}
        self.new = NewAccount()
        self.placement_groups = PlacementGroups(account)

    def update(self, changes: Json) -> Json:
        """Set the values that are given, and return all: the route ``/_cirro/account``.

        Raises:
            ValueError: An unknown key.
        """
        known = ("quotas", "cost_tags", "absent_types", "new")
        for key, value in changes.items():
            if key not in known:
                raise ValueError(f"unknown key {key!r}; known are {', '.join(known)}")
            if key == "new":
                self.new = self.new.changed(value)
                continue
            mine = getattr(self, key)
            if key != "quotas":
                mine.clear()
            mine.update(value)
        return {**{key: getattr(self, key) for key in known}, "new": self.new.settings()}

    def answer(self, asked: Operation, region: str, body: Callable[[], bytes]) -> Answer | None:
        """The answer to a call of `CALLS`; `None` for other calls, which moto answers."""
        if asked.service == "ec2" and asked.name.startswith("DescribeInstanceType"):
            moto_ec2.install()
        call: Any = CALLS.get((asked.service, asked.name))
        return None if call is None else call(self, region, body)

    # --- Service Quotas ---------------------------------------------------------------------------------------------

    def _quota(self, region: str, code: str, value: float) -> Json:
        service = _service_of(code)
        return {
            "ServiceCode": service,
            "ServiceName": "AWS Fargate" if service == "fargate" else "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaArn": f"arn:aws:servicequotas:{region}:{self._account()}:{service}/{code}",
            "QuotaCode": code,
            "QuotaName": QUOTA_NAMES[code],
            "Value": value,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }

    def get_service_quota(self, region: str, body: Callable[[], bytes]) -> Answer:
        """GetServiceQuota, of vCPUs."""
        asked = json.loads(body())
        code = asked["QuotaCode"]
        value = self.quotas.get(code) if asked["ServiceCode"] == _service_of(code) else None
        return _no_such_quota() if value is None else aws_json_answer({"Quota": self._quota(region, code, value)})

    def get_default_quota(self, region: str, body: Callable[[], bytes]) -> Answer:
        """GetAWSDefaultServiceQuota, of vCPUs."""
        asked = json.loads(body())
        code = asked["QuotaCode"]
        if code not in QUOTA_NAMES or asked["ServiceCode"] != _service_of(code):
            return _no_such_quota()
        return aws_json_answer({"Quota": self._quota(region, code, NEW_ACCOUNT_VCPUS.get(code, 0.0))})

    def list_service_quotas(self, region: str, body: Callable[[], bytes]) -> Answer:
        """ListServiceQuotas: those of vCPUs, on one page."""
        service = json.loads(body())["ServiceCode"]
        if service not in ("ec2", "fargate"):
            return _no_such_quota()
        there = {code: value for code, value in self.quotas.items() if _service_of(code) == service}
        quotas = [self._quota(region, code, value) for code, value in there.items() if value is not None]
        return aws_json_answer({"Quotas": quotas})

    # --- Cost Explorer ----------------------------------------------------------------------------------------------

    def list_cost_tags(self, region: str, body: Callable[[], bytes]) -> Answer:
        """ListCostAllocationTags, by key."""
        wanted = json.loads(body()).get("TagKeys")
        tags = [
            {"TagKey": key, "Type": "UserDefined", "Status": status}
            for key, status in self.cost_tags.items()
            if wanted is None or key in wanted
        ]
        return aws_json_answer({"CostAllocationTags": tags})

    # --- ECS --------------------------------------------------------------------------------------------------------

    def describe_clusters(self, region: str, body: Callable[[], bytes]) -> Answer | None:
        """DescribeClusters, of those that AWS Batch made; `None` where none of them is."""
        batch = self._batch(region)
        made = []
        with batch.lock:
            for each in batch.fleet.environments.values():
                name = f"{each.name}_Batch_{each.uuid}"
                arn = f"arn:aws:ecs:{region}:{self._account()}:cluster/{name}"
                hosts = batch.fleet.of(each)
                made.append(
                    {
                        "clusterArn": arn,
                        "clusterName": name,
                        "status": "ACTIVE",
                        "registeredContainerInstancesCount": sum(host.ready_at <= batch.now() for host in hosts),
                        "runningTasksCount": sum(len(host.jobs) for host in hosts),
                        "pendingTasksCount": 0,
                        "activeServicesCount": 0,
                    }
                )
        wanted = json.loads(body() or b"{}").get("clusters") or []
        found = [each for each in made if {each["clusterArn"], each["clusterName"]} & set(wanted)]
        return aws_json_answer({"clusters": found, "failures": []}) if found else None

    def describe_container_instances(self, region: str, body: Callable[[], bytes]) -> Answer:
        """DescribeContainerInstances: instances of AWS Batch's clusters that run."""
        asked = json.loads(body() or b"{}")
        cluster = str(asked.get("cluster") or "default").rpartition("/")[2]
        wanted = [str(each).rpartition("/")[2] for each in asked.get("containerInstances") or []]
        batch = self._batch(region)
        with batch.lock:
            hosts = {host.arn.rpartition("/")[2]: host for host in batch.fleet.hosts.values()}
        there = {each: hosts[each] for each in wanted if each in hosts and f"/{cluster}/" in hosts[each].arn}
        found = [
            {
                "containerInstanceArn": host.arn,
                "ec2InstanceId": host.instance_id,
                "status": "DRAINING" if host.draining else "ACTIVE",
                "attributes": [
                    {"name": "ecs.instance-type", "value": host.instance_type},
                    {"name": "ecs.availability-zone", "value": f"{region}a"},
                ],
            }
            for host in there.values()
        ]
        missing = [{"arn": each, "reason": "MISSING"} for each in wanted if each not in there]
        return aws_json_answer({"containerInstances": found, "failures": missing})

    # --- prices -----------------------------------------------------------------------------------------------------

    def get_products(self, region: str, body: Callable[[], bytes]) -> Answer:
        """GetProducts, of EC2's instances."""
        return aws_json_answer(price_api.get_products(json.loads(body())))

    def describe_spot_prices(self, region: str, body: Callable[[], bytes]) -> Answer:
        """DescribeSpotPriceHistory, up to now."""
        asked = price_api.parse_asked(dict(parse_qsl(body().decode())), time.time())
        offers = {name: self.zones_of(region, name) for name in asked.instance_types or moto_ec2.offers(region)}
        return xml_answer(price_api.spot_history(asked, offers))

    # --- placement groups -------------------------------------------------------------------------------------------

    def create_placement_group(self, region: str, body: Callable[[], bytes]) -> Answer:
        """CreatePlacementGroup."""
        return self.placement_groups.create(region, body())

    def describe_placement_groups(self, region: str, body: Callable[[], bytes]) -> Answer:
        """DescribePlacementGroups."""
        return self.placement_groups.describe(region, body())

    def delete_placement_group(self, region: str, body: Callable[[], bytes]) -> Answer:
        """DeletePlacementGroup."""
        return self.placement_groups.delete(region, body())

    # --- new accounts -----------------------------------------------------------------------------------------------

    def create_linked_role(self, region: str, body: Callable[[], bytes]) -> Answer | None:
        """CreateServiceLinkedRole."""
        return new_account.create_linked_role(self._account(), body())

    def describe_endpoint_services(self, region: str, body: Callable[[], bytes]) -> Answer:
        """DescribeVpcEndpointServices."""
        zones = moto_ec2.zones(region)
        return new_account.describe_endpoint_services(self.new, region, zones, body())

    # --- IAM's simulator --------------------------------------------------------------------------------------------

    def simulate(self, region: str, body: Callable[[], bytes]) -> Answer:
        """SimulatePrincipalPolicy: each action on each resource. The account's administrator may do all."""
        given = dict(parse_qsl(body().decode()))
        source = given["PolicySourceArn"]
        who = moto_iam.principal_named(self._account(), source)
        if who is None and not source.endswith(":user/moto"):
            text = f"The entity {source} cannot be found."
            return _iam_answer(
                404, f"<Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>{text}</Message></Error>"
            )
        context = _context(given)
        results = []
        for action in _members(given, "ActionNames"):
            decided = []
            for resource in _members(given, "ResourceArns") or ["*"]:
                decision = "allowed"
                if who is not None:
                    denial = policies.decide(who, policies.Access(action, resource, context))
                    if denial is not None:
                        decision = "explicitDeny" if denial.explicit else "implicitDeny"
                decided.append((resource, decision))
            specific = "".join(
                f"<member><EvalResourceName>{escape(resource)}</EvalResourceName>"
                f"<EvalResourceDecision>{decision}</EvalResourceDecision></member>"
                for resource, decision in decided
            )
            whole = next((decision for _, decision in decided if decision != "allowed"), "allowed")
            results.append(
                f"<member><EvalActionName>{escape(action)}</EvalActionName><EvalDecision>{whole}</EvalDecision>"
                f"<ResourceSpecificResults>{specific}</ResourceSpecificResults></member>"
            )
        return _iam_answer(
            200,
            f"<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults>{''.join(results)}"
            "</EvaluationResults></SimulatePrincipalPolicyResult>",
        )

    # --- instance types ---------------------------------------------------------------------------------------------

    def zones_of(self, region: str, name: str) -> set[str]:
        """The zones of a region that have an instance type."""
        zones = set(moto_ec2.offers(region).get(name, ()))
        for pattern, absent in self.absent_types.items():
            if fnmatch.fnmatchcase(name, pattern):
                zones = zones - set(absent) if absent else set()
        return zones


CALLS: dict[tuple[str, str], Callable[[Account, str, Callable[[], bytes]], Answer | None]] = {
    ("servicequotas", "GetServiceQuota"): Account.get_service_quota,
    ("servicequotas", "GetAWSDefaultServiceQuota"): Account.get_default_quota,
    ("servicequotas", "ListServiceQuotas"): Account.list_service_quotas,
    ("ce", "ListCostAllocationTags"): Account.list_cost_tags,
    ("ecs", "DescribeClusters"): Account.describe_clusters,
    ("ecs", "DescribeContainerInstances"): Account.describe_container_instances,
    ("pricing", "GetProducts"): Account.get_products,
    ("ec2", "DescribeSpotPriceHistory"): Account.describe_spot_prices,
    ("ec2", "DescribeVpcEndpointServices"): Account.describe_endpoint_services,
    ("ec2", "CreatePlacementGroup"): Account.create_placement_group,
    ("ec2", "DescribePlacementGroups"): Account.describe_placement_groups,
    ("ec2", "DeletePlacementGroup"): Account.delete_placement_group,
    ("iam", "CreateServiceLinkedRole"): Account.create_linked_role,
    ("iam", "SimulatePrincipalPolicy"): Account.simulate,
}


def _members(given: dict[str, str], name: str) -> list[str]:
    numbered = ((key.removeprefix(f"{name}.member."), value) for key, value in given.items())
    return [value for key, value in sorted((pair for pair in numbered if pair[0].isdigit()), key=lambda p: int(p[0]))]


def _context(given: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    prefix, suffix = "ContextEntries.member.", ".ContextKeyName"
    for key, name in given.items():
        if key.startswith(prefix) and key.endswith(suffix):
            found[name] = _members(given, f"{key.removesuffix(suffix)}.ContextKeyValues")
    return found


def _service_of(code: str) -> str:
    """The service that has a quota."""
    return "fargate" if code in OF_FARGATE else "ec2"


def _no_such_quota() -> Answer:
    text = "The request failed because the specified quota is unknown."
    return aws_json_answer({"__type": "NoSuchResourceException", "Message": text}, 400)


def _iam_answer(status: int, inner: str) -> Answer:
    name = "SimulatePrincipalPolicyResponse" if status == 200 else "ErrorResponse"
    return xml_answer(f'<{name} xmlns="{IAM_XMLNS}">{inner}</{name}>', status)
