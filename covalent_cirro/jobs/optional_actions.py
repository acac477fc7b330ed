"""AWS actions that an executor does without where a policy does not allow them, and what is lost then. Pure.

The policy in the stock plugin's documentation lacks them: a user of that plugin who changes only the executor's class
can still run electrons. `aws/batch.py` logs once what is lost, and `cirro doctor` reports it.
"""

from __future__ import annotations

COSTS = {
    "batch:DescribeJobDefinitions": "each start of the Covalent server registers its job definitions anew",
    "batch:ListJobs": (
        "a job whose SubmitJob was not answered cannot be found and may run twice, and `cirro jobs` and `cirro stop` "
        "find no jobs"
    ),
    "batch:TagResource": (
        "jobs and job definitions have no tags: the bill does not tell dispatches apart, and `cirro jobs` does not "
        "know the lattice"
    ),
    "batch:TerminateJob": "a cancelled electron's job runs on, and is paid for",
    "batch:DescribeJobQueues": "why a job waits is not shown",
    "batch:DescribeComputeEnvironments": "why a job waits is not shown",
    "batch:GetJobQueueSnapshot": "a job's position in its queue is not shown",
    "ec2:DescribeInstanceTypes": "whether a job fits on the instances of its queue is not known",
    "ec2:DescribeSubnets": "jobs on Fargate get public addresses, which they need in public subnets only",
    "ecs:DescribeContainerInstances": "the instance that a job runs on is not shown",
    "ec2:DescribeSpotPriceHistory": "costs are computed with the prices in the package",
    "pricing:GetProducts": "costs are computed with the prices in the package",
    "logs:GetLogEvents": "the end of the log of a job that left no outcome is not shown",
    "ecr:BatchGetImage": "an image that cannot run an electron is not refused before it is paid for",
    "ecr:GetDownloadUrlForLayer": "an image that cannot run an electron is not refused before it is paid for",
    "ecr:DescribeImages": "where a tag is missing, the repository's tags are not listed",
}
"""By action, what is lost without it."""
