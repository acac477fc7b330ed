"""Operations of ECS on clusters, task definitions and tags."""

from __future__ import annotations

import re
from typing import Any

from covalent_cirro.local.emulator.batch.fargate_rules import FARGATE_MIB
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.serving import descriptions
from covalent_cirro.local.emulator.serving.ecs import Ecs
from covalent_cirro.local.emulator.serving.service_model import Cluster, TaskDefinition

FAMILY = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""API Reference, RegisterTaskDefinition.family and CreateCluster.clusterName."""


def no_cluster() -> ServiceError:
    """The cluster does not exist."""
    return ServiceError("Cluster not found.", code="ClusterNotFoundException")


def cluster_named(ecs: Ecs, name: str | None) -> Cluster:
    """An active cluster by name or ARN; ``default`` without one.

    Raises:
        ServiceError: There is none.
    """
    found = ecs.clusters.get((name or "default").rpartition("/")[2])
    if found is None or found.status != "ACTIVE":
        raise no_cluster()
    return found


def definition_named(ecs: Ecs, name: str) -> TaskDefinition:
    """A revision of a task definition by ARN, ``family:revision``, or family for the newest that is active.

    Raises:
        ServiceError: There is none.
    """
    family, _, revision = name.rpartition("/")[2].partition(":")
    revisions = ecs.definitions.get(family, [])
    active = [each for each in revisions if each.status == "ACTIVE"]
    found = [each for each in revisions if str(each.revision) == revision] if revision else active[-1:]
    if not found:
        raise ServiceError("Unable to describe task definition.")
    return found[0]


# --- clusters -------------------------------------------------------------------------------------------------------


def create_cluster(ecs: Ecs, request: Json) -> Json:
    """CreateCluster; one that exists already is given back."""
    name = request.get("clusterName") or "default"
    if not FAMILY.fullmatch(name):
        raise ServiceError("Invalid cluster name.", code="InvalidParameterException")
    found = ecs.clusters.get(name)
    if found is None or found.status != "ACTIVE":
        found = ecs.clusters[name] = Cluster(name, ecs.arn("cluster", name), request)
    return {"cluster": descriptions.cluster(found)}


def update_cluster(ecs: Ecs, request: Json) -> Json:
    """UpdateCluster and UpdateClusterSettings."""
    found = cluster_named(ecs, request["cluster"])
    found.body.update({key: value for key, value in request.items() if key != "cluster"})
    return {"cluster": descriptions.cluster(found)}


def put_capacity_providers(ecs: Ecs, request: Json) -> Json:
    """PutClusterCapacityProviders."""
    return update_cluster(ecs, request)


def describe_clusters(ecs: Ecs, request: Json) -> Json:
    """DescribeClusters."""
    found, failures = [], []
    for asked in request.get("clusters") or ["default"]:
        cluster = ecs.clusters.get(asked.rpartition("/")[2])
        if cluster is None:
            arn = asked if asked.startswith("arn:") else ecs.arn("cluster", asked)
            failures.append({"arn": arn, "reason": "MISSING"})
        else:
            found.append(descriptions.cluster(cluster))
    return {"clusters": found, "failures": failures}


def list_clusters(ecs: Ecs, request: Json) -> Json:
    """ListClusters, on one page."""
    return {"clusterArns": [each.arn for each in ecs.clusters.values() if each.status == "ACTIVE"]}


def delete_cluster(ecs: Ecs, request: Json) -> Json:
    """DeleteCluster."""
    found = cluster_named(ecs, request["cluster"])
    if any(each.status != "INACTIVE" for each in found.services.values()):
        text = "The Cluster cannot be deleted while Services are active."
        raise ServiceError(text, code="ClusterContainsServicesException")
    found.status = "INACTIVE"
    return {"cluster": descriptions.cluster(found)}


# --- task definitions -----------------------------------------------------------------------------------------------


def register_task_definition(ecs: Ecs, request: Json) -> Json:
    """RegisterTaskDefinition."""
    family = request["family"]
    if not FAMILY.fullmatch(family):
        raise ServiceError("Family contains invalid characters.")
    _check_definition(request)
    revisions = ecs.definitions.setdefault(family, [])
    revision = len(revisions) + 1
    arn = ecs.arn("task-definition", f"{family}:{revision}")
    made = TaskDefinition(family, revision, arn, request, ecs.now(), tags=request.get("tags") or [])
    revisions.append(made)
    return {"taskDefinition": descriptions.task_definition(made), "tags": made.tags}


def _check_definition(request: Json) -> None:
    containers = request.get("containerDefinitions") or []
    if len(containers) != 1:
        raise ServiceError(f"the emulator runs tasks of one container; this definition has {len(containers)}")
    container = containers[0]
    for key in ("name", "image"):
        if not container.get(key):
            raise ServiceError(f"Container.{key} should not be null or empty.")
    for key in ("secrets", "healthCheck", "environmentFiles"):
        if container.get(key):
            raise ServiceError(f"the emulator has no {key} of containers; leave them out of {container['name']}")
    if "FARGATE" not in (request.get("requiresCompatibilities") or []):
        return
    if request.get("networkMode") != "awsvpc":
        raise ServiceError("Networking mode must be awsvpc for Fargate tasks.")
    cpu, memory = str(request.get("cpu") or ""), str(request.get("memory") or "")
    sizes = {f"{float(vcpus) * 1024:g}": {str(each) for each in mib} for vcpus, mib in FARGATE_MIB.items()}
    if memory not in sizes.get(cpu, ()):
        raise ServiceError("No Fargate configuration exists for given values.")
    uses_logs = (container.get("logConfiguration") or {}).get("logDriver") == "awslogs"
    if uses_logs and not request.get("executionRoleArn"):
        raise ServiceError("Fargate requires task definition to have execution role ARN to support log driver awslogs.")


def describe_task_definition(ecs: Ecs, request: Json) -> Json:
    """DescribeTaskDefinition."""
    found = definition_named(ecs, request["taskDefinition"])
    tags = {"tags": found.tags} if "TAGS" in (request.get("include") or []) else {}
    return {"taskDefinition": descriptions.task_definition(found), **tags}


def list_task_definitions(ecs: Ecs, request: Json) -> Json:
    """ListTaskDefinitions, on one page."""
    status = request.get("status") or "ACTIVE"
    prefix = request.get("familyPrefix")
    found = [
        each.arn
        for family, revisions in ecs.definitions.items()
        for each in revisions
        if prefix in (None, family) and each.status == status
    ]
    return {"taskDefinitionArns": found[::-1] if request.get("sort") == "DESC" else found}


def list_families(ecs: Ecs, request: Json) -> Json:
    """ListTaskDefinitionFamilies, on one page."""
    prefix, status = request.get("familyPrefix") or "", request.get("status") or "ALL"
    found = []
    for family, revisions in ecs.definitions.items():
        state = "ACTIVE" if any(each.status == "ACTIVE" for each in revisions) else "INACTIVE"
        if family.startswith(prefix) and status in ("ALL", state):
            found.append(family)
    return {"families": found}


def deregister_task_definition(ecs: Ecs, request: Json) -> Json:
    """DeregisterTaskDefinition."""
    if ":" not in request["taskDefinition"].rpartition("/")[2]:
        raise ServiceError("The specified task definition must have a revision.", code="InvalidParameterException")
    found = definition_named(ecs, request["taskDefinition"])
    found.status, found.deregistered_at = "INACTIVE", ecs.now()
    return {"taskDefinition": descriptions.task_definition(found)}


def delete_task_definitions(ecs: Ecs, request: Json) -> Json:
    """DeleteTaskDefinitions: those that are INACTIVE."""
    deleted, failures = [], []
    for asked in request["taskDefinitions"]:
        found = definition_named(ecs, asked)
        if found.status != "INACTIVE":
            failures.append({"arn": found.arn, "reason": "The specified task definition is still in ACTIVE status."})
            continue
        found.status = "DELETE_IN_PROGRESS"
        deleted.append(descriptions.task_definition(found))
    return {"taskDefinitions": deleted, "failures": failures}


# --- tags -----------------------------------------------------------------------------------------------------------


def _tags(ecs: Ecs, arn: str) -> list[Json]:
    """The tags of a cluster, service or task definition, to read and change.

    Raises:
        ServiceError: There is no such resource.
    """
    kind, _, name = arn.rpartition(":")[2].partition("/") if ":task-definition/" not in arn else ("", "", "")
    body: Any = None
    if ":task-definition/" in arn:
        return definition_named(ecs, arn).tags
    if kind == "cluster" and name in ecs.clusters:
        body = ecs.clusters[name].body
    cluster, _, service = name.partition("/")
    if kind == "service" and cluster in ecs.clusters and service in ecs.clusters[cluster].services:
        body = ecs.clusters[cluster].services[service].body
    if body is None:
        text = "The specified resource does not exist."
        raise ServiceError(text, code="InvalidParameterException")
    tags: list[Json] = body.setdefault("tags", [])
    return tags


def tag_resource(ecs: Ecs, request: Json) -> Json:
    """TagResource."""
    tags = _tags(ecs, request["resourceArn"])
    new = {each["key"]: each for each in request["tags"]}
    tags[:] = [*(each for each in tags if each["key"] not in new), *new.values()]
    return {}


def untag_resource(ecs: Ecs, request: Json) -> Json:
    """UntagResource."""
    tags = _tags(ecs, request["resourceArn"])
    tags[:] = [each for each in tags if each["key"] not in request["tagKeys"]]
    return {}


def list_tags(ecs: Ecs, request: Json) -> Json:
    """ListTagsForResource."""
    return {"tags": _tags(ecs, request["resourceArn"])}
