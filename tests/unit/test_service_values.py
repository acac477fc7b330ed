"""A service's parameters: what they come to, what is refused before anything is paid for, and what it costs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from covalent_cirro.aws import serving_prices
from covalent_cirro.deployment.change_sets import Change
from covalent_cirro.deployment.doctor.verdicts.network import Subnet
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import SettingsError
from covalent_cirro.serving import service_costs, service_values
from covalent_cirro.serving.service_costs import ServiceSize
from covalent_cirro.serving.service_values import ServedImage, ServiceFacts, problems, values

PUBLIC = tuple(Subnet(f"subnet-0000000{each}", f"us-east-1{each}", True, "igw-1", frozenset()) for each in "ab")
PRIVATE = tuple(
    Subnet(f"subnet-0000000{each}", f"us-east-1{each}", False, None, frozenset({"ecr.api", "ecr.dkr", "logs", "s3"}))
    for each in "ab"
)
REPOSITORY = "arn:aws:ecr:us-east-1:123456789012:repository/cirro-storage-imagerepository-1"
OUTPUTS = {
    "VpcId": "vpc-0123456789abcdef0",
    "SubnetIds": "subnet-0000000a,subnet-0000000b",
    "SecurityGroupIds": "sg-0123456789abcdef0",
    "S3BucketName": "cirro-storage-bucket-1",
    "S3Prefix": "cirro",
    "ImageRepositoryArn": REPOSITORY,
}
IMAGE = ServedImage(f"123456789012.dkr.ecr.us-east-1.amazonaws.com/a@sha256:{'0' * 64}", REPOSITORY, ("amd64",))
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/0a-1b"
CHOSEN = {"AllowFrom": "203.0.113.0/24"}
FIRST, SECOND = "films/20261129T081500Z-0a1b2c3d", "films/20261130T081500Z-0a1b2c3d"


def facts(**given: Any) -> ServiceFacts:
    """Facts of a deployment that is well."""
    return ServiceFacts(**{"region": "us-east-1", "emulated": False, "subnets": PUBLIC, "image": IMAGE, **given})


def wanted(stack: Stack | None = None, found: ServiceFacts | None = None, **chosen: str) -> dict[str, str]:
    """The parameters of a service."""
    return values("cirro", "films", {**CHOSEN, **chosen}, OUTPUTS, stack, found or facts())


def stack_of(parameters: dict[str, str]) -> Stack:
    """A service's stack that is there."""
    return Stack("cirro-serving-films", "arn", "CREATE_COMPLETE", "", "covalent-cirro", parameters, {}, {})


def refusal(found: ServiceFacts | None = None, **chosen: str) -> str:
    """What is wrong with a service, as one text."""
    return ". ".join(problems(wanted(None, found, **chosen), found or facts()))


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("recommender", "recommender"),
        ("Movie_Recs.v2", "movie-recs-v2"),
        ("7films", "model-7films"),
        ("a" * 40, "a" * 32),
    ],
)
def test_a_service_is_called_like_its_model(model: str, name: str) -> None:
    """As far as a service can be called so."""
    assert service_values.name_for_model(model) == name


@pytest.mark.parametrize(
    ("stack", "name"),
    [
        ("cirro-serving-films", "films"),
        ("cirro-storage", None),
        ("cirro-serving-", None),
        ("other-serving-films", None),
    ],
)
def test_a_stack_names_its_service(stack: str, name: str | None) -> None:
    """Other stacks name none."""
    assert service_values.service_name("cirro", stack) == name


# --- values ------------------------------------------------------------------------------------------------------


def test_a_first_service_is_well() -> None:
    """With an image and the addresses that may reach it, nothing else has to be said."""
    found = wanted()
    assert problems(found, facts()) == []
    assert found["VpcId"] == OUTPUTS["VpcId"]
    assert (found["Image"], found["ImageRepositoryArn"]) == (IMAGE.uri, REPOSITORY)
    assert (found["MinTasks"], found["PreviousImage"]) == ("2", "")


@pytest.mark.parametrize(("subnets", "public"), [(PUBLIC, "ENABLED"), (PRIVATE, "DISABLED")])
def test_the_network_decides_about_public_addresses(subnets: tuple[Subnet, ...], public: str) -> None:
    """Of tasks, and of the load balancer."""
    found = facts(subnets=subnets)
    assert wanted(None, found)["AssignPublicIp"] == public
    assert refusal(found) == ""


def test_what_is_not_chosen_keeps_its_value() -> None:
    """And the deployment's outputs are read anew."""
    before = wanted(MaxTasks="9", Model=FIRST)
    again = values("cirro", "films", {}, {**OUTPUTS, "S3Prefix": "teams/a"}, stack_of(before), facts(image=None))
    assert again == {**before, "S3Prefix": "teams/a"}


def test_what_was_served_before_is_remembered() -> None:
    """Where model or image change; a rollback then is a change to it, and remembers in turn."""
    first = wanted(Model=FIRST)
    second = values("cirro", "films", {"Model": SECOND}, OUTPUTS, stack_of(first), facts(image=None))
    assert (second["Model"], second["PreviousModel"], second["PreviousImage"]) == (SECOND, FIRST, IMAGE.uri)
    wider = values("cirro", "films", {"MaxTasks": "9"}, OUTPUTS, stack_of(second), facts(image=None))
    assert (wider["Model"], wider["PreviousModel"]) == (SECOND, FIRST)
    back = values("cirro", "films", {"Model": FIRST}, OUTPUTS, stack_of(wider), facts(image=IMAGE))
    assert (back["Model"], back["PreviousModel"]) == (FIRST, SECOND)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Image", "a", "but by --image"),
        ("Model", FIRST, "but by --model"),
        ("VpcId", "vpc-1", "whose output it is"),
        ("MinTask", "3", "there is no parameter 'MinTask'; there are Command, "),
        ("MinTasks", "0", "MinTasks=0 is impossible: 1 to 100"),
        ("AllowFrom", "anywhere", "AllowFrom=anywhere is impossible"),
    ],
)
def test_a_parameter_that_cannot_be_given_is_refused(name: str, value: str, words: str) -> None:
    """With what would be possible."""
    with pytest.raises(SettingsError, match=words):
        service_values.check_given({name: value})


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allow_from", "words"), [("", "which anybody on the way reads"), ("0.0.0.0/0", "lets in the whole internet")]
)
def test_http_alone_needs_named_addresses(allow_from: str, words: str) -> None:
    """With a certificate it does not."""
    assert words in refusal(AllowFrom=allow_from)
    assert refusal(AllowFrom=allow_from, CertificateArn=CERTIFICATE) == ""


def test_a_certificate_that_cannot_be_used_is_refused() -> None:
    """In the words of who looked at it."""
    found = facts(certificate_problem="the certificate is in eu-west-1")
    assert refusal(found, CertificateArn=CERTIFICATE) == "the certificate is in eu-west-1"


def test_an_image_that_tasks_cannot_pull_is_refused() -> None:
    """In the words of who looked at it."""
    assert "not in ECR" in refusal(facts(image=ServedImage("a", "", problem="the image a is not in ECR")))


@pytest.mark.parametrize(
    ("there", "cpu", "words"),
    [
        (("arm64",), "x86_64", "is for arm64, and tasks run on amd64.*CpuArchitecture=arm64"),
        (("amd64",), "arm64", "is for amd64, and tasks run on arm64.*CpuArchitecture=x86_64"),
        (("s390x",), "x86_64", "is for s390x, and tasks run on amd64.*push it$"),
        (("amd64", "arm64"), "arm64", ""),
        ((), "arm64", ""),
    ],
)
def test_an_image_of_another_architecture_is_refused(there: tuple[str, ...], cpu: str, words: str) -> None:
    """One that is not known is not."""
    said = refusal(facts(image=IMAGE._replace(architectures=there)), CpuArchitecture=cpu)
    assert bool(said) == bool(words)
    assert re.search(words, said)


def test_one_zone_is_refused() -> None:
    """A load balancer needs two."""
    same = tuple(each._replace(zone="us-east-1a") for each in PUBLIC)
    assert "are in 1 zone (us-east-1a), and a load balancer needs two" in refusal(facts(subnets=same))


def test_subnets_that_are_gone_are_refused() -> None:
    """By their ids."""
    assert "subnets subnet-0000000b do not exist any more" in refusal(facts(subnets=PUBLIC[:1]))


@pytest.mark.parametrize(
    ("subnet", "public", "why"),
    [
        (PUBLIC[0], True, None),
        (PUBLIC[0]._replace(way_out="nat-1"), True, "no route to an internet gateway"),
        (PUBLIC[0], False, "no way out without public addresses"),
        (PUBLIC[0]._replace(way_out="nat-1"), False, None),
        (PUBLIC[0]._replace(way_out="blackhole"), False, "a gateway that is gone"),
        (PRIVATE[0], False, None),
        (PRIVATE[0]._replace(endpoints=frozenset({"ecr.api", "s3"})), False, "nor an endpoint of ecr.dkr, logs"),
    ],
)
def test_tasks_that_cannot_pull_their_image_are_refused(subnet: Subnet, public: bool, why: str | None) -> None:
    """Before ECS tries it for an hour."""
    said = service_values.why_cut_off(subnet, public=public)
    assert said == why if why is None else why in str(said)


@pytest.mark.parametrize(
    ("cpu", "memory", "words"),
    [
        ("256", "1024", ""),
        ("256", "4096", "512, 1024, 2048 MiB"),
        ("512", "512", "1024, 2048, 3072, 4096 MiB"),
        ("8192", "16384", ""),
        ("8192", "17408", "16384 to 61440 in steps of 4096 MiB"),
        ("16384", "122880", ""),
    ],
)
def test_a_size_that_fargate_lacks_is_refused(cpu: str, memory: str, words: str) -> None:
    """With those that it has."""
    said = refusal(TaskCpu=cpu, TaskMemory=memory)
    assert words in said
    assert bool(said) == bool(words)


def test_more_tasks_at_least_than_at_most_are_refused() -> None:
    """CloudFormation would notice when all else is made."""
    assert refusal(MinTasks="5", MaxTasks="4") == "MinTasks=5 is more than MaxTasks=4: give a MaxTasks of at least 5"


def test_a_name_that_makes_a_stack_too_long_is_refused() -> None:
    """CloudFormation takes 128 characters."""
    found = values("d" * 100, "s" * 32, CHOSEN, OUTPUTS, None, facts())
    assert any("longer than 128 characters" in each for each in problems(found, facts()))


def test_an_incomplete_deployment_is_refused() -> None:
    """By what it does not say."""
    lacking = {key: value for key, value in OUTPUTS.items() if key != "S3BucketName"}
    found = values("cirro", "films", CHOSEN, {**lacking, "VpcId": ""}, None, facts())
    assert "the deployment does not say VpcId, S3BucketName" in ". ".join(problems(found, facts()))


# --- the plan ----------------------------------------------------------------------------------------------------


def test_a_plan_shows_what_is_chosen() -> None:
    """Of a new stack what differs from the default, of an old one what changes."""
    new = service_values.plan(wanted(MaxTasks="9"), None, [Change("Add", "Service", "AWS::ECS::Service")], anew=False)
    assert (new.action, new.stack_name) == ("create", "cirro-serving-films")
    assert ("MaxTasks", "4", "9") in new.parameters
    assert "MinTasks" not in {name for name, _, _ in new.parameters}
    before = stack_of(wanted(Model=FIRST))
    after = values("cirro", "films", {"Model": SECOND}, OUTPUTS, before, facts(image=None))
    changed = service_values.plan(after, before, [], anew=False).parameters
    assert changed == (
        ("Model", FIRST, SECOND),
        ("PreviousImage", "", IMAGE.uri),
        ("PreviousModel", "", FIRST),
    )


# --- costs -------------------------------------------------------------------------------------------------------

SMALL = ServiceSize(cpu_units=512, memory_mib=1024, arm=False, public=True, zones=2)


def test_what_a_service_costs() -> None:
    """Two tasks of half a vCPU and 1 GB, a load balancer, and an address for each task and zone."""
    usd = serving_prices.shipped().usd
    parts = service_costs.lines(SMALL, 2, usd)
    assert [round(part.usd_per_hour, 6) for part in parts] == [
        round(2 * (0.5 * 0.04048 + 0.004445), 6),
        0.0225,
        4 * 0.005,
    ]
    assert parts[0].what == "2 tasks of 0.5 vCPU and 1 GB"
    total = service_costs.total(parts)
    assert round(total.usd_per_day, 2) == 2.2
    assert round(total.usd_per_month, 1) == 67.1


def test_private_services_have_no_public_addresses() -> None:
    """And ARM is cheaper."""
    usd = serving_prices.shipped().usd
    public, private = (
        service_costs.total(service_costs.lines(each, 2, usd)) for each in (SMALL, SMALL._replace(public=False))
    )
    assert round(public.usd_per_hour - private.usd_per_hour, 6) == 0.02
    arm = service_costs.total(service_costs.lines(SMALL._replace(arm=True), 2, usd))
    assert arm.usd_per_hour < public.usd_per_hour


def test_prices_say_where_they_come_from() -> None:
    """Region, day and source; all above zero."""
    table = serving_prices.shipped()
    assert (table.region, len(table.date)) == ("us-east-1", 10)
    assert "AmazonECS" in table.source
    assert all(price > 0 for price in table.usd.values())
