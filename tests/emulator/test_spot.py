"""Spot: a host that EC2 interrupts gets more jobs for two minutes, unless its ECS agent drains it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from covalent_cirro.deployment import templates
from covalent_cirro.local.emulator.batch import user_data

ARCHIVE = """\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b"

--b
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/bash
echo ECS_ENABLE_SPOT_INSTANCE_DRAINING={value} >> /etc/ecs/ecs.config

--b--
"""
DRAINS = ARCHIVE.format(value="true")


def environment(aws: Any, data: str | None) -> str:
    """A compute environment whose instances have capacity for four jobs, and this user data."""
    name = aws.name("template")
    given = {} if data is None else {"UserData": base64.b64encode(data.encode()).decode()}
    aws.client("ec2").create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData={"InstanceType": "m6i.xlarge", **given}
    )
    return str(
        aws.environment(
            type="SPOT",
            allocationStrategy="SPOT_PRICE_CAPACITY_OPTIMIZED",
            instanceTypes=["m6i.xlarge"],
            launchTemplate={"launchTemplateName": name, "version": "$Latest"},
        )
    )


@pytest.mark.parametrize(
    ("data", "elsewhere"),
    [
        pytest.param(DRAINS, True, id="draining"),
        pytest.param(ARCHIVE.format(value="false"), False, id="switched off"),
        pytest.param("#!/bin/bash\necho ECS_ENABLE_SPOT_INSTANCE_DRAINING=true\n", False, id="no archive"),
        pytest.param(None, False, id="ECS's default"),
    ],
)
def test_where_a_job_goes_while_a_host_is_taken_back(aws: Any, data: str | None, *, elsewhere: bool) -> None:
    """What runs on the host runs on; the next job starts on another host only where this one drains."""
    queue = aws.queue(environment(aws, data))
    first = aws.submit("sleep", "600", queue=queue)
    host = aws.reach(first, "RUNNING")["container"]["containerInstanceArn"]
    batch = aws.emulator.batch()
    [instance] = [each.instance_id for each in batch.fleet.hosts.values() if each.arn == host]
    batch.lose_host(instance, notice_s=3600)
    second = aws.done(aws.submit("true", queue=queue))
    assert (second["container"]["containerInstanceArn"] != host) is elsewhere
    assert aws.job(first)["status"] == "RUNNING"
    cluster = host.split("/")[1]
    described = aws.client("ecs").describe_container_instances(cluster=cluster, containerInstances=[host])
    assert described["containerInstances"][0]["status"] == ("DRAINING" if elsewhere else "ACTIVE")
    aws.batch.terminate_job(jobId=first, reason="done")
    batch.lose_host(instance)


def test_the_instances_of_a_deployment_drain() -> None:
    """The user data of ``infra/compute.yaml`` is an archive that AWS Batch can join with its own."""
    data = templates.load("compute")["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]
    assert user_data.drains(data["Fn::Base64"])
    assert user_data.agent_settings(data["Fn::Base64"]) == {"ECS_ENABLE_SPOT_INSTANCE_DRAINING": "true"}
