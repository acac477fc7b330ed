"""What facts mean: the decisions of ``cirro doctor``, each at its edges."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.deployment.doctor.verdicts import (
    caller,
    data,
    job_image,
    network,
    nodes,
    quotas,
    roles,
    server,
    shared_file_system,
    stack_states,
)
from covalent_cirro.deployment.doctor.verdicts.caller import Caller
from covalent_cirro.deployment.doctor.verdicts.network import ENDPOINTS, Subnet
from covalent_cirro.deployment.doctor.verdicts.server import InstalledVersions, Server
from covalent_cirro.deployment.doctor.verdicts.stack_states import StackState
from covalent_cirro.jobs import machines, queues
from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.jobs.image_rules import ImageFacts, Pickled
from covalent_cirro.jobs.machines import InstanceType, Need
from covalent_cirro.jobs.queues import Environment, Queue

WHERE = Where("cirro", "eu-west-1", None)
PROFILED = Where("mine", "eu-west-1", "work")


# --- commands ---------------------------------------------------------------------------------------------------------


def test_commands_name_deployment_region_and_profile() -> None:
    """A remedy that is pasted means the deployment that was looked at."""
    assert WHERE.cirro("deploy") == "cirro deploy --stack-name cirro --region eu-west-1"
    assert PROFILED.cirro("deploy") == "cirro deploy --stack-name mine --region eu-west-1 --profile work"
    assert PROFILED.aws("s3 ls") == "aws s3 ls --region eu-west-1 --profile work"


# --- account ----------------------------------------------------------------------------------------------------------


def identity(**changes: Any) -> Caller:
    """A user with a key."""
    return Caller("123456789012", "arn:aws:iam::123456789012:user/a", "env", None, 0.0)._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, OK),
        ({"expires_in_s": 3600.0, "method": "sso"}, OK),
        ({"expires_in_s": 3599.0, "method": "sso"}, WARNING),
        ({"expires_in_s": 600.0, "method": "iam-role"}, OK),  # these renew themselves
        ({"arn": "arn:aws:iam::123456789012:root"}, WARNING),
    ],
)
def test_credentials(changes: dict[str, Any], level: str) -> None:
    """Those that somebody must renew are a warning in their last hour, and so is the root user."""
    found = caller.credentials(identity(**changes), PROFILED)
    assert found.level == level
    assert "123456789012" in found.seen
    assert (found.remedy == "") == (level == OK)


def test_the_remedy_for_sso_names_the_profile() -> None:
    """`aws sso login` alone would renew another session."""
    found = caller.credentials(identity(method="sso", expires_in_s=60.0), PROFILED)
    assert "aws sso login --profile work" in found.remedy


@pytest.mark.parametrize(
    ("ahead_s", "level"),
    [(0.4, OK), (-59.0, OK), (60.0, WARNING), (-299.0, WARNING), (300.0, FAILURE), (-4000.0, FAILURE), (None, WARNING)],
)
def test_clock(ahead_s: float | None, level: str) -> None:
    """From a minute a warning, from five minutes a failure, either way."""
    assert caller.clock(ahead_s).level == level


# --- stacks and config ------------------------------------------------------------------------------------------------


def states(*statuses: str) -> list[StackState]:
    """The stacks of a deployment, in their order."""
    parts = ("network", "storage", "roles", "compute")
    return [StackState(part, f"cirro-{part}", status, "", "") for part, status in zip(parts, statuses, strict=True)]


@pytest.mark.parametrize(
    ("statuses", "level", "words"),
    [
        (("CREATE_COMPLETE",) * 4, OK, "cirro-compute CREATE_COMPLETE"),
        (("UPDATE_ROLLBACK_COMPLETE",) * 4, OK, "cirro-roles"),
        (("",) * 4, FAILURE, "nothing is deployed"),
        (("CREATE_COMPLETE", "CREATE_COMPLETE", "", ""), FAILURE, "missing: cirro-roles, cirro-compute"),
        (("CREATE_COMPLETE",) * 3 + ("ROLLBACK_COMPLETE",), FAILURE, "cirro-compute is ROLLBACK_COMPLETE"),
        (("CREATE_COMPLETE",) * 3 + ("DELETE_FAILED",), FAILURE, "DELETE_FAILED"),
        (("CREATE_COMPLETE",) * 3 + ("UPDATE_IN_PROGRESS",), WARNING, "UPDATE_IN_PROGRESS"),
    ],
)
def test_stacks(statuses: tuple[str, ...], level: str, words: str) -> None:
    """All four must be there and whole; one that changes just now may become so."""
    found = stack_states.stacks(states(*statuses), WHERE)
    assert found.level == level
    assert words in found.seen


def test_the_config_may_have_more_than_the_deployment_gives() -> None:
    """What only the user set is no drift."""
    assert stack_states.drift({"s3_prefix": "mine", "vcpu": 8}, {"s3_prefix": "mine"}, WHERE).level == OK


def test_a_default_in_the_config_is_not_the_users() -> None:
    """Older versions and the stock plugin pin their defaults in the file; a deploy replaces them."""
    found = stack_states.drift({"batch_queue": "covalent-batch-queue"}, {"batch_queue": "cirro-cpu"}, WHERE)
    assert (found.level, "batch_queue" in found.seen) == (FAILURE, True)


def test_a_default_that_the_deployment_gives_too_is_there() -> None:
    """`s3_prefix` is "cirro" by default, and in a deployment with defaults."""
    assert stack_states.drift({}, {"s3_prefix": "cirro"}, WHERE).level == FAILURE
    assert stack_states.drift({"s3_prefix": "cirro"}, {"s3_prefix": "cirro"}, WHERE).level == OK


# --- queues -----------------------------------------------------------------------------------------------------------


def environment(**changes: Any) -> Environment:
    """A compute environment that is well."""
    return Environment(
        "cpu", "arn:cpu", "ENABLED", "VALID", "Healthy", "SPOT", 0, 16, ("m6i",), ("subnet-1",), "profile", "cluster"
    )._replace(**changes)


@pytest.mark.parametrize(
    ("state", "status", "level"),
    [
        ("ENABLED", "VALID", OK),
        ("DISABLED", "VALID", FAILURE),
        ("ENABLED", "INVALID", FAILURE),
        ("ENABLED", "DELETING", FAILURE),
        ("ENABLED", "UPDATING", WARNING),
        ("ENABLED", "CREATING", WARNING),
    ],
)
def test_queues_and_compute_environments(state: str, status: str, level: str) -> None:
    """Both must be ENABLED and VALID; AWS's reason is told."""
    queue = Queue("q", "arn:q", state, status, "because", ())
    found = [
        queues.queue("batch_queue", "q", queue, ["q"], WHERE),
        queues.environment(environment(state=state, status=status, reason="because"), WHERE),
    ]
    assert [each.level for each in found] == [level, level]
    assert level == OK or all("because" in each.seen for each in found)


@pytest.mark.parametrize(
    ("has_policy", "share", "level", "words"),
    [
        (True, "common", OK, "VALID"),
        (False, "", OK, "VALID"),
        (True, "", WARNING, "takes only jobs with share_identifier, which is not set"),
        (False, "common", FAILURE, "takes no job with share_identifier, which is 'common'"),
    ],
)
def test_a_share_identifier_fits_the_queue(has_policy: bool, share: str, level: str, words: str) -> None:
    """AWS Batch refuses each job otherwise; where it is missing, an executor may still name one."""
    queue = Queue("q", "arn:q", "ENABLED", "VALID", "", (), has_policy=has_policy)
    found = queues.queue("batch_queue", "q", queue, ["q"], WHERE, share=share)
    assert found.level == level
    assert words in found.seen


def test_what_is_disabled_is_enabled_by_one_command() -> None:
    """The remedy can be pasted."""
    found = queues.environment(environment(state="DISABLED"), WHERE)
    assert found.remedy == (
        "`aws batch update-compute-environment --compute-environment cpu --state ENABLED --region eu-west-1`"
    )


# --- instance types ---------------------------------------------------------------------------------------------------

TYPES = {
    kind.name: kind
    for kind in (
        InstanceType("m6i.large", 2, 8192, 0, "x86_64"),
        InstanceType("m6i.xlarge", 4, 16384, 0, "x86_64"),
        InstanceType("m6i.metal", 128, 524288, 0, "x86_64"),
        InstanceType("m6id.large", 2, 8192, 0, "x86_64"),
        InstanceType("c7g.large", 2, 4096, 0, "arm64"),
        InstanceType("g5.xlarge", 4, 16384, 1, "x86_64"),
        InstanceType("g5.12xlarge", 48, 196608, 4, "x86_64"),
    )
}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["m6i"], ["m6i.large", "m6i.xlarge"]),  # a family has no metal, and is not another that begins alike
        (["m6i.metal"], ["m6i.metal"]),
        (["optimal"], ["m6i.large", "m6i.xlarge"]),
        (["g5", "m6i.large"], ["m6i.large", "g5.xlarge", "g5.12xlarge"]),
        (["p9"], []),
    ],
)
def test_types_of_an_environment(names: list[str], found: list[str]) -> None:
    """Sizes, families and bundles, smallest first."""
    assert [kind.name for kind in machines.of_environment(names, TYPES)] == found


def test_filters_for_ec2() -> None:
    """A family becomes a pattern, a bundle its families, a size stays; none comes twice."""
    assert machines.patterns(["g5", "default_arm64", "m6g", "m6i.large"]) == [
        "g5.*",
        "m6g.*",
        "c6g.*",
        "r6g.*",
        "c7g.*",
        "m6i.large",
    ]


@pytest.mark.parametrize(
    ("need", "fits"),
    [
        (Need(2, 7614, 0), True),  # 8192 less 3 %, 300 and 32 MiB
        (Need(2, 7615, 0), False),
        (Need(3, 1024, 0), False),
        (Need(1, 1024, 1), False),
    ],
)
def test_an_instance_keeps_some_memory_for_itself(need: Need, fits: bool) -> None:
    """A job that asks for all of it is never placed."""
    assert need.fits(TYPES["m6i.large"]) is fits


@pytest.mark.parametrize(
    ("size_mib", "least", "most"),
    [
        (8_192, 0.925, 0.935),
        (16_384, 0.94, 0.96),
        (32_768, 0.95, 31_672 / 32_768),  # an r5d.xlarge (ASFHyP3/hyp3#582)
        (1_179_648, 0.965, 0.97),
    ],
)
def test_small_instances_keep_more_of_their_memory(size_mib: int, least: float, most: float) -> None:
    """What the kernel takes is nearly the same on all."""
    assert least <= machines.usable_memory_mib(size_mib) / size_mib <= most
    assert machines.usable_memory_mib(256) == 0


def test_disks_have_room_for_the_system_of_a_gpu_instance() -> None:
    """An older deployment may have smaller ones; the remedy is a parameter."""
    small = machines.disk(30, WHERE)
    assert small.level == FAILURE
    assert "--parameter DiskSizeGib=100" in small.remedy
    assert machines.disk(50, WHERE).level == OK


def test_an_electron_that_fits_nowhere_is_told_what_there_is() -> None:
    """Asked for and available, side by side."""
    kinds = machines.of_environment(["g5"], TYPES)
    found = machines.fit("gpu", Need(64, 1024, 8), [(environment(), kinds)], "", WHERE)
    assert found.level == FAILURE
    assert "64 vCPU of at most 48, 8 GPU of at most 4" in found.seen


def test_an_electron_may_need_more_vcpus_than_the_environment_may_have() -> None:
    """The instance exists, and would never be started."""
    kinds = machines.of_environment(["g5"], TYPES)
    found = machines.fit("gpu", Need(40, 1024, 1), [(environment(max_vcpus=16), kinds)], "", WHERE)
    assert (found.level, "(16)" in found.seen) == (FAILURE, True)


def test_all_machines_of_an_electron_count() -> None:
    """Each of them has the vCPUs that are asked for."""
    behind = [(environment(max_vcpus=16), [InstanceType("m6i.xlarge", 4, 16384, 0, "x86_64")])]
    assert machines.fit("nodes", Need(4, 1024, 0), behind, "", WHERE, nodes=4).level == OK
    found = machines.fit("nodes", Need(4, 1024, 0), behind, "", WHERE, nodes=5)
    assert found.level == FAILURE
    assert "4 vCPU, 1024 MiB on each of 5 machines needs more vCPUs" in found.seen


def test_no_single_type_may_have_it_all() -> None:
    """The most of each is on different instances."""
    kinds = [InstanceType("a.1", 64, 1024, 0, "x86_64"), InstanceType("b.1", 2, 1024, 4, "x86_64")]
    assert machines.shortfall(Need(32, 512, 2), kinds) == "no single type has all of it together"


def test_the_images_architecture_must_be_that_of_the_machines() -> None:
    """An image for ARM on x86 ends with an exec format error, after it was paid for."""
    kinds = machines.of_environment(["m6i"], TYPES)
    behind = [(environment(), kinds)]
    assert machines.fit("cpu", Need(1, 512, 0), behind, "arm64", WHERE).level == FAILURE
    assert machines.fit("cpu", Need(1, 512, 0), behind, "x86_64", WHERE).level == OK
    assert machines.fit("cpu", Need(1, 512, 0), behind, "", WHERE).level == OK


@pytest.mark.parametrize(
    ("names", "zones_of_types", "level"),
    [
        (("m6i",), {"m6i.large": "ab"}, OK),
        (("m6i",), {"m6i.large": "a", "m6i.xlarge": "b"}, OK),
        (("m6i",), {"m6i.large": "a"}, WARNING),
        (("m6i",), {"m6i.large": "c"}, FAILURE),
        (("m6i", "p9"), {"m6i.large": "ab"}, WARNING),
        (("p9",), {}, FAILURE),
    ],
)
def test_instance_types_in_the_subnets_zones(
    names: tuple[str, ...], zones_of_types: dict[str, str], level: str
) -> None:
    """Two zones are wanted, one is a warning, none is a failure, and so is a name that the region does not have."""
    offered = {name: frozenset(zones) for name, zones in zones_of_types.items()}
    found = machines.instance_types(environment(instance_types=names), TYPES, offered, ["a", "b"], WHERE)
    assert found.level == level


# --- quotas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "on_demand", "spot"),
    [
        ("m6i.large", "L-1216C47A", "L-34B43A08"),
        ("im4gn.large", "L-1216C47A", "L-34B43A08"),
        ("c7i-flex.large", "L-1216C47A", "L-34B43A08"),
        ("g4dn.xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("gr6.4xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("vt1.3xlarge", "L-DB2E81BA", "L-3819A6DF"),
        ("p4d.24xlarge", "L-417A185B", "L-7212CCBC"),
        ("p5en.48xlarge", "L-417A185B", "L-C4BD4855"),
        ("p6-b200.48xlarge", "L-417A185B", None),
        ("inf2.xlarge", "L-1945791B", "L-B5D1601B"),
        ("trn1.2xlarge", "L-2C3B7624", "L-6B0D517C"),
        ("x2gd.large", "L-7295265B", "L-E3A00192"),
        ("dl1.24xlarge", "L-6E869C2A", "L-85EED4F7"),
        ("hpc7a.96xlarge", "L-F7808C92", None),
        ("u-6tb1.metal", "L-43DA4232", None),
    ],
)
def test_quota_of_an_instance_type(name: str, on_demand: str, spot: str | None) -> None:
    """By the letters before its generation; Spot has others than on-demand, and P has two."""
    found = [quotas.quota_of(name, spot=False), quotas.quota_of(name, spot=True)]
    assert [None if each is None else each.code for each in found] == [on_demand, spot]


@given(st.sampled_from(sorted(TYPES)), st.booleans())
def test_every_type_of_ours_has_a_quota(name: str, spot: bool) -> None:
    """So none goes unseen."""
    assert quotas.quota_of(name, spot=spot) is not None


def demand(*environments: tuple[str, bool, int, list[str]]) -> dict[str, quotas.Demand]:
    """By quota code, what these environments want: name, Spot, most vCPUs, types."""
    given = [(name, spot, most, [TYPES[kind] for kind in kinds]) for name, spot, most, kinds in environments]
    return {each.quota.code: each for each in quotas.demands(given)}


def test_environments_share_a_quota() -> None:
    """What they want adds up; the smallest instance is the least that is of use."""
    found = demand(("a", True, 64, ["m6i.xlarge"]), ("b", True, 16, ["m6i.large"]), ("c", False, 8, ["m6i.large"]))
    assert (found["L-34B43A08"].max_vcpus, found["L-34B43A08"].least_vcpus) == (80, 2)
    assert found["L-1216C47A"].environments == ("c",)


@pytest.mark.parametrize(
    ("allowed", "level"), [(0.0, FAILURE), (3.0, FAILURE), (4.0, WARNING), (63.0, WARNING), (64.0, OK)]
)
def test_quota(allowed: float, level: str) -> None:
    """Less than the smallest instance: nothing starts. Less than the most that is wanted: some jobs wait."""
    found = quotas.quota(demand(("gpu", True, 64, ["g5.xlarge"]))["L-3819A6DF"], allowed, WHERE)
    assert found.level == level
    assert level == OK or "eu-west-1.console.aws.amazon.com/servicequotas" in found.remedy


def test_a_quota_is_not_all_where_there_are_others() -> None:
    """An environment with families of two quotas still starts those of the other."""
    found = demand(("both", True, 64, ["g5.xlarge", "m6i.large"]))["L-3819A6DF"]
    assert quotas.quota(found, 0.0, WHERE).level == WARNING


def test_fargate_has_quotas_of_its_own() -> None:
    """One for on demand and one for Spot, which compute environments of all queues share; 6 vCPUs in a new account."""
    spot, on_demand = quotas.fargate_demands([("s", True, 64), ("o", False, 8), ("p", False, 8)])
    assert (spot.quota.code, spot.quota.name) == ("L-36FBB829", "Fargate Spot vCPU resource count")
    assert (on_demand.max_vcpus, on_demand.environments) == (16, ("o", "p"))
    found = quotas.quota(on_demand, 6.0, WHERE)
    assert found.level == WARNING
    assert "services/fargate/quotas/L-3032A538" in found.remedy
    assert quotas.quota(on_demand, 16.0, WHERE).level == OK
    assert "Gpu" not in quotas.quota(on_demand, 0.0, WHERE).remedy


@pytest.mark.parametrize(
    ("kind", "most", "vcpus", "level"),
    [("FARGATE", 16, 16, OK), ("FARGATE_SPOT", 16, 32, FAILURE), ("SPOT", 16, 1, FAILURE)],
)
def test_what_fits_into_a_queue_for_fargate(kind: str, most: int, vcpus: float, level: str) -> None:
    """Its maximum of vCPUs; a queue of instances takes no such job."""
    behind = [environment(max_vcpus=most)._replace(kind=kind)]
    found = machines.fit_on_fargate("q", Need(vcpus, 2048, 0), behind, WHERE)
    assert found.level == level
    assert level == OK or "FargateMaxVcpus" in found.remedy


# --- network ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way_out", "public_ip", "endpoints", "words"),
    [
        ("igw-1", True, (), None),
        ("igw-1", False, (), "no public address"),
        ("nat-1", False, (), None),
        ("tgw-1", False, (), None),
        (None, False, ENDPOINTS, None),
        (None, False, ENDPOINTS[1:], "no VPC endpoint for ecs"),
        (None, True, (), "no route out"),
        ("blackhole", True, (), "blackhole"),
        ("igw-1", False, ENDPOINTS, None),
    ],
)
def test_way_out_of_a_subnet(
    way_out: str | None, public_ip: bool, endpoints: tuple[str, ...], words: str | None
) -> None:
    """A public address and an internet gateway, another gateway, or all of the endpoints."""
    why = network.why_cut_off(Subnet("subnet-1", "a", public_ip, way_out, frozenset(endpoints)))
    assert (why is None) if words is None else (why is not None and words in why)


def test_secrets_need_endpoints_where_there_is_no_way_out() -> None:
    """Those of the services that the config names."""
    private = Subnet("subnet-1", "a", False, None, frozenset(ENDPOINTS))
    assert network.why_cut_off(private) is None
    assert "no VPC endpoint for secretsmanager, ssm" in str(network.why_cut_off(private, {"ssm", "secretsmanager"}))
    assert network.why_cut_off(private._replace(endpoints=frozenset((*ENDPOINTS, "ssm"))), {"ssm"}) is None
    assert network.why_cut_off(private._replace(way_out="nat-1"), {"ssm"}) is None


def test_a_subnet_that_is_gone_is_a_failure() -> None:
    """A compute environment still names it."""
    assert network.network("cpu", [], ["subnet-9"]).level == FAILURE


@pytest.mark.parametrize(
    ("changes", "subnet", "level", "words"),
    [
        ({}, ("nat-1", ()), OK, "on-demand instances in a placement group."),
        ({}, ("igw-1", ("s3",)), OK, "not the internet"),
        ({}, ("igw-1", ()), FAILURE, "in subnet-1 no gateway to S3"),
        ({"placement_group": ""}, ("nat-1", ()), WARNING, "cpu has no placement group"),
        ({"kind": "SPOT"}, ("nat-1", ()), FAILURE, "not on cpu (SPOT)"),
        ({"kind": "FARGATE"}, ("nat-1", ()), FAILURE, "not on cpu (FARGATE)"),
    ],
)
def test_several_machines_for_one_electron(
    changes: dict[str, Any], subnet: tuple[str, tuple[str, ...]], level: str, words: str
) -> None:
    """On demand, near one another, and with a way to S3: a node's network interface has no public address."""
    behind = environment(**{"kind": "EC2", "placement_group": "near", **changes})
    at = Subnet("subnet-1", "a", True, subnet[0], frozenset(subnet[1]))
    found = nodes.nodes("cirro-multi-node", [behind], [at], WHERE)
    assert (found.level, words in found.seen) == (level, True)
    assert (found.remedy == "") == (level == OK)


def test_one_zone_is_enough_for_a_placement_group() -> None:
    """It cannot be in more; other compute environments are warned."""
    offered = {"m6i.large": frozenset("a")}
    for group, level in (("near", OK), ("", WARNING)):
        found = machines.instance_types(environment(placement_group=group), TYPES, offered, ["a"], WHERE)
        assert found.level == level


# --- roles ------------------------------------------------------------------------------------------------------------


def trusting(service: str = "ecs-tasks.amazonaws.com", **more: Any) -> dict[str, Any]:
    """A trust policy."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole", **more}
    return {"Statement": [statement]}


ACCOUNT_ONLY = {"StringEquals": {"aws:SourceAccount": "123456789012"}}


@pytest.mark.parametrize(
    ("document", "level"),
    [
        (trusting(Condition=ACCOUNT_ONLY), OK),
        (trusting(Condition={"StringEquals": {"aws:SourceAccount": ["1", "123456789012"]}}), OK),
        (trusting(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:ecs:eu-west-1:123456789012:*"}}), OK),
        (trusting(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:ecs:us-east-1:123456789012:*"}}), FAILURE),
        (trusting(Condition={"StringEquals": {"aws:SourceAccount": "999999999999"}}), FAILURE),
        (trusting(Condition={"StringNotEquals": {"aws:SourceAccount": "123456789012"}}), FAILURE),
        (trusting(Condition={"StringEquals": {"aws:PrincipalOrgID": "o-1"}}), OK),  # cannot be judged from here
        (trusting(), WARNING),
        (trusting("ecs-tasks.amazonaws.com.cn", Condition=ACCOUNT_ONLY), OK),
        (trusting("ec2.amazonaws.com"), FAILURE),
        (trusting(Effect="Deny"), FAILURE),
        (trusting(Action="sts:TagSession"), FAILURE),
        (trusting(Action=["sts:*"], Condition=ACCOUNT_ONLY), OK),
        ({"Statement": trusting(Condition=ACCOUNT_ONLY)["Statement"][0]}, OK),
        ({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}, FAILURE),
    ],
)
def test_trust(document: dict[str, Any], level: str) -> None:
    """Tasks of this account and region may take the role on; without a condition so may those of others."""
    found = roles.trust(
        "job_role", "r", document, roles.TASKS_SERVICE, account="123456789012", region="eu-west-1", where=WHERE
    )
    assert found.level == level, found


def test_instances_need_no_condition() -> None:
    """EC2 acts for nobody else."""
    found = roles.trust(
        "instance_role",
        "r",
        trusting("ec2.amazonaws.com"),
        roles.INSTANCES_SERVICE,
        account="1",
        region="eu-west-1",
        where=WHERE,
    )
    assert found.level == OK


@pytest.mark.parametrize(
    ("arn", "command"),
    [
        ("arn:aws:iam::1:user/team/a", "aws iam attach-user-policy --user-name a --policy-arn arn:p"),
        (
            "arn:aws:sts::1:assumed-role/server/session",
            "aws iam attach-role-policy --role-name server --policy-arn arn:p",
        ),
    ],
)
def test_what_is_not_allowed_is_allowed_by_one_command(arn: str, command: str) -> None:
    """The deployment has a policy for it; a session is its role."""
    found = roles.permissions(arn, [("iam:PassRole", "arn:role", "implicitDeny")], "arn:p", WHERE)
    assert (found.level, found.remedy) == (FAILURE, f"`{command}`")
    assert "iam:PassRole on arn:role: implicitDeny" in found.seen
    assert roles.permissions(arn, [], "arn:p", WHERE).level == OK


def test_what_an_executor_does_without_is_a_warning_that_says_what_it_costs() -> None:
    """Electrons run all the same; beside what is needed, both are told."""
    arn, spared = "arn:aws:iam::1:user/ada", ("batch:ListJobs", "*", "implicitDeny")
    found = roles.permissions(arn, [spared, spared], "arn:p", WHERE)
    assert found.level == WARNING
    assert found.seen.startswith("electrons run, but without batch:ListJobs a job whose SubmitJob was not answered")
    both = roles.permissions(arn, [("iam:PassRole", "arn:role", "implicitDeny"), spared], "arn:p", WHERE)
    assert both.level == FAILURE
    assert both.seen.startswith("iam:PassRole on arn:role: implicitDeny; without batch:ListJobs a job")


# --- data and image ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "only"),
    [
        (None, False),
        ("", False),
        ({"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}, True),
        ({"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": False}}}, True),
        ({"Effect": "Allow", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}, False),
        ({"Effect": "Deny"}, False),
    ],
)
def test_tls_only(policy: Any, only: bool) -> None:
    """A statement that denies without TLS, alone or in a list."""
    if not policy:
        assert data.tls_only(policy) is only
    else:
        assert data.tls_only(json.dumps({"Statement": policy})) is only
        assert data.tls_only(json.dumps({"Statement": [{"Effect": "Allow"}, policy]})) is only


def test_an_image_of_another_registry_is_a_warning_but_in_an_emulated_account() -> None:
    """Whose jobs are processes, which need no image."""
    assert job_image.unknown("mine", emulated=False).level == WARNING
    assert job_image.unknown("mine", emulated=True).level == OK
    assert job_image.unknown("docker.io/mine/runner:1", emulated=True).level == WARNING


def test_an_image_that_is_no_image() -> None:
    """ECR also has charts and signatures."""
    assert job_image.image("uri", None, Pickled("3.11.7", "3.1"), "1").level == FAILURE


def test_an_image_without_labels_is_a_warning() -> None:
    """Somebody's own image may well work; it only does not say so."""
    assert job_image.image("uri", ImageFacts("amd64"), Pickled("3.11.7", "3.1"), "1").level == WARNING


# --- Covalent ---------------------------------------------------------------------------------------------------------

HERE = InstalledVersions("3.11.7", "0.240.0", "0.1.0", "3.1.2", plugin=True, installed_at=100.0)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, OK),
        ({"covalent": None}, FAILURE),
        ({"covalent": "0.241.0"}, FAILURE),
        ({"covalent": "0.24.0"}, FAILURE),
        ({"plugin": False}, FAILURE),
    ],
)
def test_covalent(changes: dict[str, Any], level: str) -> None:
    """The version that the plugin was written for, and the plugin's entry point."""
    assert server.covalent(HERE._replace(**changes)).level == level


def running(**changes: Any) -> Server:
    """A server that is well."""
    return Server("url", True, started=200.0, python="/venv/bin/python", versions=HERE, config="/c")._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, OK, "3.11"),
        ({"python": "3.11.9"}, OK, "3.11"),
        ({"python": "3.12.1"}, FAILURE, "Python is 3.11 here and 3.12 there"),
        ({"cloudpickle": "2.2.0"}, WARNING, "cloudpickle is 3.1.2 here and 2.2.0 there"),
        ({"cirro": "0.0.9"}, WARNING, "covalent-cirro is 0.1.0 here and 0.0.9 there"),
    ],
)
def test_versions_of_both_sides(changes: dict[str, Any], level: str, words: str) -> None:
    """Another minor version of Python breaks; the others may."""
    found = server.versions(HERE, running(versions=HERE._replace(**changes)))
    assert found.level == level
    assert words in found.seen


@pytest.mark.parametrize(("installed_at", "level"), [(100.0, OK), (None, OK), (300.0, FAILURE)])
def test_the_plugin_must_be_there_before_the_server_starts(installed_at: float | None, level: str) -> None:
    """Covalent loads plugins at its start only."""
    assert server.plugin(running(versions=HERE._replace(installed_at=installed_at))).level == level


def test_a_server_that_cannot_be_looked_at_is_a_warning() -> None:
    """On another machine, or of another user: what to do differs."""
    far = running(local=False, started=None, versions=None, config="")
    foreign = far._replace(local=True)
    looks = [
        lambda each: server.plugin(each),
        lambda each: server.versions(HERE, each),
        lambda each: server.config(each, "/c"),
        lambda each: server.environment(each, {}, []),
    ]
    found: list[Finding] = [look(each) for look in looks for each in (far, foreign)]
    assert {each.level for each in found} == {WARNING}
    assert {each.remedy for each in found} == {
        "Run `cirro doctor` there.",
        "Run `cirro doctor` as the user that it runs as.",
    }


@pytest.mark.parametrize(
    ("there", "given", "level"),
    [
        ({}, [], OK),
        ({"AWS_PROFILE": "other"}, [], WARNING),
        ({"AWS_PROFILE": "other"}, ["profile"], OK),
        ({"AWS_REGION": "eu-west-1"}, ["region"], OK),
        ({"AWS_ENDPOINT_URL": "http://x"}, ["region", "profile"], WARNING),
    ],
)
def test_environment_of_the_server(there: dict[str, str], given: list[str], level: str) -> None:
    """What the settings say, the environment cannot change."""
    assert server.environment(running(environment=there), {}, given).level == level


def test_a_folder_that_covalent_cannot_use_is_a_failure_with_its_name_in_the_config() -> None:
    """No result is found again under it; nothing is said where there is none."""
    assert server.folders({}, "/c") == []
    (found,) = server.folders({"sdk.results_dir": "/home/josé/results"}, "/c/covalent.conf")
    assert found.level == FAILURE
    assert "sdk.results_dir = '/home/josé/results'" in found.seen
    assert "/c/covalent.conf" in found.remedy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": ""}, "there is no file system fs-1"),
        ({"state": "deleting"}, "the file system fs-1 is deleting"),
        ({"access_points": ()}, "no access point fsap-1"),
        ({"zones": frozenset({"z1a"})}, "no mount target in z1b"),
    ],
)
def test_shared_files_that_jobs_cannot_mount(change: dict[str, Any], words: str) -> None:
    """Each of it would fail the start of every job."""
    subnets = [network.Subnet(f"subnet-{zone}", zone, True, "igw-1", frozenset()) for zone in ("z1a", "z1b")]
    whole = shared_file_system.FileSystem("fs-1", "available", 10**9, ("fsap-1",), frozenset({"z1a", "z1b"}))
    assert shared_file_system.shared_files(whole, "fsap-1", subnets, WHERE).level == OK
    found = shared_file_system.shared_files(whole._replace(**change), "fsap-1", subnets, WHERE)
    assert found.level == FAILURE
    assert words in found.seen
