"""moto's internals: which version they are of, and that each name that is replaced exists and stays replaced."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from covalent_cirro.errors import EmulatorError
from covalent_cirro.local.emulator.moto_internals import WRITTEN_FOR, loading, require_version

ROOT = Path(__file__).parents[2]

INSTALL_ALL = """
from covalent_cirro.local.emulator.moto_internals import loading
from covalent_cirro.local.emulator.moto_internals import (
    moto_cloudformation, moto_cloudwatch, moto_ec2, moto_ecr, moto_elb, moto_events, moto_iam, moto_logs, moto_s3,
    moto_target_tracking,
)
modules = (
    moto_cloudformation, moto_cloudwatch, moto_ec2, moto_ecr, moto_elb, moto_events, moto_iam, moto_logs, moto_s3,
    moto_target_tracking,
)
for each in (*modules, *modules):
    each.install()
print(*loading.replaced, sep="\\n")
"""

REPLACED = """
moto.applicationautoscaling.models.ApplicationAutoscalingBackend._ecs_service_exists_for_target
moto.applicationautoscaling.models.ApplicationAutoscalingBackend.register_scalable_target
moto.cloudformation.models.CloudFormationBackend.delete_stack
moto.cloudformation.models.CloudFormationBackend.update_stack
moto.cloudformation.models.Stack.create_resources
moto.cloudformation.models.Stack.delete
moto.cloudformation.models.Stack.exports
moto.cloudformation.models.Stack.outputs
moto.cloudformation.models.Stack.parameter_list
moto.cloudformation.models.Stack.parse_template
moto.cloudformation.parsing.ResourceMap.__getitem__
moto.cloudformation.parsing.ResourceMap.__init__
moto.cloudformation.parsing.ResourceMap.load_conditions
moto.cloudformation.parsing.ResourceMap.load_parameters
moto.cloudformation.parsing.ResourceMap.resources
moto.cloudformation.parsing.clean_json
moto.cloudformation.parsing.resource_class_from_type
moto.cloudformation.parsing.resource_name_property_from_type
moto.cloudformation.responses.CloudFormationResponse.RESPONSE_KEY_PATH_TO_TRANSFORMER
moto.cloudformation.responses.CloudFormationResponse.create_change_set
moto.cloudformation.responses.CloudFormationResponse.create_stack
moto.cloudformation.responses.CloudFormationResponse.delete_change_set
moto.cloudformation.responses.CloudFormationResponse.describe_change_set
moto.cloudformation.responses.CloudFormationResponse.execute_change_set
moto.cloudwatch.models.Dimension.__lt__
moto.cloudwatch.models.Statistics.get_statistics_for_type
moto.ec2.models.instance_types.InstanceTypeBackend.describe_instance_types
moto.ec2.models.instance_types.InstanceTypeOfferingBackend.describe_instance_type_offerings
moto.ecr.models.ECRBackend.delete_repository
moto.ecr.models.Repository._get_image
moto.ecr.models.Repository.images
moto.ecr.models.Repository.uri
moto.ecr.responses.ECRResponse.batch_check_layer_availability
moto.ecr.responses.ECRResponse.batch_delete_image
moto.ecr.responses.ECRResponse.batch_get_image
moto.ecr.responses.ECRResponse.complete_layer_upload
moto.ecr.responses.ECRResponse.describe_images
moto.ecr.responses.ECRResponse.get_authorization_token
moto.ecr.responses.ECRResponse.get_download_url_for_layer
moto.ecr.responses.ECRResponse.initiate_layer_upload
moto.ecr.responses.ECRResponse.list_images
moto.ecr.responses.ECRResponse.put_image
moto.ecr.responses.ECRResponse.upload_layer_part
moto.elbv2.models.ELBv2Backend.create_load_balancer
moto.elbv2.models.ELBv2Backend.create_rule
moto.elbv2.models.ELBv2Backend.delete_load_balancer
moto.elbv2.models.ELBv2Backend.delete_target_group
moto.elbv2.models.ELBv2Backend.deregister_targets
moto.elbv2.models.ELBv2Backend.describe_target_health
moto.elbv2.models.ELBv2Backend.register_targets
moto.events.utils.EventTemplateParser.parse
moto.iam.policy_validation.BaseIAMPolicyValidator._validate_version
moto.logs.models.LogGroup.get_cfn_attribute
moto.s3.models.FakeBucket.get_permission
moto.s3.models.FakeKey.value
moto.s3.models.S3Backend.complete_multipart_upload
"""
"""All that the emulator replaces in moto: what is to be looked at when moto's version changes."""


def test_each_replacement_is_known_and_made_once() -> None:
    """In a process of its own: what is replaced in moto stays so as long as its process lives."""
    done = subprocess.run([sys.executable, "-c", INSTALL_ALL], capture_output=True, text=True, check=True, cwd=ROOT)
    assert sorted(done.stdout.split()) == REPLACED.split()


def test_the_requirement_is_the_version_that_was_tested() -> None:
    """``setup.cfg`` takes no other minor version, and the pinned one is of it."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (requirement,) = re.findall(r"^moto\S*\](\S+)$", setup["options.extras_require"]["emulator"], re.MULTILINE)
    major, minor = map(int, WRITTEN_FOR.split("."))
    assert re.fullmatch(rf">={major}\.{minor}\.\d+,<{major}\.{minor + 1}", requirement)
    (pinned,) = re.findall(r"^moto==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    require_version(pinned)


@pytest.mark.parametrize("installed", ["5.1.9", "5.3.0", "6.0.0", "5.20.1", None])
def test_another_version_of_moto_is_refused(installed: str | None) -> None:
    """With the version that is installed, and the command that installs the right one."""
    with pytest.raises(EmulatorError) as refused:
        require_version(installed)
    text = str(refused.value)
    assert ("moto is not installed" if installed is None else f"moto {installed} is installed") in text
    assert f"pip install 'moto[cloudformation,server]=={WRITTEN_FOR}.*'" in text


@pytest.mark.parametrize("installed", ["5.2", "5.2.0", "5.2.5", "5.2.6.dev1"])
def test_each_patch_of_that_version_is_taken(installed: str) -> None:
    """A patch version changes no internals that are known to matter."""
    require_version(installed)


def test_the_emulator_does_not_start_with_another_version(tmp_path: Path) -> None:
    """The message is all that the program says: no traceback."""
    (tmp_path / "moto-6.0.0.dist-info").mkdir()
    (tmp_path / "moto-6.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: moto\nVersion: 6.0.0\n")
    folder = str(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {folder!r}); sys.argv = ['emulator', '--state-dir', {folder!r}]\n"
        "import runpy; runpy.run_module('covalent_cirro.emulator', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("the emulated AWS cannot start: moto 6.0.0 is installed")
    assert len(done.stderr.splitlines()) == 1


def test_a_name_that_moto_lacks_is_not_replaced() -> None:
    """It would be added without effect, and what was meant to be replaced would go on."""

    class Backend:
        def __init__(self) -> None:
            self.images: list[str] = []

    with pytest.raises(EmulatorError, match=r"cannot replace .*Backend\.repositories: the installed moto has no such"):
        loading.replace(Backend, "repositories", property(lambda self: []))
    before = list(loading.replaced)
    loading.replace(Backend, "images", property(lambda self: ["of the emulator"], lambda self, value: None))
    del loading.replaced[len(before) :]
    assert Backend().images == ["of the emulator"]
