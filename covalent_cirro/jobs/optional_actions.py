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
    "batch:DescribeJobQueues": "nobody is told why a job waits",
    "batch:DescribeComputeEnvironments": "nobody is told why a job waits",
    "batch:GetJobQueueSnapshot": "a job's place in its queue is not told",
    "ec2:DescribeInstanceTypes": "whether a job fits on what its queue may start is not told",
    "ecs:DescribeContainerInstances": "the instance that a job runs on is not told",
    "ec2:DescribeSpotPriceHistory": "costs are worked out with the prices that the package carries",
    "pricing:GetProducts": "costs are worked out with the prices that the package carries",
    "logs:GetLogEvents": "the end of the log of a job that left no outcome is not shown",
    "ecr:BatchGetImage": "an image that cannot run an electron is not refused before it is paid for",
    "ecr:GetDownloadUrlForLayer": "an image that cannot run an electron is not refused before it is paid for",
    "ecr:DescribeImages": "the tags that a repository has are not told where one is missing",
}
"""By action, what is lost without it."""
