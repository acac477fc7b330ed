"""URLs of a job and of its log in the AWS console. Pure; knows no settings."""

from __future__ import annotations

import re

_CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
    "aws-eusc": "console.amazonaws-eusc.eu",
}
"""Host of the console by partition; the region's code stands in front (AWS General Reference, AWS Management Console
endpoints). The isolated partitions have none that is public."""

_AWS_HOST = re.compile(r"https?://[^/:]+\.(?:amazonaws\.com(?:\.cn)?|amazonaws\.eu|api\.aws)(?:[:/].*)?", re.IGNORECASE)


def is_aws(endpoint_url: str) -> bool:
    """Whether an endpoint is AWS's own, or a VPC endpoint of it. The emulator, for example, has no console."""
    return _AWS_HOST.fullmatch(endpoint_url) is not None


_PARTITIONS = (
    *(("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"), ("eusc-", "aws-eusc")),
    *(("us-iso", "aws-iso"), ("eu-iso", "aws-iso-e")),
)


def partition_of(region: str) -> str:
    """The partition of a region, by the beginning of its name; ``aws`` for all other names."""
    return next((partition for start, partition in _PARTITIONS if region.startswith(start)), "aws")


def job_url(partition: str, region: str, job_id: str) -> str:
    """The URL of a job; for a child of an array that of its parent. Empty where there is no public console.

    Args:
        partition: Second field of an ARN in the region: ``aws``, ``aws-cn``, ``aws-us-gov``, ``aws-eusc``.
        region: The region.
        job_id: Id of the job.
    """
    page = _page(partition, region, "batch")
    return f"{page}#jobs/detail/{job_id.partition(':')[0]}" if page and job_id else ""


def log_url(partition: str, region: str, group: str, stream: str) -> str:
    """The URL of a log stream in CloudWatch; empty where there is no public console, or no stream."""
    page = _page(partition, region, "cloudwatch")
    if not page or not group or not stream:
        return ""
    return f"{page}#logsV2:log-groups/log-group/{_twice_encoded(group)}/log-events/{_twice_encoded(stream)}"


def _page(partition: str, region: str, service: str) -> str:
    host = _CONSOLES.get(partition)
    return f"https://{region}.{host}/{service}/home?region={region}" if host and region else ""


def _twice_encoded(text: str) -> str:
    # The console encodes a name twice and then writes % as $: a slash is $252F.
    return re.sub(
        r"[^A-Za-z0-9_.~-]", lambda found: "".join(f"$25{byte:02X}" for byte in found[0].encode("utf-8")), text
    )
