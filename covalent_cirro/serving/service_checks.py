"""The checks of ``cirro doctor`` for a deployment's services: facts from AWS, and what each means.

Ids of checks are stable: programs read them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from covalent_cirro.aws.clients import Clients
from covalent_cirro.deployment.doctor.check import Check, Findings, Skip
from covalent_cirro.deployment.doctor.deployment_facts import DeploymentFacts
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import ModelError
from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding, Where
from covalent_cirro.jobs.formatting import counted
from covalent_cirro.jobs.image_rules import ARCHITECTURES
from covalent_cirro.models.model_objects import BucketObjects
from covalent_cirro.models.model_registry import ModelRegistry
from covalent_cirro.serving import running_service, service_facts, service_values, task_ends
from covalent_cirro.serving.running_service import RunningService
from covalent_cirro.serving.service_facts import AcmCertificate
from covalent_cirro.serving.service_values import ServedImage

EXPIRES_SOON_S = 30 * 24 * 3600.0
"""ACM renews its own certificates 60 days before they expire; one that is left at 30 days was not renewed (ACM User
Guide, Managed certificate renewal)."""


def _services(facts: DeploymentFacts) -> dict[str, Stack]:
    found = running_service.find_all(facts.clients, facts.stack_name)
    if not found:
        raise Skip("the deployment has no service")
    return found


def service(facts: DeploymentFacts) -> Findings:
    """Whether each service's stack is complete and its tasks are healthy."""
    found = []
    for name, stack in _services(facts).items():
        seen = running_service.look(facts.clients, name, stack, with_traffic=False)
        why = "" if seen.healthy else newest_failure(facts.clients, stack.outputs)
        found.append(state(seen, why, facts.where()))
    return found


def state(seen: RunningService, why: str, where: Where) -> Finding:
    """Whether a service serves.

    Args:
        seen: Its state.
        why: How its newest failed task ended; empty where none has, or where it has healthy targets.
        where: The deployment, for remedies.
    """
    name, status = seen.name, seen.stack.status
    if not seen.stack.is_ready and not seen.stack.is_changing:
        remedy = f"Correct the cause, then `{where.cirro(f'serve deploy {name}')}`."
        reason = f" ({seen.stack.reason})" if seen.stack.reason else ""
        return Finding("service", name, FAILURE, f"its stack {seen.stack.name} is {status}{reason}", remedy)
    targets = counted(seen.target_counts) or "none"
    seen_words = f"{seen.running} of {seen.desired} tasks run; targets: {targets}"
    if not seen.healthy:
        more = f"; {why}" if why else f"; ECS: {seen.last_message}" if seen.last_message else ""
        remedy = f"`{where.cirro(f'serve logs {name}')}` shows what tasks print; `cirro serve rollback` goes back."
        return Finding("service", name, FAILURE, f"nothing answers: {seen_words}{more}", remedy)
    least = int(seen.stack.parameters.get("MinTasks") or 1)
    if seen.healthy < least:
        remedy = f"`{where.cirro(f'serve status {name}')}` says why targets are unhealthy."
        return Finding("service", name, WARNING, f"fewer than MinTasks={least} are healthy: {seen_words}", remedy)
    return Finding("service", name, OK, seen_words)


def newest_failure(clients: Clients, outputs: Mapping[str, str]) -> str:
    """How the newest failed task of a service ended, in words; empty where ECS knows none (it forgets in an hour)."""
    cluster = outputs.get("ClusterName")
    if not cluster:
        return ""
    with clients.asking("ecs:ListTasks", of=cluster) as ecs:
        arns = ecs.list_tasks(cluster=cluster, desiredStatus="STOPPED")["taskArns"][:100]
    if not arns:
        return ""
    with clients.asking("ecs:DescribeTasks", of=cluster) as ecs:
        tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"]
    stopped = sorted((each for each in tasks if each.get("stoppedAt")), key=lambda each: each["stoppedAt"])
    ends = [end for each in stopped if (end := task_ends.failed(each)) is not None]
    return f"task {ends[-1].task_id} ended: {ends[-1].reason}" if ends else ""


def service_image(facts: DeploymentFacts) -> Findings:
    """Whether ECR still has the image of each service, so that tasks can start."""
    found = []
    for name, stack in _services(facts).items():
        uri = stack.parameters.get("Image", "")
        served = service_facts.image_of(facts.clients, facts.caller.account, uri)
        found.append(image(name, served, stack.parameters.get("CpuArchitecture", ""), facts.where()))
    return found


def image(name: str, served: ServedImage, cpu_architecture: str, where: Where) -> Finding:
    """Whether tasks can pull and run an image."""
    update = f"Push it again, or serve another one: `{where.cirro(f'serve update {name} --image IMAGE')}`."
    if served.problem:
        return Finding("service_image", name, FAILURE, f"no new task can start: {served.problem}", update)
    needed = ARCHITECTURES.get(cpu_architecture, "")
    if served.architectures and needed and needed not in served.architectures:
        told = f"the image is for {' and '.join(served.architectures)}, tasks run on {needed}"
        return Finding("service_image", name, FAILURE, told, update)
    return Finding("service_image", name, OK, f"{served.uri} is there")


def service_model(facts: DeploymentFacts) -> Findings:
    """Whether the model of each service is in the bucket, and whether it is the current one."""
    found = []
    for name, stack in _services(facts).items():
        served = stack.parameters.get(service_values.MODEL, "")
        if served:
            found.append(model(name, served, *_registered(facts, stack, served), facts.where()))
    if not found:
        raise Skip("no service has a model of the registry")
    return found


def _registered(facts: DeploymentFacts, stack: Stack, served: str) -> tuple[str, str]:
    """Name of the current version of a model, and why the one that is served cannot be read."""
    bucket, prefix = stack.parameters.get("S3BucketName", ""), stack.parameters.get("S3Prefix", "")
    registry = ModelRegistry(BucketObjects(facts.access, bucket), bucket, f"{prefix}/" if prefix else "")
    name, _, version = served.partition("/")
    try:
        registry.version(name, version)
        return registry.current_name(name) or "", ""
    except ModelError as error:
        return "", str(error)


def model(name: str, served: str, current: str, problem: str, where: Where) -> Finding:
    """Whether a new task can load the model of a service.

    Args:
        name: Name of the service.
        served: NAME/VERSION of its model.
        current: The current version of that model; empty where there is none.
        problem: Why the served version cannot be read; empty where it can.
        where: The deployment, for remedies.
    """
    update = f"`{where.cirro(f'serve update {name}')}` serves the current version."
    if problem:
        return Finding("service_model", name, FAILURE, f"no new task can load {served}: {problem}", update)
    version = served.partition("/")[2]
    if current and current != version:
        return Finding("service_model", name, OK, f"serves {version}; the current version is {current}. {update}")
    return Finding("service_model", name, OK, f"serves {version}, the current version")


def service_access(facts: DeploymentFacts) -> Findings:
    """Who reaches each service, and whether its certificate holds."""
    found = []
    for name, stack in _services(facts).items():
        arn = stack.parameters.get("CertificateArn", "")
        certificate = service_facts.certificate_of(facts.clients, arn) if arn else None
        found.append(access(name, stack.parameters, certificate, time.time(), facts.where()))
    return found


def access(
    name: str, parameters: Mapping[str, str], certificate: AcmCertificate | None, now: float, where: Where
) -> Finding:
    """Who reaches a service, and how.

    Args:
        name: Name of the service.
        parameters: Parameters of its stack.
        certificate: Its certificate; `None` for HTTP alone.
        now: The time, in epoch seconds.
        where: The deployment, for remedies.
    """
    who = parameters.get("AllowFrom") or "0.0.0.0/0"
    if certificate is None:
        remedy = f"`{where.cirro(f'serve deploy {name} --certificate ARN')}` encrypts it."
        return Finding(
            "service_access", name, WARNING, f"HTTP alone, which anybody on the way reads, from {who}", remedy
        )
    if certificate.problem:
        return Finding("service_access", name, FAILURE, certificate.problem, "Give it a certificate that is ISSUED.")
    left_s = None if certificate.expires_at is None else certificate.expires_at - now
    if left_s is not None and left_s < EXPIRES_SOON_S:
        seen = f"its certificate for {certificate.domain} " + (
            f"expires in {left_s / 86400:.0f} days" if left_s > 0 else "has expired"
        )
        remedy = f"Renew it in ACM ({parameters.get('CertificateArn')}): an imported one is not renewed by itself."
        return Finding("service_access", name, WARNING if left_s > 0 else FAILURE, seen, remedy)
    return Finding("service_access", name, OK, f"HTTPS for {certificate.domain or 'its certificate'}, from {who}")


CHECKS: tuple[Check, ...] = (
    Check("service", service, needs=("credentials", "stacks")),
    Check("service_image", service_image, needs=("credentials", "stacks")),
    Check("service_model", service_model, needs=("credentials", "stacks")),
    Check("service_access", service_access, needs=("credentials", "stacks")),
)
"""All checks of services, in the order in which they are shown, after those of the deployment."""
