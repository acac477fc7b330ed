"""Calls of AWS's API by which CloudFormation makes resources, with CloudFormation's form of what a service refuses."""

from __future__ import annotations

import uuid
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.formation.stack_resource import StackLocation, to_api


def handler_text(text: str, code: str) -> str:
    """Why a resource failed, as the events of a stack have it.

    Args:
        text: What went wrong.
        code: The handler's error code, such as ``InvalidRequest``.
    """
    return f'Resource handler returned message: "{text}" (RequestToken: {uuid.uuid4()}, HandlerErrorCode: {code})'


def call(at: StackLocation, service: str, operation: str, properties: Json, /, **more: Any) -> Json:
    """Call an operation with those of a resource's properties that its request has, and with more.

    Args:
        at: Account and region.
        service: Name of boto3's client.
        operation: ``CreateService``.
        properties: Of the resource, with CloudFormation's names.
        more: Parameters with the names of the API.

    Raises:
        ServiceError: The service refuses it; its code is that of the service.
    """
    client = at.api(service)
    model = client.meta.service_model
    given: Json = {**to_api(model.operation_model(operation).input_shape, properties), **more}
    try:
        answer: Json = getattr(client, xform_name(operation))(**given)
    except ClientError as error:
        said, metadata = error.response["Error"], error.response.get("ResponseMetadata", {})
        text = f"{said.get('Message')} (Service: {model.service_id}, Status Code: {metadata.get('HTTPStatusCode')})"
        raise ServiceError(handler_text(text, "InvalidRequest"), code=str(said.get("Code"))) from error
    return answer


def delete(at: StackLocation, service: str, operation: str, /, **given: Any) -> bool:
    """Call an operation that deletes something; False where that does not exist.

    Raises:
        ServiceError: The service refuses it for another reason.
    """
    try:
        call(at, service, operation, {}, **given)
    except ServiceError as error:
        if not any(each in error.code for each in ("NotFound", "Nonexistent", "ServiceNotActive")):
            raise
        return False
    return True


def set_tags(at: StackLocation, service: str, arn: str, properties: Json) -> None:
    """Give a resource of ECS or Elastic Load Balancing the tags of its properties, and take all others away.

    Raises:
        ServiceError: The service refuses it.
    """
    wanted = {each["Key"]: str(each["Value"]) for each in properties.get("Tags") or []}
    if service == "ecs":
        now = {each["key"] for each in call(at, "ecs", "ListTagsForResource", {}, resourceArn=arn)["tags"]}
    else:
        [described] = call(at, service, "DescribeTags", {}, ResourceArns=[arn])["TagDescriptions"]
        now = {each["Key"] for each in described["Tags"]}
    gone = [key for key in now if key not in wanted and not key.startswith("aws:")]
    if service == "ecs":
        if gone:
            call(at, "ecs", "UntagResource", {}, resourceArn=arn, tagKeys=gone)
        if wanted:
            tags = [{"key": key, "value": value} for key, value in wanted.items()]
            call(at, "ecs", "TagResource", {}, resourceArn=arn, tags=tags)
        return
    if gone:
        call(at, service, "RemoveTags", {}, ResourceArns=[arn], TagKeys=gone)
    if wanted:
        tags = [{"Key": key, "Value": value} for key, value in wanted.items()]
        call(at, service, "AddTags", {}, ResourceArns=[arn], Tags=tags)
