"""A deployment of a test: the four stacks, made one by one as by hand; and everything that an account has."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from covalent_cirro.deployment import templates
from covalent_cirro.local.emulator import Emulator

PARTS = ("network", "storage", "roles", "compute")
BUDGET = "budget"
"""The part that is not made unless it is asked for."""
ACCOUNT = "123456789012"


class Account:
    """An emulated account, with clients that are made once."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A boto3 client."""
        if service not in self._clients:
            self._clients[service] = self._emulator.client(service)
        return self._clients[service]

    def inventory(self) -> dict[str, set[str]]:
        """Names of all that a deployment can make in it."""
        batch, ec2, iam = (self.client(each) for each in ("batch", "ec2", "iam"))
        logs, ecr, s3, budgets = (self.client(each) for each in ("logs", "ecr", "s3", "budgets"))
        tables = ec2.describe_route_tables()["RouteTables"]
        return {
            "queues": {each["jobQueueArn"] for each in batch.describe_job_queues()["jobQueues"]},
            "environments": {
                each["computeEnvironmentArn"]
                for each in batch.describe_compute_environments()["computeEnvironments"]
                if each["status"] != "DELETED"
            },
            "vpcs": {each["VpcId"] for each in ec2.describe_vpcs()["Vpcs"]},
            "subnets": {each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]},
            "route tables": {each["RouteTableId"] for each in tables},
            "routes": {f"{table['RouteTableId']} {route}" for table in tables for route in table["Routes"]},
            "gateways": {each["InternetGatewayId"] for each in ec2.describe_internet_gateways()["InternetGateways"]},
            "endpoints": {each["VpcEndpointId"] for each in ec2.describe_vpc_endpoints()["VpcEndpoints"]},
            "interfaces": {
                each["NetworkInterfaceId"] for each in ec2.describe_network_interfaces()["NetworkInterfaces"]
            },
            "groups": {each["GroupId"] for each in ec2.describe_security_groups()["SecurityGroups"]},
            "launch templates": {
                each["LaunchTemplateId"] for each in ec2.describe_launch_templates()["LaunchTemplates"]
            },
            "buckets": {each["Name"] for each in s3.list_buckets()["Buckets"]},
            "repositories": {each["repositoryName"] for each in ecr.describe_repositories()["repositories"]},
            "log groups": {each["logGroupName"] for each in logs.describe_log_groups()["logGroups"]},
            "roles": {each["RoleName"] for each in iam.list_roles()["Roles"]},
            "profiles": {each["InstanceProfileName"] for each in iam.list_instance_profiles()["InstanceProfiles"]},
            "policies": {each["Arn"] for each in iam.list_policies(Scope="Local")["Policies"]},
            "budgets": {each["BudgetName"] for each in budgets.describe_budgets(AccountId=ACCOUNT)["Budgets"]},
        }


class Deployment:
    """Four stacks of one name."""

    def __init__(self, account: Account, name: str) -> None:
        self.client = account.client
        self.cloudformation: Any = account.client("cloudformation")
        self.name = name
        self.outputs: dict[str, str] = {}

    def deploy(self, **parameters: object) -> dict[str, str]:
        """Make all four, or bring them up to date; returns the status of each."""
        return {part: self.deploy_part(part, **parameters) for part in PARTS}

    def deploy_part(self, part: str, **parameters: object) -> str:
        """Make one, or bring it up to date; returns its status, ``"unchanged"`` where there was nothing to do."""
        body = templates.body(part)
        values = {"DeploymentName": self.name, **self.outputs, **{key: str(each) for key, each in parameters.items()}}
        known = {each["ParameterKey"] for each in self._call("get_template_summary", TemplateBody=body)["Parameters"]}
        request = {
            "StackName": f"{self.name}-{part}",
            "TemplateBody": body,
            "Parameters": [
                {"ParameterKey": key, "ParameterValue": value} for key, value in values.items() if key in known
            ],
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": [{"Key": "covalent-cirro", "Value": self.name}],
        }
        try:
            self._call("update_stack" if self.exists(part) else "create_stack", **request)
        except ClientError as error:
            if "No updates are to be performed" in str(error):
                return "unchanged"
            raise
        stack = self._stack(part)
        self.outputs |= {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}
        return str(stack["StackStatus"])

    def delete(self) -> None:
        """Delete all that is there, last made first."""
        for part in (*reversed(PARTS), BUDGET):
            if self.exists(part):
                self._call("delete_stack", StackName=f"{self.name}-{part}")
                assert not self.exists(part), self.failures(part)

    def exists(self, part: str) -> bool:
        """Whether there is such a stack."""
        try:
            self._stack(part)
        except ClientError:
            return False
        return True

    def failures(self, part: str) -> list[str]:
        """What went wrong with its resources."""
        events = self._call("describe_stack_events", StackName=f"{self.name}-{part}")["StackEvents"]
        return [
            f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
            for event in reversed(events)
            if event["ResourceStatus"].endswith("_FAILED")
        ]

    def environments(self, queue: str) -> list[dict[str, Any]]:
        """The compute environments of a job queue, in its order."""
        batch = self.client("batch")
        [found] = batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
        order = sorted(found["computeEnvironmentOrder"], key=lambda item: int(item["order"]))
        arns = [item["computeEnvironment"] for item in order]
        described = batch.describe_compute_environments(computeEnvironments=arns)["computeEnvironments"]
        return sorted(described, key=lambda item: arns.index(item["computeEnvironmentArn"]))

    def _stack(self, part: str) -> dict[str, Any]:
        return dict(self._call("describe_stacks", StackName=f"{self.name}-{part}")["Stacks"][0])

    def _call(self, operation: str, **request: Any) -> dict[str, Any]:
        response: dict[str, Any] = getattr(self.cloudformation, operation)(**request)
        return response
