"""The checks of ``cirro doctor``: for each one, the facts that it needs and the function that decides.

Facts come from `deployment_facts`, decisions from `verdicts`. Ids of checks are stable: programs read them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from covalent_cirro.covalent_server import config as covalent_config
from covalent_cirro.covalent_server import plain_paths
from covalent_cirro.deployment import plans
from covalent_cirro.deployment.doctor import account_facts
from covalent_cirro.deployment.doctor.account_facts import Refusal
from covalent_cirro.deployment.doctor.deployment_facts import DeploymentFacts
from covalent_cirro.deployment.doctor.verdicts import (
    caller,
    data,
    job_image,
    network,
    quotas,
    roles,
    server,
    stack_states,
)
from covalent_cirro.deployment.plans import BUDGET, TAG, wants_budget
from covalent_cirro.deployment.plans import stack_name as name_of_stack
from covalent_cirro.electron.engine.definitions import LOG_STREAM_PREFIX
from covalent_cirro.errors import AccessDenied, AwsError, NotFound, SettingsError
from covalent_cirro.jobs import machines, queues
from covalent_cirro.jobs.findings import FAILURE, OK, Finding
from covalent_cirro.jobs.image_rules import ImageFacts, Pickled
from covalent_cirro.jobs.tags import DISPATCH_TAG
from covalent_cirro.settings import SECTION

Findings = Iterable[Finding]


class Check(NamedTuple):
    """One check.

    Attributes:
        id: Id of the check, which never changes.
        look: Returns findings; may raise `Skip`, or a `CirroError` where AWS does not answer.
        needs: Ids of checks that must not fail; otherwise this check is skipped.
    """

    id: str
    look: Callable[[DeploymentFacts], Findings]
    needs: tuple[str, ...] = ("credentials",)


class Skip(Exception):
    """There is nothing to check; the message says what is missing."""


# --- account ----------------------------------------------------------------------------------------------------------


def credentials(facts: DeploymentFacts) -> Findings:
    """Who the caller is, and when the credentials expire."""
    identity = facts.identity()
    if isinstance(identity, Refusal):
        return [
            Finding("credentials", "", FAILURE, str(identity.error), "`aws configure` or `aws sso login` sets them.")
        ]
    return [caller.credentials(identity, facts.where())]


def clock(facts: DeploymentFacts) -> Findings:
    """This machine's clock."""
    identity = facts.identity()
    if isinstance(identity, Refusal) and identity.clock_ahead_s is None:
        raise Skip("AWS did not answer")
    return [caller.clock(identity.clock_ahead_s)]


def region(facts: DeploymentFacts) -> Findings:
    """Whether the executor uses the region of the deployment."""
    return [caller.region(facts.settings().region or facts.where().region, facts.where().region)]


def cost_tag(facts: DeploymentFacts) -> Findings:
    """Whether the budget counts anything."""
    # In older deployments the budget is a part of the compute stack.
    holders = [facts.stacks().get(part) for part in (BUDGET, "compute")]
    if not any(holder is not None and wants_budget(holder.parameters) for holder in holders):
        raise Skip("the deployment has no budget")
    return [caller.cost_tag(TAG, account_facts.cost_tag_status(facts.clients, TAG), facts.where())]


# --- deployment -------------------------------------------------------------------------------------------------------


def stacks(facts: DeploymentFacts) -> Findings:
    """Whether all stacks exist and are complete."""
    states = [
        stack_states.StackState(part, found.name, found.status, found.reason, found.changed_at)
        if found is not None
        else stack_states.StackState(part, name_of_stack(facts.stack_name, part), "", "", "")
        for part, found in facts.stacks().items()
    ]
    return [stack_states.stacks(states, facts.where())]


def settings(facts: DeploymentFacts) -> Findings:
    """Whether an executor can be made from the config."""
    problems = facts.settings_problems
    try:
        facts.settings()
    except SettingsError as error:
        problems = problems or [str(error)]
    if problems:
        told = " ".join(problems)
        return [Finding("settings", "", FAILURE, told, f"Correct [{SECTION}] in {covalent_config.config_path()}.")]
    return [Finding("settings", "", OK, f"[{SECTION}] in {covalent_config.config_path()} is valid; {facts.need()}")]


def config(facts: DeploymentFacts) -> Findings:
    """Whether the config has the deployment's settings."""
    facts.stacks()  # may be refused
    wanted = facts.deployed_settings()
    if not wanted:
        raise Skip("the deployment does not give all settings")
    return [stack_states.drift(facts.section, wanted, facts.where())]


# --- queues and instances ---------------------------------------------------------------------------------------------


def queue(facts: DeploymentFacts) -> Findings:
    """Each queue that electrons may be submitted to."""
    others = [each.name for each in facts.all_queues()]
    return [
        queues.queue(setting, name, facts.queue(name), others, facts.where())
        for setting, name in facts.wanted_queues().items()
    ]


def environment(facts: DeploymentFacts) -> Findings:
    """Each compute environment behind those queues."""
    return [queues.environment(each, facts.where()) for each in _environments(facts)]


def _environments(facts: DeploymentFacts) -> list[queues.Environment]:
    found = facts.environments()
    if not found:
        raise Skip("no queue has a compute environment")
    return found


def _with_instances(facts: DeploymentFacts) -> list[queues.Environment]:
    found = [each for each in _environments(facts) if each.has_instances]
    if not found:
        raise Skip("no compute environment starts EC2 instances itself")
    return found


def instance_types(facts: DeploymentFacts) -> Findings:
    """Whether the region has the instance types of the compute environments."""
    environments = _with_instances(facts)
    subnets = facts.subnets()
    return [
        machines.instance_types(
            each,
            facts.instance_types(),
            facts.offered_zones(),
            [subnets[id].zone for id in each.subnets if id in subnets],
            facts.where(),
        )
        for each in environments
    ]


def fit(facts: DeploymentFacts) -> Findings:
    """Whether an electron fits on an instance of each queue that it would use."""
    known = facts.instance_types()
    environments = {each.arn: each for each in _with_instances(facts)}
    try:
        found_image = facts.image() if facts.image_place() is not None else None
    except AwsError:  # the check `image` reports it
        found_image = None
    architecture = found_image.architecture if isinstance(found_image, ImageFacts) else ""
    architecture = job_image.MACHINES.get(architecture, architecture)
    found = []
    for each in facts.queues_of_electron():
        behind = [environments[arn] for arn in each.environments if arn in environments]
        if behind:
            kinds = [(one, machines.of_environment(one.instance_types, known)) for one in behind]
            found.append(machines.fit(each.name, facts.need(), kinds, architecture, facts.where()))
    if not found:
        raise Skip("no queue that it would use has EC2 instances")
    return found


def disk(facts: DeploymentFacts) -> Findings:
    """Whether the disks of GPU instances are large enough for their system."""
    compute = facts.stacks().get("compute")
    parameters = {} if compute is None else compute.parameters
    if "DiskSizeGib" not in parameters or not plans.has_gpus(parameters):
        raise Skip("the deployment has no GPU instances")
    return [machines.disk(int(parameters["DiskSizeGib"]), facts.where())]


def quota(facts: DeploymentFacts) -> Findings:
    """Whether the account's quotas allow what the compute environments may start."""
    known = facts.instance_types()
    wanted = quotas.demands(
        (each.name, each.spot, each.max_vcpus, machines.of_environment(each.instance_types, known))
        for each in _with_instances(facts)
    )
    if not wanted:
        raise Skip("no quota is known for their instance types")
    return [
        quotas.quota(each, account_facts.vcpu_quota(facts.clients, each.quota.code), facts.where()) for each in wanted
    ]


def net(facts: DeploymentFacts) -> Findings:
    """Whether instances reach the AWS services that they need."""
    subnets = facts.subnets()
    return [
        network.network(
            each.name,
            [subnets[id] for id in each.subnets if id in subnets],
            [id for id in each.subnets if id not in subnets],
        )
        for each in _with_instances(facts)
    ]


# --- roles ------------------------------------------------------------------------------------------------------------


def job_role(facts: DeploymentFacts) -> Findings:
    """Whether the jobs' role exists and trusts ECS."""
    return [_task_role(facts, "job_role", facts.settings().batch_job_role_name)]


def execution_role(facts: DeploymentFacts) -> Findings:
    """Whether the execution role exists and trusts ECS."""
    name = facts.settings().batch_execution_role_name
    if not name:
        raise Skip("batch_execution_role_name is empty: the instance's own role is used")
    return [_task_role(facts, "execution_role", name)]


def _task_role(facts: DeploymentFacts, id: str, name: str) -> Finding:
    where = facts.where()
    try:
        found = account_facts.role(facts.clients, name)
    except NotFound as error:
        return Finding(id, name, FAILURE, str(error), f"`{where.cirro('deploy')}` makes it.")
    return roles.trust(
        id, name, found.trust, roles.TASKS_SERVICE, account=facts.caller.account, region=where.region, where=where
    )


def instance_role(facts: DeploymentFacts) -> Findings:
    """Whether the role of each instance profile exists and trusts EC2."""
    where, found = facts.where(), []
    for profile in {each.instance_profile: None for each in _with_instances(facts)}:
        try:
            role = account_facts.role_of_profile(facts.clients, profile)
        except NotFound as error:
            remedy = f"`{where.cirro('deploy')}` makes it."
            found.append(Finding("instance_role", profile, FAILURE, str(error), remedy))
            continue
        name = role.arn.rpartition("/")[2]
        found.append(
            roles.trust(
                "instance_role",
                name,
                role.trust,
                roles.INSTANCES_SERVICE,
                account=facts.caller.account,
                region=where.region,
                where=where,
            )
        )
    return found


def permissions(facts: DeploymentFacts) -> Findings:
    """Whether the caller may call what the executor calls; and what is lost without optional permissions."""
    caller, settings, where = facts.caller, facts.settings(), facts.where()
    partition = caller.arn.split(":")[1]
    names = [name for name in (settings.batch_job_role_name, settings.batch_execution_role_name) if name]
    passed = [account_facts.role(facts.clients, name).arn for name in names]

    def arn(service: str, resource: str) -> str:
        return f"arn:{partition}:{service}:{where.region}:{caller.account}:{resource}"

    definition = arn("batch", f"job-definition/{settings.batch_job_definition_name}-doctor:1")
    queues = [found.arn for found in facts.queues_of_electron()]
    streams = arn("logs", f"log-group:{settings.batch_job_log_group_name}:log-stream:{LOG_STREAM_PREFIX}/default/1")
    questions = [
        (["iam:PassRole"], passed, {"iam:PassedToService": roles.TASKS_SERVICE}),
        (["batch:SubmitJob", "batch:TagResource"], [*queues, definition], {}),
        (["batch:RegisterJobDefinition"], [definition.rpartition(":")[0]], {}),
        (["batch:DescribeJobs", *roles.ON_ANYTHING], ["*"], {}),
        (["batch:GetJobQueueSnapshot"], queues, {}),
        (["batch:TerminateJob"], [arn("batch", "job/1")], {f"aws:ResourceTag/{DISPATCH_TAG}": "1"}),
        (["ecs:DescribeContainerInstances"], [arn("ecs", "container-instance/1/2")], {}),
        (["logs:GetLogEvents"], [streams], {}),
    ]
    pulled = facts.image_place()
    if pulled is not None:
        owner, region = pulled.registry or caller.account, pulled.region or where.region
        repository = f"arn:{partition}:ecr:{region}:{owner}:repository/{pulled.repository}"
        questions.append((["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:DescribeImages"], [repository], {}))
    try:
        denied = account_facts.denied(facts.clients, caller.arn, questions)
    except AccessDenied:
        raise
    except AwsError as error:  # the root user and federated users cannot be simulated
        return [roles.not_simulated(caller.arn, str(error))]
    return [roles.permissions(caller.arn, denied, facts.outputs().get("SubmitterPolicy"), where)]


# --- data -------------------------------------------------------------------------------------------------------------


def bucket(facts: DeploymentFacts) -> Findings:
    """Whether the bucket exists in the right region."""
    name = facts.settings().s3_bucket_name
    try:
        found = account_facts.bucket_region(facts.clients, name)
    except (NotFound, AccessDenied) as error:
        remedy = f"`{facts.where().cirro('deploy')}` makes one and sets s3_bucket_name; see `config` above."
        return [Finding("bucket", name, FAILURE, str(error), remedy)]
    return [data.bucket(name, found, facts.where().region)]


def bucket_write(facts: DeploymentFacts) -> Findings:
    """Whether objects can be written under the prefix, read and deleted."""
    settings = facts.settings()
    name, prefix = settings.s3_bucket_name, settings.key_prefix
    try:
        account_facts.write_probe(facts.clients, name, prefix)
    except AccessDenied as error:
        policy = facts.outputs().get("SubmitterPolicy", "that of the deployment for submitters")
        remedy = f"Allow it: attach the policy {policy} to {facts.caller.arn}."
        return [Finding("bucket_write", f"{name}/{prefix}", FAILURE, str(error), remedy)]
    return [Finding("bucket_write", f"{name}/{prefix}", OK, "an object was written, read and deleted")]


def bucket_security(facts: DeploymentFacts) -> Findings:
    """Whether the bucket is encrypted and refuses connections without TLS."""
    name = facts.settings().s3_bucket_name
    return [data.bucket_security(name, account_facts.bucket_security(facts.clients, name))]


def log_group(facts: DeploymentFacts) -> Findings:
    """Whether the jobs' log group exists, and for how long it keeps events."""
    name = facts.settings().batch_job_log_group_name
    try:
        days = account_facts.log_retention_days(facts.clients, name)
    except NotFound as error:
        remedy = f"`{facts.where().cirro('deploy')}` makes it: without it no job starts."
        return [Finding("log_group", name, FAILURE, str(error), remedy)]
    return [data.log_group(name, days, facts.where())]


def image(facts: DeploymentFacts) -> Findings:
    """Whether jobs can run in the image."""
    uri = facts.settings().container_image_uri
    place = facts.image_place()
    if place is None:
        return [job_image.unknown(uri)]
    if place.registry not in (None, facts.caller.account):
        raise Skip(f"{uri} is in the registry of another account")
    here = facts.here()
    pickled = Pickled(here.python, here.cloudpickle or "")
    return [job_image.image(uri, facts.image(), pickled, here.cirro)]


# --- Covalent ---------------------------------------------------------------------------------------------------------


def covalent(facts: DeploymentFacts) -> Findings:
    """Whether the Covalent installed here is supported, and knows this plugin."""
    quoted = {name: path for name, path in covalent_config.folders().items() if not plain_paths.is_plain(path)}
    return [server.covalent(facts.here()), *server.folders(quoted, str(covalent_config.config_path()))]


def covalent_server(facts: DeploymentFacts) -> Findings:
    """Whether a Covalent server answers."""
    return [server.running(facts.server())]


def _running(facts: DeploymentFacts) -> server.Server:
    found = facts.server()
    if not found.answers:
        raise Skip("no Covalent server answers")
    return found


def server_plugin(facts: DeploymentFacts) -> Findings:
    """Whether the server has loaded this plugin."""
    return [server.plugin(_running(facts))]


def server_versions(facts: DeploymentFacts) -> Findings:
    """Whether server and client can read each other's pickles."""
    return [server.versions(facts.here(), _running(facts))]


def server_config(facts: DeploymentFacts) -> Findings:
    """Whether server and client read the same config."""
    return [server.config(_running(facts), str(covalent_config.config_path()))]


def server_environment(facts: DeploymentFacts) -> Findings:
    """Whether server and client use the same AWS account."""
    given = [name for name, value in facts.section.items() if value not in (None, "")]
    return [server.environment(_running(facts), os.environ, given)]


CHECKS: tuple[Check, ...] = (
    Check("credentials", credentials, needs=()),
    Check("clock", clock, needs=()),
    Check("stacks", stacks),
    Check("settings", settings),
    Check("region", region, needs=("credentials", "settings")),
    Check("config", config, needs=("credentials", "stacks")),
    Check("queue", queue, needs=("credentials", "settings")),
    Check("environment", environment, needs=("credentials", "settings")),
    Check("instance_types", instance_types, needs=("credentials", "settings")),
    Check("fit", fit, needs=("credentials", "settings")),
    Check("disk", disk, needs=("credentials", "stacks")),
    Check("quota", quota, needs=("credentials", "settings")),
    Check("network", net, needs=("credentials", "settings")),
    Check("job_role", job_role, needs=("credentials", "settings")),
    Check("execution_role", execution_role, needs=("credentials", "settings")),
    Check("instance_role", instance_role, needs=("credentials", "settings")),
    Check("permissions", permissions, needs=("credentials", "settings", "job_role", "execution_role")),
    Check("bucket", bucket, needs=("credentials", "settings")),
    Check("bucket_write", bucket_write, needs=("bucket",)),
    Check("bucket_security", bucket_security, needs=("bucket",)),
    Check("log_group", log_group, needs=("credentials", "settings")),
    Check("image", image, needs=("credentials", "settings")),
    Check("cost_tag", cost_tag, needs=("credentials", "stacks")),
    Check("covalent", covalent, needs=()),
    Check("server", covalent_server, needs=()),
    Check("server_plugin", server_plugin, needs=()),
    Check("server_versions", server_versions, needs=()),
    Check("server_config", server_config, needs=()),
    Check("server_environment", server_environment, needs=()),
)
"""All checks, in the order in which they are shown. A check is after the checks that it needs."""
