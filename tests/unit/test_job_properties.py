"""``job_properties``: its form by botocore's model, what cannot work, and what the executor sets itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from covalent_cirro.aws import batch, container_model
from covalent_cirro.aws.batch import Submission, build_submit
from covalent_cirro.cirro import CirroBatchExecutor
from covalent_cirro.electron.engine.job_definition import build_definition
from covalent_cirro.errors import AwsError, SettingsError
from covalent_cirro.jobs.tags import DEPLOYMENT_TAG, DISPATCH_TAG, ELECTRON_TAG, LATTICE_TAG, NODE_TAG
from covalent_cirro.settings import resolve
from covalent_cirro.settings.declared import MAX_TAGS
from tests.unit.test_definitions_and_batch import refused

EFS = {
    "volumes": [
        {
            "name": "data",
            "efsVolumeConfiguration": {
                "fileSystemId": "fs-0123456789abcdef0",
                "transitEncryption": "ENABLED",
                "authorizationConfig": {"accessPointId": "fsap-0123456789abcdef0", "iam": "ENABLED"},
            },
        }
    ],
    "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}],
}
SCRATCH = {"tmpfs": [{"containerPath": "/tmp", "size": 256}]}


def container(properties: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The properties of the container that a job with these ``job_properties`` has."""
    container_model.require(properties)
    body = build_definition(
        resolve({"job_properties": properties, **options}, {}),
        region="eu-west-1",
        job_role_arn="arn:job",
        execution_role_arn="arn:x",
    )
    assert refused("RegisterJobDefinition", body) == ""
    found: dict[str, Any] = body["containerProperties"]
    return found


@pytest.mark.parametrize(
    "properties",
    [
        {"ulimits": [{"name": "nofile", "softLimit": 65536, "hardLimit": 65536}]},
        {"user": "1000:1000"},
        {"privileged": True},
        {"repositoryCredentials": {"credentialsParameter": "arn:aws:secretsmanager:eu-west-1:1:secret:registry"}},
        {
            "volumes": [{"name": "d", "host": {"sourcePath": "/mnt"}}],
            "mountPoints": [{"sourceVolume": "d", "containerPath": "/d"}],
        },
        EFS,
    ],
)
def test_properties_are_in_the_definition(properties: dict[str, Any]) -> None:
    """As they were given, with all that the executor sets."""
    found, plain = container(properties), container({})
    assert {**found, **properties} == found
    assert {key: found[key] for key in plain} == plain


def test_linux_parameters_are_merged_one_level_down() -> None:
    """The executor's shared memory and init process stay."""
    linux = container({"linuxParameters": SCRATCH}, memory=2)["linuxParameters"]
    assert linux == {"sharedMemorySize": 1024, "initProcessEnabled": True, **SCRATCH}


def test_another_property_is_another_definition() -> None:
    """The digest of the definition has it, so that no electron gets a definition without it."""

    def name(**options: Any) -> str:
        body = build_definition(resolve(options, {}), region="r", job_role_arn="j", execution_role_arn="x")
        return str(body["jobDefinitionName"])

    names = {
        name(),
        name(job_properties={"user": "1"}),
        name(consumable_resources={"license": 2}),
        name(propagate_tags=False),
        name(shared_files="fs-0123456789abcdef0/fsap-0123456789abcdef0"),
    }
    assert len(names) == 5
    assert name(tags={"team": "a"}, share_identifier="a", scheduling_priority=3) == name()


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"ulimit": []}, 'Unknown parameter in input: "ulimit", must be one of: image, vcpus, memory'),
        ({"linuxParameters": {"shm": 1}}, "must be one of: devices, initProcessEnabled, sharedMemorySize"),
        ({"user": 1000}, "Invalid type for parameter user, value: 1000"),
        ({"ulimits": {1, 2}}, "Invalid type for parameter ulimits"),
        ({"ulimits": [{"name": "nofile", "softLimit": "many", "hardLimit": 1}]}, "ulimits[0].softLimit"),
        (
            {
                "volumes": [
                    {"name": "x", "efsVolumeConfiguration": {"fileSystemId": "fs-1", "transitEncryption": "yes"}}
                ]
            },
            "volumes[0].efsVolumeConfiguration.transitEncryption is 'yes', and can be ENABLED, DISABLED",
        ),
        ({"volumes": [{"name": "x", "efsVolumeConfiguration": {}}]}, "Missing required parameter in volumes[0]"),
        ({"ulimits": [{"name": "nofile"}]}, 'Missing required parameter in ulimits[0]: "softLimit"'),
        ({"ulimits": [{"name": "core", "softLimit": 2, "hardLimit": 1}]}, "the soft limit of core, 2, is above"),
        (
            {"linuxParameters": {"tmpfs": [{"containerPath": "tmp", "size": 1}]}},
            "the containerPath 'tmp' does not begin with /",
        ),
        ({"ulimits": [{"name": "files", "softLimit": 1, "hardLimit": 1}]}, "there is no limit 'files'; there are core"),
        ({"ulimits": [{"name": "nofile", "softLimit": -5, "hardLimit": 1}]}, "a limit of nofile is -5, and can be -1"),
        (
            {"ulimits": [{"name": "memlock", "softLimit": -1, "hardLimit": 9}]},
            "the soft limit of memlock, -1, is above",
        ),
        ({"ulimits": 2 * [{"name": "nofile", "softLimit": 1, "hardLimit": 1}]}, "nofile is given twice"),
        (
            {"linuxParameters": {"tmpfs": [{"containerPath": "/t", "size": 0}]}},
            "the size of /t is 0, and can be from 1",
        ),
        (
            {"linuxParameters": {"tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["rw", "nosuch"]}]}},
            "/t has the option 'nosuch'; there are async",
        ),
        ({"linuxParameters": {"tmpfs": 2 * SCRATCH["tmpfs"]}}, "two mount points or tmpfs have the containerPath /tmp"),
        (
            {
                "volumes": [{"name": "v"}],
                "mountPoints": [{"sourceVolume": "v", "containerPath": "/tmp/"}],
                "linuxParameters": SCRATCH,
            },
            "two mount points or tmpfs have the containerPath /tmp",
        ),
        (
            {"volumes": [{"name": "v"}], "mountPoints": [{"sourceVolume": "v", "containerPath": "/"}]},
            "nothing can be mounted at /",
        ),
        ({"linuxParameters": {"maxSwap": -1}}, "maxSwap is -1, and can be from 0"),
        ({"linuxParameters": {"maxSwap": 1, "swappiness": 101}}, "swappiness is 101, and can be 0 to 100"),
        ({"linuxParameters": {"swappiness": 9}}, "swappiness has no effect without maxSwap"),
        ({"mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]}, "sourceVolume 'v'; volumes are: none"),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, "two volumes are called v"),
        ({"readonlyRootFilesystem": True}, "the runner writes into /tmp"),
        (
            {
                "readonlyRootFilesystem": True,
                "linuxParameters": {"tmpfs": [{**SCRATCH["tmpfs"][0], "mountOptions": ["ro"]}]},
            },
            "the runner writes into /tmp",
        ),
        ({"command": ["sh"]}, "and not ['sh'] (leave it out)"),
        ({"vcpus": 4}, "vcpus is None and not 4 (set the option vcpu)"),
        ({"linuxParameters": {"initProcessEnabled": False}}, "initProcessEnabled is True and not False"),
        ({"ephemeralStorage": {"sizeInGiB": 20}}, "is 20, and can be 21 to 200"),
        (
            {"volumes": [{"name": "x", "host": {"sourcePath": "/"}, "efsVolumeConfiguration": {"fileSystemId": "f"}}]},
            "a volume is of one kind",
        ),
        (
            {
                "volumes": [
                    {
                        "name": "x",
                        "efsVolumeConfiguration": {"fileSystemId": "f", "authorizationConfig": {"iam": "ENABLED"}},
                    }
                ]
            },
            'authorizationConfig.iam, which needs transitEncryption "ENABLED"',
        ),
    ],
)
def test_what_cannot_work_is_refused_when_the_executor_is_made(properties: dict[str, Any], words: str) -> None:
    """In the client, before a dispatch; the message says what is possible."""
    with pytest.raises(SettingsError) as caught:
        CirroBatchExecutor(job_properties=properties)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("properties", "option", "words"),
    [
        ({"privileged": True}, {"platform": "FARGATE"}, 'privileged: not possible with platform="FARGATE"'),
        ({"linuxParameters": SCRATCH}, {"platform": "FARGATE"}, "linuxParameters.tmpfs: not possible"),
        ({"ephemeralStorage": {"sizeInGiB": 50}}, {"platform": "EC2"}, 'for platform="FARGATE" only'),
        ({"image": "a"}, {"container_image_uri": "b"}, "image is 'b' and not 'a'"),
        ({"linuxParameters": {"sharedMemorySize": 64}}, {"shared_memory_gb": 1}, "sharedMemorySize is 1024 and not 64"),
        ({"linuxParameters": SCRATCH}, {"memory": 0.125}, "the size of /tmp is 256 MiB, and the job has memory=0.125"),
        (
            {"runtimePlatform": {"cpuArchitecture": "ARM64"}},
            {"platform": "FARGATE", "cpu_architecture": "x86_64"},
            "runtimePlatform.cpuArchitecture is 'X86_64' and not 'ARM64' (set the option cpu_architecture)",
        ),
        (
            {"runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}},
            {"platform": "FARGATE"},
            "operatingSystemFamily is 'LINUX' and not",
        ),
        (
            {"volumes": [{"name": "shared"}]},
            {"shared_files": "fs-0123abcd/fsap-4567abcd"},
            "two volumes are called shared, as that of shared_files is",
        ),
        (
            {"repositoryCredentials": {"credentialsParameter": "arn:s"}},
            {"batch_execution_role_name": ""},
            "repositoryCredentials needs the execution role",
        ),
    ],
)
def test_what_another_option_of_the_call_rules_out_is_refused_when_the_executor_is_made(
    properties: dict[str, Any], option: dict[str, Any], words: str
) -> None:
    """Both are in the same call."""
    with pytest.raises(SettingsError) as caught:
        CirroBatchExecutor(job_properties=properties, **option)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "properties",
    [
        {"ephemeralStorage": {"sizeInGiB": 50}},
        {"linuxParameters": {"sharedMemorySize": 64}},
        {"image": "a"},
        {"linuxParameters": {"tmpfs": [{"containerPath": "/t", "size": 100_000, "mountOptions": ["rw", "mode=1777"]}]}},
        {"mountPoints": [{"sourceVolume": "shared", "containerPath": "/here/too"}]},
        {"ulimits": [{"name": "memlock", "softLimit": -1, "hardLimit": -1}]},
        {"logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "mine"}}},
    ],
)
def test_what_the_servers_config_may_make_possible_is_not_refused_when_the_executor_is_made(
    properties: dict[str, Any],
) -> None:
    """It is checked when the electron is dispatched."""
    CirroBatchExecutor(job_properties=properties)


def test_properties_are_merged_however_deep_they_are() -> None:
    """What is set besides the executor's own stays beside it."""
    options = {"mode": "non-blocking", "max-buffer-size": "4m"}
    found = container({"logConfiguration": {"logDriver": "awslogs", "options": options}})["logConfiguration"]
    assert found["options"].items() > options.items()
    assert found["options"]["awslogs-stream-prefix"] == "cirro"
    fargate = container({"runtimePlatform": {"cpuArchitecture": "X86_64"}}, platform="FARGATE")
    assert fargate["runtimePlatform"] == {"operatingSystemFamily": "LINUX", "cpuArchitecture": "X86_64"}
    limits = [{"name": name, "softLimit": 1, "hardLimit": 2} for name in ("nofile", "nproc")]
    assert container({"ulimits": limits})["ulimits"] == limits


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"image": "other"}, "image is 'mine' and not 'other' (set the option container_image_uri)"),
        ({"command": ["sh"]}, "and not ['sh'] (leave it out)"),
        ({"jobRoleArn": "arn:o"}, "jobRoleArn is 'arn:job' and not 'arn:o' (set the option batch_job_role_name)"),
        ({"executionRoleArn": "arn:o"}, "executionRoleArn is 'arn:x' and not 'arn:o'"),
        ({"vcpus": 4}, "vcpus is None and not 4 (set the option vcpu)"),
        ({"environment": [{"name": "A", "value": "b"}]}, "Set environment={...} on the executor"),
        ({"secrets": [{"name": "A", "valueFrom": "b"}]}, "Set secrets={...} on the executor"),
        ({"resourceRequirements": [{"type": "VCPU", "value": "8"}]}, "(set the option vcpu, memory and num_gpus)"),
        ({"logConfiguration": {"logDriver": "splunk"}}, "(set the option batch_job_log_group_name)"),
        (
            {"logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-region": "eu-north-1"}}},
            "logConfiguration.options.awslogs-region is 'eu-west-1' and not 'eu-north-1'",
        ),
        (
            {"linuxParameters": {"sharedMemorySize": 64}},
            "linuxParameters.sharedMemorySize is 1920 and not 64 (set the option shared_memory_gb)",
        ),
        ({"mountPoints": [{"sourceVolume": "x", "containerPath": "/x"}]}, "sourceVolume 'x'; volumes are: none"),
        ({"volumes": [{"name": "x"}, {"name": "x", "host": {}}]}, "two volumes are called x"),
        ({"readonlyRootFilesystem": True}, "the runner writes into /tmp: add linuxParameters"),
        ({"ephemeralStorage": {"sizeInGiB": 50}}, "for platform=\"FARGATE\" only, and platform is 'EC2'"),
    ],
)
def test_a_conflict_is_refused_with_both_values(properties: dict[str, Any], words: str) -> None:
    """And with the option that sets the property."""
    with pytest.raises(SettingsError) as caught:
        container(properties, container_image_uri="mine")
    assert words in str(caught.value)


def test_the_executors_own_value_is_no_conflict() -> None:
    """Such as in a mapping that was copied from a job definition."""
    own = container({})
    assert (
        container({"image": own["image"], "command": own["command"], "linuxParameters": own["linuxParameters"]}) == own
    )


def test_a_read_only_root_needs_a_place_to_write_to() -> None:
    """A tmpfs or a volume."""
    assert container({"readonlyRootFilesystem": True, "linuxParameters": SCRATCH})["readonlyRootFilesystem"]
    volume = {"volumes": [{"name": "t"}], "mountPoints": [{"sourceVolume": "t", "containerPath": "/tmp"}]}
    assert container({"readonlyRootFilesystem": True, **volume})["mountPoints"] == volume["mountPoints"]


def test_a_private_registry_needs_the_execution_role() -> None:
    """It reads the secret."""
    credentials = {"repositoryCredentials": {"credentialsParameter": "arn:s"}}
    with pytest.raises(SettingsError, match="repositoryCredentials needs the execution role"):
        container(credentials, batch_execution_role_name="")


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"privileged": True}, "privileged"),
        ({"linuxParameters": SCRATCH}, "linuxParameters.tmpfs"),
        ({"volumes": [{"name": "d", "host": {"sourcePath": "/mnt"}}]}, "the host volume d"),
    ],
)
def test_what_fargate_does_not_have_is_refused(properties: dict[str, Any], name: str) -> None:
    """It has neither a host of one's own nor its kernel's settings."""
    with pytest.raises(SettingsError, match=f'{name}: not possible with platform="FARGATE"'):
        container(properties, platform="FARGATE")


def test_shared_files_are_mounted_with_tls_and_the_job_role() -> None:
    """At /shared, besides volumes of one's own."""
    found = container(EFS, shared_files="fs-0123abcd/fsap-4567abcd")
    assert [each["name"] for each in found["volumes"]] == ["shared", "data"]
    assert found["volumes"][0]["efsVolumeConfiguration"] == {
        "fileSystemId": "fs-0123abcd",
        "transitEncryption": "ENABLED",
        "authorizationConfig": {"accessPointId": "fsap-4567abcd", "iam": "ENABLED"},
    }
    assert {"sourceVolume": "shared", "containerPath": "/shared"} in found["mountPoints"]
    assert {"name": "CIRRO_SHARED_FILES", "value": "/shared"} in found["environment"]


def test_botocore_is_imported_only_for_properties() -> None:
    """Most executors have none, and Covalent imports the plugin with each start."""
    program = (
        "import sys, covalent_cirro.electron.engine.job_definition, covalent_cirro.aws.container_model;"
        "assert 'botocore.validate' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- what SubmitJob says ------------------------------------------------------------------------------------------


def test_share_priority_and_tags_are_of_the_job() -> None:
    """They make no definition of their own."""
    submission = Submission(
        "n", "q", "batch_queue", "d:1", {}, 1, 60, {"team": "a"}, share="physics", priority=7, propagate_tags=False
    )
    body = build_submit(submission)
    assert (body["shareIdentifier"], body["schedulingPriorityOverride"]) == ("physics", 7)
    assert (body["tags"], body["propagateTags"]) == ({"team": "a"}, False)
    assert refused("SubmitJob", body) == ""
    assert (
        not {"shareIdentifier", "schedulingPriorityOverride"}
        & build_submit(submission._replace(share="", priority=None)).keys()
    )


@pytest.mark.parametrize(
    "tags",
    [
        {"aws:x": "1"},
        {"covalent:dispatch": "1"},
        {"cirro:made-by": "me"},
        {"covalent-cirro": "mine"},
        {"k" * 129: "v"},
        {"k": "v" * 257},
        {"k": "a,b"},
        {f"k{n}": "v" for n in range(46)},
    ],
)
def test_tags_that_aws_or_the_executor_would_not_have_are_refused(tags: dict[str, str]) -> None:
    """AWS's limits, its prefix, and the tags by which the executor finds and ends its jobs."""
    with pytest.raises(SettingsError, match="a mapping of at most 45 keys to texts"):
        CirroBatchExecutor(tags=tags)


def test_a_job_on_fargate_has_room_for_the_deployments_tag_as_well() -> None:
    """With it and the executor's, a job has as many as AWS takes, and no more."""
    CirroBatchExecutor(tags={f"k{n}": "v" for n in range(MAX_TAGS)})
    ours = {DISPATCH_TAG, LATTICE_TAG, ELECTRON_TAG, NODE_TAG, DEPLOYMENT_TAG}
    assert MAX_TAGS + len(ours) == 50


def test_a_priority_needs_a_share() -> None:
    """It orders the jobs of one share."""
    with pytest.raises(SettingsError, match="has no effect without share_identifier"):
        resolve({"scheduling_priority": 3}, {})
    assert resolve({"scheduling_priority": 3, "share_identifier": "a"}, {}).scheduling_priority == 3


@pytest.mark.parametrize("given", [{"l": 0}, {f"l{n}": 1 for n in range(6)}, {"a license": 1}])
def test_impossible_consumable_resources_are_refused(given: dict[str, int]) -> None:
    """Five of a job at most, each a name and a number."""
    with pytest.raises(SettingsError, match="consumable_resources"):
        CirroBatchExecutor(consumable_resources=given)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("JobQueue q has a scheduling policy: shareIdentifier is required", "Set it to the name of a share"),
        ("JobQueue q has a scheduling policy: shareIdentifier is required", "share_identifier is None"),
        ("Share identifier must not be specified for a FIFO queue", "share_identifier is None"),
        ("Job queue fileshare does not exist", "Check batch_queue"),
        ("ConsumableResource license does not exist", "The option consumable_resources names it"),
    ],
)
def test_awss_words_are_told_with_the_option(words: str, option: str) -> None:
    """A queue whose name has the word in it is a queue all the same."""
    submission = Submission("n", "fileshare", "batch_queue", "d:1", {}, 1, 60, {})
    error = AwsError(words, operation="batch:SubmitJob", code="ClientException")
    found = batch._about_queue(error, submission)
    assert isinstance(found, SettingsError)
    assert option in str(found)
