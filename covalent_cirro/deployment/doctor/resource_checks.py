"""The checks of a deployment's resources: queues and instances, roles, bucket, log group and image.

Facts come from `deployment_facts`, decisions from `verdicts`.
"""

from __future__ import annotations

from covalent_cirro.deployment import plans
from covalent_cirro.deployment.doctor import account_facts, file_facts
from covalent_cirro.deployment.doctor.check import Findings, Skip
from covalent_cirro.deployment.doctor.deployment_facts import DeploymentFacts
from covalent_cirro.deployment.doctor.verdicts import (
    data,
    job_image,
    network,
    nodes,
    quotas,
    roles,
    shared_file_system,
)
from covalent_cirro.electron.engine.job_definition import LOG_STREAM_PREFIX
from covalent_cirro.errors import AccessDenied, AwsError, NotFound
from covalent_cirro.jobs import console_links, machines, queues
from covalent_cirro.jobs.findings import FAILURE, OK, Finding
from covalent_cirro.jobs.image_rules import ARCHITECTURES, ImageFacts, Pickled
from covalent_cirro.jobs.tags import DISPATCH_TAG
from covalent_cirro.settings.variables import reference

# --- queues and instances ---------------------------------------------------------------------------------------------


def queue(facts: DeploymentFacts) -> Findings:
    """Each queue that electrons may be submitted to."""
    others = [each.name for each in facts.all_queues()]
    share = facts.settings().share_identifier or ""
    return [
        queues.queue(setting, name, facts.queue(name), others, facts.where(), share=share)
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
    if facts.settings().on_fargate:
        return _fit_on_fargate(facts)
    known = facts.instance_types()
    environments = {each.arn: each for each in _with_instances(facts)}
    try:
        found_image = facts.image() if facts.image_place() is not None else None
    except AwsError:  # the check `image` reports it
        found_image = None
    architecture = found_image.architecture if isinstance(found_image, ImageFacts) else ""
    architecture = {image: machine for machine, image in ARCHITECTURES.items()}.get(architecture, architecture)
    found = []
    for each in facts.queues_of_electron():
        behind = [environments[arn] for arn in each.environments if arn in environments]
        if behind:
            kinds = [(one, machines.of_environment(one.instance_types, known)) for one in behind]
            nodes = facts.settings().nodes
            found.append(machines.fit(each.name, facts.need(), kinds, architecture, facts.where(), nodes=nodes))
    if not found:
        raise Skip("no queue that it would use has EC2 instances")
    return found


def _fit_on_fargate(facts: DeploymentFacts) -> Findings:
    """Whether a queue for Fargate may have as many vCPUs as an electron asks for. The check `image` sees its image."""
    by_arn = {each.arn: each for each in _environments(facts)}
    found = []
    for each in facts.queues_of_electron():
        behind = [by_arn[arn] for arn in each.environments if arn in by_arn]
        found.append(machines.fit_on_fargate(each.name, facts.need(), behind, facts.where()))
    if not found:
        raise Skip("it would use no queue that exists")
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
    known, found = facts.instance_types(), _environments(facts)
    wanted = quotas.demands(
        (each.name, each.spot, each.max_vcpus, machines.of_environment(each.instance_types, known))
        for each in found
        if each.has_instances
    )
    wanted += quotas.fargate_demands((each.name, each.spot, each.max_vcpus) for each in found if each.on_fargate)
    if not wanted:
        raise Skip("no quota is known for their instance types")
    return [
        quotas.quota(each, account_facts.vcpu_quota(facts.clients, each.quota.code, each.quota.service), facts.where())
        for each in wanted
    ]


def net(facts: DeploymentFacts) -> Findings:
    """Whether machines reach the AWS services that they need, and nodes of one job one another and S3."""
    subnets, settings = facts.subnets(), facts.settings()
    also = {secret.service for text in settings.secrets.values() if (secret := reference(text)) is not None}
    with_machines = [each for each in _environments(facts) if each.has_instances or each.on_fargate]
    if not with_machines:
        raise Skip("no compute environment is one of instances or of Fargate")
    found = [
        network.network(
            each.name,
            [subnets[id] for id in each.subnets if id in subnets],
            [id for id in each.subnets if id not in subnets],
            also,
            network.FARGATE_ENDPOINTS if each.on_fargate else network.ENDPOINTS,
        )
        for each in with_machines
    ]
    # With num_nodes in the config and no queue for it, every electron goes to a queue that may be on Spot.
    name = settings.batch_multi_node_queue or (settings.queue if settings.nodes > 1 else None)
    queue = None if name is None else facts.queue(name)
    if queue is None:
        return found
    behind = [each for each in facts.environments() if each.arn in queue.environments]
    ids = dict.fromkeys(id for each in behind for id in each.subnets if id in subnets)
    return [*found, nodes.nodes(queue.name, behind, [subnets[id] for id in ids], facts.where())]


def shared_files(facts: DeploymentFacts) -> Findings:
    """Whether jobs can mount the files that they share."""
    named, _, access_point = (facts.settings().shared_files or "").partition("/")
    if not named:
        return [Finding("shared_files", "", OK, "electrons share no files")]
    found = file_facts.file_system(facts.clients, named)
    return [shared_file_system.shared_files(found, access_point, list(facts.subnets().values()), facts.where())]


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
        return [job_image.unknown(uri, emulated=not console_links.is_aws(facts.clients.endpoint_url))]
    if place.registry not in (None, facts.caller.account):
        raise Skip(f"{uri} is in the registry of another account")
    here = facts.here()
    pickled = Pickled(here.python, here.cloudpickle or "")
    settings = facts.settings()
    return [job_image.image(uri, facts.image(), pickled, here.cirro, settings.architecture, settings.runner_options)]
