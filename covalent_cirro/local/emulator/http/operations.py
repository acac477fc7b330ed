"""Finds the AWS operation of an HTTP request: service, operation, region, caller's key. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import parse_qs, parse_qsl

from covalent_cirro.local.emulator.http.server import Environ
from covalent_cirro.local.emulator.iam.signatures import Signature

FORM = "application/x-www-form-urlencoded"

_RPC = re.compile(r"/service/\w+/operation/(\w+)")
"""Path of a call in Smithy's RPC protocol, which boto3 speaks with CloudWatch."""


class Operation(NamedTuple):
    """The operation of a request. ``access_key`` is `None` where the request is not signed."""

    service: str
    name: str
    region: str | None
    access_key: str | None


def identify(
    environ: Environ,
    signature: Signature | None,
    batch_operation: Callable[[str, str], str | None],
    body: Callable[[], bytes],
) -> Operation:
    """The operation of a request.

    Args:
        environ: The request.
        signature: The request's; `None`: it is not signed.
        batch_operation: Gives the operation of AWS Batch behind a method and a path.
        body: Reads the whole body; called for the form-encoded calls of AWS's query protocol only.
    """
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    key, region, service = None, None, ""
    if signature is not None:
        key, region, service = signature.access_key, signature.region, signature.service
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if service in ("batch", ""):
        name = batch_operation(method, path)
        if name is not None or service == "batch":
            return Operation("batch", name or "Unknown", region, key)
    rpc = _RPC.fullmatch(path)
    if rpc is not None:
        return Operation(service, rpc[1], region, key)
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        return Operation(service or target.split("_")[0].lower(), target.split(".")[-1], region, key)
    unsigned_form = service == "" and method == "POST" and environ.get("CONTENT_TYPE", "").startswith(FORM)
    if service in ("s3", "") and not unsigned_form:
        return Operation("s3", s3_operation(method, path, query, environ), region, key)
    if "Action" in query:
        return Operation(service, query["Action"][0], region, key)
    if environ.get("CONTENT_TYPE", "").startswith(FORM):
        form = dict(parse_qsl(body().decode("utf-8", "replace")))
        if "Action" in form:
            return Operation(service or "sts", form["Action"], region, key)
    return Operation(service or "s3", f"{method} {path.split('/')[1] if '/' in path else ''}", region, key)


_SUBRESOURCES = {
    "lifecycle": "LifecycleConfiguration",
    "policy": "Policy",
    "publicAccessBlock": "PublicAccessBlock",
    "encryption": "Encryption",
    "versioning": "Versioning",
    "tagging": "Tagging",
    "ownershipControls": "OwnershipControls",
    "acl": "Acl",
    "location": "Location",
    "notification": "NotificationConfiguration",
    "cors": "Cors",
}


def s3_operation(method: str, path: str, query: dict[str, list[str]], environ: Environ) -> str:
    """The S3 operation of a path-style request."""
    bucket, _, key = path.lstrip("/").partition("/")
    verb = {"GET": "Get", "PUT": "Put", "DELETE": "Delete", "POST": "Post", "HEAD": "Head"}.get(method, method)
    if not bucket:
        return "ListBuckets"
    subresource = next((name for key_, name in _SUBRESOURCES.items() if key_ in query), None)
    if not key:
        if method == "HEAD":
            return "HeadBucket"
        if "delete" in query and method == "POST":
            return "DeleteObjects"
        if subresource == "PublicAccessBlock":
            return f"{verb}PublicAccessBlock"
        if subresource is not None:
            return f"{verb}Bucket{subresource}"
        if method == "GET" and "uploads" in query:
            return "ListMultipartUploads"
        if method == "GET" and "versions" in query:
            return "ListObjectVersions"
        if method == "GET":
            return "ListObjectsV2" if query.get("list-type") == ["2"] else "ListObjects"
        return {"PUT": "CreateBucket", "DELETE": "DeleteBucket"}.get(method, f"{verb}Bucket")
    copy = "HTTP_X_AMZ_COPY_SOURCE" in environ
    if "uploadId" in query:
        return {
            "PUT": "UploadPartCopy" if copy else "UploadPart",
            "GET": "ListParts",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
        }.get(method, f"{verb}Object")
    if method == "POST":
        return "CreateMultipartUpload" if "uploads" in query else "PostObject"
    if subresource in ("Tagging", "Acl"):
        return f"{verb}Object{subresource}"
    if "attributes" in query:
        return "GetObjectAttributes"
    return "CopyObject" if copy and method == "PUT" else f"{verb}Object"
