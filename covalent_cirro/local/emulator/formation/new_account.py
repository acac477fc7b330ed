"""What a new account lacks: service-linked roles, access to billing; and which zones lack which VPC endpoint services.

Answers calls about them, and refuses resources that need them. It must not know HTTP servers.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from covalent_cirro.local.emulator.http.answers import Answer, xml_answer
from covalent_cirro.local.emulator.moto_internals import moto_iam

LINKED_ROLES = {
    "ecs.amazonaws.com": "AWSServiceRoleForECS",
    "batch.amazonaws.com": "AWSServiceRoleForBatch",
    "spot.amazonaws.com": "AWSServiceRoleForEC2Spot",
    "spotfleet.amazonaws.com": "AWSServiceRoleForEC2SpotFleet",
    "autoscaling.amazonaws.com": "AWSServiceRoleForAutoScaling",
    "elasticloadbalancing.amazonaws.com": "AWSServiceRoleForElasticLoadBalancing",
    "ecs.application-autoscaling.amazonaws.com": "AWSServiceRoleForApplicationAutoScaling_ECSService",
}
"""Names of service-linked roles, where moto has others (service documentation, using service-linked roles)."""

NO_LINKED_ROLE = (
    'Resource handler returned message: "Invalid request provided: CreateCluster Invalid Request: Unable to assume the '
    'service linked role. Please verify that the ECS service linked role exists."'
)
"""aws-samples/run-selenium-tests-at-scale-using-ecs-fargate#2."""

NO_BILLING = (
    "User: arn:aws:iam::{}:user/ada is not authorized to perform: budgets:ModifyBudget on resource: "
    "arn:aws:budgets::{}:budget/{} (Service: Budgets, Status Code: 400)"
)
"""In the form of IAM's refusals; the exact text of Budgets without access to billing is not known."""

IAM_XMLNS = "https://iam.amazonaws.com/doc/2010-05-08/"
EC2_XMLNS = "http://ec2.amazonaws.com/doc/2016-11-15/"


@dataclass
class NewAccount:
    """What may be lacking. It can be set at any time.

    Attributes:
        linked_roles_needed: A compute environment and a cluster need the service-linked role of ECS; otherwise that is
            not checked.
        billing_access: IAM users and roles have access to billing, which the root user has to allow.
        absent_endpoints: By pattern of services (``"ecs-agent"``), the zones that lack their endpoint.
    """

    linked_roles_needed: bool = False
    billing_access: bool = True
    absent_endpoints: dict[str, list[str]] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """All values, by name."""
        return dataclasses.asdict(self)

    def changed(self, changes: dict[str, Any]) -> NewAccount:
        """A copy with some values changed.

        Raises:
            ValueError: An unknown key.
        """
        known = self.settings()
        for key in changes:
            if key not in known:
                raise ValueError(f"unknown key {key!r}; known are {', '.join(known)}")
        return NewAccount(**{**known, **changes})

    def endpoint_zones(self, service: str, zones: list[str]) -> list[str]:
        """The zones that have an endpoint of a service, of those given."""
        absent = {
            zone for pattern, of in self.absent_endpoints.items() if fnmatch.fnmatch(service, pattern) for zone in of
        }
        return [zone for zone in zones if zone not in absent]

    # --- what is refused --------------------------------------------------------------------------------------------

    def no_cluster(self, account: str) -> str | None:
        """Why a compute environment, or a cluster of ECS, cannot be made; `None`: it can."""
        if self.linked_roles_needed and not moto_iam.has_role(account, LINKED_ROLES["ecs.amazonaws.com"]):
            return NO_LINKED_ROLE
        return None

    def no_budget(self, account: str, name: str) -> str | None:
        """Why a budget cannot be made or changed; `None`: it can."""
        return None if self.billing_access else NO_BILLING.format(account, account, name)

    def no_endpoint(self, service_name: str, zones: list[str]) -> str | None:
        """Why an interface endpoint cannot be made in subnets of these zones; `None`: it can."""
        there = self.endpoint_zones(service_name.split(".", 3)[-1], zones)
        if there == zones:
            return None
        return (
            f"The VPC endpoint service {service_name} does not support the availability zone of the subnet: "
            f"{', '.join(sorted(set(zones) - set(there)))}. (Service: Ec2, Status Code: 400)"
        )


# --- calls ------------------------------------------------------------------------------------------------------------


def create_linked_role(account: str, body: bytes) -> Answer | None:
    """CreateServiceLinkedRole; `None` for a service whose role moto names correctly."""
    service = dict(parse_qsl(body.decode()))["AWSServiceName"]
    name = LINKED_ROLES.get(service)
    if name is None:
        return None
    if moto_iam.has_role(account, name):
        text = f"Service role name {name} has been taken in this account, please try a different suffix."
        error = f"<Error><Type>Sender</Type><Code>InvalidInput</Code><Message>{text}</Message></Error>"
        return _xml("ErrorResponse", IAM_XMLNS, error, 400)
    trust = json.dumps(
        {"Statement": [{"Effect": "Allow", "Principal": {"Service": [service]}, "Action": ["sts:AssumeRole"]}]}
    )
    path = f"/aws-service-role/{service}/"
    arn, role_id = moto_iam.make_role(account, name, path, trust)
    role = {"Path": path, "RoleName": name, "RoleId": role_id, "Arn": arn, "AssumeRolePolicyDocument": trust}
    members = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in role.items())
    return _xml(
        "CreateServiceLinkedRoleResponse",
        IAM_XMLNS,
        f"<CreateServiceLinkedRoleResult><Role>{members}<CreateDate>2026-01-01T00:00:00Z</CreateDate></Role>"
        "</CreateServiceLinkedRoleResult>",
    )


def describe_endpoint_services(new: NewAccount, region: str, zones: list[str], body: bytes) -> Answer:
    """DescribeVpcEndpointServices, for the services that the request names."""
    given = dict(parse_qsl(body.decode()))
    asked = [value for key, value in given.items() if key.startswith(("ServiceName.", "Filter.1.Value."))]
    details = "".join(
        f"<item><serviceName>{escape(name)}</serviceName><serviceType><item><serviceType>Interface</serviceType></item>"
        "</serviceType><availabilityZoneSet>"
        + "".join(f"<item>{zone}</item>" for zone in new.endpoint_zones(name.split(".", 3)[-1], zones))
        + "</availabilityZoneSet></item>"
        for name in asked
        if name.startswith(f"com.amazonaws.{region}.")
    )
    names = "".join(f"<item>{escape(name)}</item>" for name in asked)
    inner = f"<serviceNameSet>{names}</serviceNameSet><serviceDetailSet>{details}</serviceDetailSet>"
    return _xml("DescribeVpcEndpointServicesResponse", EC2_XMLNS, inner)


def _xml(name: str, namespace: str, inner: str, status: int = 200) -> Answer:
    return xml_answer(f'<{name} xmlns="{namespace}">{inner}</{name}>', status)
