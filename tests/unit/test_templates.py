"""What holds for each template of ``infra/``, and between them: form, parameters, links, outputs, and their README."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from covalent_cirro import settings
from covalent_cirro.deployment import plans, stacks, templates
from covalent_cirro.serving import service_values
from tests.unit.template_facts import INFRA, PARTS, SERVING, TEMPLATES, Template, walk

FILES = sorted(INFRA.glob("*.yaml"))
EACH = [(part, name) for part in TEMPLATES for name in TEMPLATES[part].parameters]
CHECKOV = shutil.which("checkov")
CHARGED = {
    "AWS::S3::Bucket",
    "AWS::ECR::Repository",
    "AWS::Logs::LogGroup",
    "AWS::EC2::VPCEndpoint",
    "AWS::EC2::LaunchTemplate",
    "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "AWS::ElasticLoadBalancingV2::TargetGroup",
    "AWS::ECS::Cluster",
    "AWS::ECS::TaskDefinition",
    "AWS::ECS::Service",
}
"""Types of which AWS counts hours, bytes or both; instances and disks come from the launch template."""


@pytest.fixture(params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> Template:
    """Each of them."""
    return TEMPLATES[request.param]


# --- form --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_cfn_lint_finds_nothing(path: Path) -> None:
    """Not even what it only mentions (level I)."""
    lint = "import sys; from cfnlint.runner import main; sys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-c", lint, "--include-checks", "I", "--template", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)


@pytest.mark.skipif(CHECKOV is None, reason="checkov is not installed here; it needs an environment of its own")
def test_checkov_finds_nothing() -> None:
    """Nothing but what the templates except, each with its reason."""
    assert CHECKOV is not None
    options = ("--framework", "cloudformation", "--skip-download", "--output", "json")
    ran = subprocess.run(
        [CHECKOV, "--directory", str(INFRA), *options], capture_output=True, text=True, check=False, timeout=120
    )
    told = json.loads(ran.stdout)
    failed = [f"{each['check_id']} {each['resource']}" for each in told["results"]["failed_checks"]]
    assert failed == []
    looked_at = {each["file_path"] for each in told["results"]["passed_checks"]}
    assert looked_at >= {f"/{part}.yaml" for part in TEMPLATES} - {"/budget.yaml"}  # checkov has no rule for a budget


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_exceptions_from_checks_have_reasons(path: Path) -> None:
    """Whoever reads the template reads why."""
    body = templates.load(path.stem)
    for item in walk(body):
        for each in (item.get("checkov") or {}).get("skip", []) if isinstance(item, dict) else []:
            assert re.fullmatch(r"CKV2?_AWS_\d+", each["id"])
            assert len(each["comment"]) > 40


def test_template_can_be_sent_without_a_bucket(template: Template) -> None:
    """CloudFormation takes a larger one from S3 only, where there is no bucket of ours yet."""
    assert len(template.path.read_bytes()) <= templates.MAX_TEMPLATE_BYTES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_yaml_aliases(path: Path) -> None:
    """CloudFormation does not read anchors and aliases, which every other YAML reader does."""
    events = yaml.parse(path.read_text(), Loader=yaml.SafeLoader)
    assert not [event for event in events if getattr(event, "anchor", None)]


def test_sections_come_in_the_order_they_are_read_in(template: Template) -> None:
    """What may be set comes before what is made of it."""
    order = ["Metadata", "Parameters", "Rules", "Mappings", "Conditions", "Resources", "Outputs"]
    found = [key for key in template.body if key in order]
    assert found == [key for key in order if key in template.body]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_description_tells_that_the_stack_is_ours(path: Path) -> None:
    """``stacks.py`` leaves every other stack alone."""
    assert templates.load(path.stem)["Description"].startswith(stacks.OURS)


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "name"), EACH)
def test_parameter_is_described_and_bounded(part: str, name: str) -> None:
    """A value that cannot work is refused before anything is made: by us, or by CloudFormation for ids of EC2."""
    parameter = TEMPLATES[part].parameters[name]
    assert parameter["Description"]
    assert (
        "AllowedValues" in parameter
        or "AllowedPattern" in parameter
        or {"MinValue", "MaxValue"} <= set(parameter)
        or parameter["Type"].startswith(("List<AWS::EC2::", "AWS::EC2::"))
    )
    assert "AllowedPattern" not in parameter or "ConstraintDescription" in parameter


@pytest.mark.parametrize(("part", "name"), [(p, n) for p, n in EACH if "Default" in TEMPLATES[p].parameters[n]])
def test_default_is_within_its_own_bounds(part: str, name: str) -> None:
    """The defaults deploy."""
    parameter = TEMPLATES[part].parameters[name]
    default = parameter["Default"]
    if "AllowedValues" in parameter:
        assert default in parameter["AllowedValues"]
    elif "AllowedPattern" in parameter:
        listed = str(default).split(",") if "List" in parameter["Type"] else [default]
        assert all(re.fullmatch(parameter["AllowedPattern"], item) for item in listed)
    else:
        assert parameter["MinValue"] <= default <= parameter["MaxValue"]


def test_every_parameter_is_in_one_group(template: Template) -> None:
    """The console shows them in groups."""
    groups = template.body["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert [name for group in groups for name in group["Parameters"]] == list(template.parameters)


@pytest.mark.parametrize(
    ("part", "name", "value", "fits"),
    [
        ("compute", "GpuInstanceTypes", "g5", True),
        ("compute", "GpuInstanceTypes", "g4dn.12xlarge", True),
        ("compute", "GpuInstanceTypes", "p5.48xlarge", True),
        ("compute", "GpuInstanceTypes", "p3.2xlarge", False),
        ("compute", "GpuInstanceTypes", "g3", False),
        ("compute", "GpuInstanceTypes", "g4ad", False),
        ("compute", "GpuInstanceTypes", "g5g.xlarge", False),
        ("compute", "GpuInstanceTypes", "m7i", False),
        ("compute", "GpuInstanceTypes", "default_x86_64", False),
        ("compute", "CpuInstanceTypes", "default_x86_64", True),
        ("compute", "CpuInstanceTypes", "m7i.large", True),
        ("compute", "CpuInstanceTypes", "c7i-flex.large", True),
        ("compute", "CpuInstanceTypes", "default_arm64", True),
        ("compute", "CpuInstanceTypes", "M7I", False),
        ("budget", "BudgetEmail", "somebody@example.org", True),
        ("budget", "BudgetEmail", "somebody", False),
        ("budget", "BudgetEmail", "a@example.org,b@example.org", False),
        ("storage", "S3Prefix", "teams/vision", True),
        ("storage", "S3Prefix", "", False),
        ("storage", "S3Prefix", "/cirro", False),
        ("storage", "S3Prefix", "cirro/", False),
        ("storage", "S3Prefix", "a//b", False),
        ("storage", "S3Prefix", "../b", False),
        ("storage", "S3Prefix", "a*", False),
        ("roles", "JobRolePolicyArns", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess", True),
        ("roles", "JobRolePolicyArns", "arn:aws-cn:iam::123456789012:policy/team/data", True),
        ("roles", "JobRolePolicyArns", "AmazonS3ReadOnlyAccess", False),
        ("roles", "SecretArns", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-AbC123", True),
        ("roles", "SecretArns", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/*", True),
        ("roles", "SecretArns", "arn:aws:ssm:eu-west-1:123456789012:parameter/team/db", True),
        ("roles", "SecretArns", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-AbC123:key::", False),
        ("roles", "SecretArns", "ssm:/team/db", False),
        ("roles", "SecretArns", "*", False),
        ("roles", "S3BucketName", "bucket/*", False),
        ("roles", "BatchJobLogGroupName", "group:*", False),
        ("roles", "ImageRepositoryArn", "arn:aws:ecr:us-east-1:123456789012:repository/*", False),
        ("serving", "ServiceName", "shop-2", True),
        ("serving", "ServiceName", "Shop", False),
        ("serving", "Image", "recommender", True),
        ("serving", "Image", "123456789012.dkr.ecr.us-east-1.amazonaws.com/a/b:v1@sha256:" + "0" * 64, True),
        ("serving", "Image", "a image", False),
        ("serving", "Model", "", True),
        ("serving", "Model", "recommender/20261130T081500Z-0a1b2c3d", True),
        ("serving", "Model", "recommender/latest", False),
        ("serving", "Model", "../20261130T081500Z-0a1b2c3d", False),
        ("serving", "Model", "a*/20261130T081500Z-0a1b2c3d", False),
        ("serving", "HealthPath", "/ready", True),
        ("serving", "HealthPath", "ready", False),
        ("serving", "HealthPath", "/a b", False),
        ("serving", "AllowFrom", "", True),
        ("serving", "AllowFrom", "0.0.0.0/0", True),
        ("serving", "AllowFrom", "203.0.113.7/32", True),
        ("serving", "AllowFrom", "203.0.113.0/24,198.51.100.7/32,10.0.0.0/8", True),
        ("serving", "AllowFrom", "203.0.113.0/24,0.0.0.0/0", False),
        ("serving", "AllowFrom", "0.0.0.0/1,128.0.0.0/1", False),
        ("serving", "AllowFrom", "203.0.113.7", False),
        ("serving", "AllowFrom", "203.0.113.0/24, 198.51.100.7/32", False),
        ("serving", "CertificateArn", "arn:aws:acm:eu-west-1:123456789012:certificate/0a-1b", True),
        ("serving", "CertificateArn", "arn:aws:iam::123456789012:server-certificate/a", False),
        ("serving", "WebAclArn", "arn:aws:wafv2:eu-west-1:123456789012:regional/webacl/a/0a-1b", True),
        ("serving", "WebAclArn", "arn:aws:wafv2:us-east-1:123456789012:global/webacl/a/0a-1b", False),
        ("serving", "Command", "python", True),
        ("serving", "Command", "--port=8000", True),
        ("serving", "Command", "caf\u00e9", False),
        ("network", "ExistingVpcId", "vpc-0123456789abcdef0", True),
        ("network", "ExistingVpcId", "subnet-0123456789abcdef0", False),
        ("network", "ExistingSubnetIds", "subnet-0123456789abcdef0,subnet-01234567", True),
        ("network", "ExistingSubnetIds", "subnet-0123456789abcdef0,", False),
        ("network", "ExistingRouteTableIds", "rtb-0123456789abcdef0", True),
        ("network", "ExistingRouteTableIds", "vpc-0123456789abcdef0", False),
        ("network", "DeploymentName", "team-a", True),
        ("network", "DeploymentName", "team_a", False),
        ("network", "DeploymentName", "-a", False),
    ],
)
def test_parameter_takes_what_works_and_refuses_what_does_not(part: str, name: str, value: str, fits: bool) -> None:
    """GPU families without the AL2023 NVIDIA image (p3, g3), other GPUs, ARM, unsafe prefixes, ARNs with a star."""
    pattern = TEMPLATES[part].parameters[name]["AllowedPattern"]
    assert (re.fullmatch(pattern, value) is not None) is fits


# --- links -------------------------------------------------------------------------------------------------------


def test_the_parts_are_those_that_are_deployed() -> None:
    """And in that order; a service is no part of a deployment."""
    assert plans.STACKS == PARTS
    assert SERVING not in PARTS


def test_a_service_stands_on_the_outputs_of_a_deployment() -> None:
    """What has no default is the output of a stack, by the same name, or says what is served."""
    given = {name for name, parameter in TEMPLATES[SERVING].parameters.items() if "Default" not in parameter}
    outputs = {name for part in PARTS for name in TEMPLATES[part].outputs}
    assert given - outputs == {"ServiceName", "Image"}
    # What a service is built for has nothing to do with the machines of electrons.
    linked = {*service_values.LINKED, service_values.REPOSITORY, "CpuArchitecture"}
    assert linked == {name for name in TEMPLATES[SERVING].parameters if name in outputs}


def test_every_parameter_is_the_users_or_an_earlier_stacks() -> None:
    """One without a default is the output of an earlier stack, by the same name: nobody has to give any by hand."""
    before: set[str] = set()
    for part in PARTS:
        for name, parameter in TEMPLATES[part].parameters.items():
            assert "Default" in parameter or name in before, f"{part}: {name}"
        before |= set(TEMPLATES[part].outputs)


def test_a_name_means_the_same_everywhere() -> None:
    """Parameters of all templates are one list to the user: one of the same name takes the same values."""
    seen: dict[str, dict[str, object]] = {}
    for part, template in TEMPLATES.items():
        for name, parameter in template.parameters.items():
            known = seen.setdefault(name, parameter)
            # What it is for is said from where one stands.
            assert {**known, "Description": ""} == {**parameter, "Description": ""}, f"{part}: {name}"


def test_an_output_has_one_template() -> None:
    """What feeds a setting or a parameter is said once."""
    names = [name for part in PARTS for name in TEMPLATES[part].outputs]
    assert len(names) == len(set(names))


def test_stacks_are_linked_by_parameters_alone() -> None:
    """An export could not change while another stack uses it."""
    text = "".join(template.path.read_text() for template in TEMPLATES.values())
    assert "Export:" not in text
    assert "ImportValue" not in text
    assert "AWS::CloudFormation::Stack" not in text


def test_what_costs_bears_the_deployments_tag() -> None:
    """Whoever deploys by hand and forgets the stack's tag has it all the same."""
    tag = {"Key": "covalent-cirro", "Value": {"Ref": "DeploymentName"}}
    charged = [
        (part, name)
        for part in TEMPLATES
        for name, each in TEMPLATES[part].resources.items()
        if each["Type"] in CHARGED
    ]
    assert {TEMPLATES[part].resources[name]["Type"] for part, name in charged} == CHARGED
    for part, name in charged:
        properties = TEMPLATES[part].properties(name)
        if properties.get("VpcEndpointType") == "Gateway":
            continue  # free
        specifications = properties.get("LaunchTemplateData", {}).get("TagSpecifications", [properties])
        assert all(tag in each["Tags"] for each in specifications), name


# --- outputs -----------------------------------------------------------------------------------------------------


def test_outputs_are_settings_or_listed() -> None:
    """In both directions: no output without a use, no setting without its output."""
    fed = {stacks.output_key(setting) for setting in (*stacks.SETTINGS, *stacks.OPTIONAL_SETTINGS)}
    assert {name for part in PARTS for name in TEMPLATES[part].outputs} == fed | stacks.NOT_SETTINGS
    assert not fed & stacks.NOT_SETTINGS


def test_settings_that_outputs_feed_are_the_executors() -> None:
    """Each under the very name that the executor's option has."""
    outputs = {name: each for part in PARTS for name, each in TEMPLATES[part].outputs.items()}
    for setting in (*stacks.SETTINGS, *stacks.OPTIONAL_SETTINGS):
        assert setting in settings.BY_NAME
        assert outputs[stacks.output_key(setting)]["Description"].startswith(f"Setting {setting}. ")


def test_only_optional_outputs_are_conditional() -> None:
    """A deployment of any parameters gives all settings that an executor cannot do without."""
    outputs = {name: each for part in PARTS for name, each in TEMPLATES[part].outputs.items()}
    for setting in stacks.SETTINGS:
        assert "Condition" not in outputs[stacks.output_key(setting)]


def test_outputs_are_values_that_the_settings_take() -> None:
    """The default prefix is one the executor takes too."""
    assert settings.problem("s3_prefix", TEMPLATES["storage"].defaults["S3Prefix"]) is None
    assert TEMPLATES["storage"].outputs["S3Prefix"]["Value"] == {"Ref": "S3Prefix"}


# --- README ------------------------------------------------------------------------------------------------------


def section(part: str) -> str:
    """What the README says of a template."""
    return (INFRA / "README.md").read_text().split(f"## `{part}.yaml`\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("part", TEMPLATES)
def test_readme_has_every_parameter_and_output_once(part: str) -> None:
    """Its tables are the template's, in its order."""
    rows = re.findall(r"^\| `(\w+)` \|", section(part), flags=re.MULTILINE)
    template = TEMPLATES[part]
    common = [name for name in template.parameters if name != "DeploymentName"]
    assert rows == [*common, *template.outputs]


@pytest.mark.parametrize("part", TEMPLATES)
def test_readme_has_the_defaults(part: str) -> None:
    """A changed default is changed there too; what comes from another stack says from which."""
    for name in TEMPLATES[part].parameters:
        if name == "DeploymentName" or (part, name) == (SERVING, "CpuArchitecture"):
            continue
        row = re.findall(rf"^\| `{name}` \| (.*?) \|", section(part), flags=re.MULTILINE)[0]
        source = next((each for each in PARTS if name in TEMPLATES[each].outputs and each != part), None)
        default = TEMPLATES[part].defaults.get(name, "")
        assert row == (f"from {source}" if source else f"`{default}`" if default != "" else "none"), name
