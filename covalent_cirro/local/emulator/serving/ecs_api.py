"""ECS over HTTP (AWS JSON 1.1): requests checked by the service model, errors as AWS writes them.

It must not know how services run; what an operation does is `definition_operations`' and `service_operations`'.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel

from covalent_cirro.local.emulator.batch import shapes
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.http.answers import Answer, aws_json_answer
from covalent_cirro.local.emulator.serving import definition_operations, service_operations
from covalent_cirro.local.emulator.serving.ecs import Ecs

OPERATIONS: dict[str, Callable[[Ecs, Json], Json]] = {
    "CreateCluster": definition_operations.create_cluster,
    "UpdateCluster": definition_operations.update_cluster,
    "UpdateClusterSettings": definition_operations.update_cluster,
    "PutClusterCapacityProviders": definition_operations.put_capacity_providers,
    "DescribeClusters": definition_operations.describe_clusters,
    "ListClusters": definition_operations.list_clusters,
    "DeleteCluster": definition_operations.delete_cluster,
    "RegisterTaskDefinition": definition_operations.register_task_definition,
    "DescribeTaskDefinition": definition_operations.describe_task_definition,
    "ListTaskDefinitions": definition_operations.list_task_definitions,
    "ListTaskDefinitionFamilies": definition_operations.list_families,
    "DeregisterTaskDefinition": definition_operations.deregister_task_definition,
    "DeleteTaskDefinitions": definition_operations.delete_task_definitions,
    "TagResource": definition_operations.tag_resource,
    "UntagResource": definition_operations.untag_resource,
    "ListTagsForResource": definition_operations.list_tags,
    "CreateService": service_operations.create_service,
    "UpdateService": service_operations.update_service,
    "DeleteService": service_operations.delete_service,
    "DescribeServices": service_operations.describe_services,
    "ListServices": service_operations.list_services,
    "ListTasks": service_operations.list_tasks,
    "DescribeTasks": service_operations.describe_tasks,
    "StopTask": service_operations.stop_task,
}


@functools.lru_cache(maxsize=1)
def service_model() -> ServiceModel:
    """The model of ECS, read once."""
    return ServiceModel(Loader().load_service_model("ecs", "service-2"), service_name="ecs")


def call(ecs: Ecs, operation: str, body: bytes) -> Answer:
    """Answer one request."""
    try:
        return aws_json_answer(_call(ecs, operation, body))
    except ServiceError as refused:
        headers = [
            ("Content-Type", "application/x-amz-json-1.1"),
            ("x-amzn-errortype", refused.code),
            ("x-amzn-RequestId", str(uuid.uuid4())),
        ]
        text = json.dumps({"__type": refused.code, "message": refused.text})
        return Answer(refused.status, headers, text.encode())


def _call(ecs: Ecs, operation: str, body: bytes) -> Json:
    if operation not in OPERATIONS:
        raise ServiceError(f"{operation} of ECS is not emulated", code="InvalidAction")
    try:
        request: Any = json.loads(body) if body.strip() else {}
    except ValueError as error:
        raise ServiceError(f"Unable to parse the request: {error}", code="SerializationException") from None
    mistake = shapes.mistake(service_model().operation_model(operation).input_shape, request)
    if mistake is not None:
        raise ServiceError(mistake, code="InvalidParameterException")
    given = {key: value for key, value in request.items() if value is not None}
    with ecs.lock:
        return OPERATIONS[operation](ecs, given)
