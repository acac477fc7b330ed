"""The command that deletes what a deployment's deletion left. Pure."""

from __future__ import annotations

import re

_STACK = re.compile(r"CloudFormation stack (\S+)")
_ARN = re.compile(r"arn:[a-z-]+:(?P<service>[a-z0-9-]+):(?P<region>[a-z0-9-]*):\d*:(?P<resource>\S+)")

_QUEUE = "update-job-queue --job-queue {arn} --state DISABLED, then aws batch delete-job-queue --job-queue {arn}"
_ENVIRONMENT = (
    "update-compute-environment --compute-environment {arn} --state DISABLED, then aws batch "
    "delete-compute-environment --compute-environment {arn}"
)
_COMMANDS = {
    ("batch", "job-queue"): f"aws batch {_QUEUE}",
    ("batch", "compute-environment"): f"aws batch {_ENVIRONMENT}",
    ("batch", "scheduling-policy"): "aws batch delete-scheduling-policy --arn {arn}",
    ("batch", "job-definition"): "aws batch deregister-job-definition --job-definition {arn}",
    ("ec2", "instance"): "aws ec2 terminate-instances --instance-ids {id}",
    ("ec2", "internet-gateway"): "aws ec2 delete-internet-gateway --internet-gateway-id {id}",
    ("ec2", "launch-template"): "aws ec2 delete-launch-template --launch-template-id {id}",
    ("ec2", "network-interface"): "aws ec2 delete-network-interface --network-interface-id {id}",
    ("ec2", "placement-group"): "aws ec2 delete-placement-group --group-name {id}",
    ("ec2", "route-table"): "aws ec2 delete-route-table --route-table-id {id}",
    ("ec2", "security-group"): "aws ec2 delete-security-group --group-id {id}",
    ("ec2", "subnet"): "aws ec2 delete-subnet --subnet-id {id}",
    ("ec2", "volume"): "aws ec2 delete-volume --volume-id {id}",
    ("ec2", "vpc"): "aws ec2 delete-vpc --vpc-id {id}",
    ("ec2", "vpc-endpoint"): "aws ec2 delete-vpc-endpoints --vpc-endpoint-ids {id}",
    ("ecr", "repository"): "aws ecr delete-repository --repository-name {id} --force",
    ("ecs", "cluster"): "aws ecs delete-cluster --cluster {arn}",
    ("elasticfilesystem", "access-point"): "aws efs delete-access-point --access-point-id {id}",
    ("elasticfilesystem", "file-system"): "aws efs delete-file-system --file-system-id {id}",
    ("elasticloadbalancing", "loadbalancer"): "aws elbv2 delete-load-balancer --load-balancer-arn {arn}",
    ("elasticloadbalancing", "targetgroup"): "aws elbv2 delete-target-group --target-group-arn {arn}",
    ("logs", "log-group"): "aws logs delete-log-group --log-group-name {id}",
}
"""By service and kind of resource of an ARN (Service Authorization Reference)."""


def command(left: str, region: str) -> str:
    """The command of the AWS CLI that deletes it; empty for a kind that no deployment makes.

    Args:
        left: An entry of `holdings.Proof.left`.
        region: Region of the deployment.
    """
    if stack := _STACK.match(left):
        return f"aws cloudformation delete-stack --stack-name {stack[1]} --region {region}"
    found = _ARN.search(left)
    if found is None:
        return ""
    if found["service"] == "s3":
        return f"aws s3 rb s3://{found['resource']} --force --region {region}"
    kind, _, name = re.sub("^log-group:", "log-group/", found["resource"]).partition("/")
    words = _COMMANDS.get((found["service"], kind), "").format(arn=found[0], id=name.removesuffix(":*"))
    where = f" --region {found['region'] or region}"
    return words.replace(", then", f"{where}, then") + where if words else ""
