"""Addresses, answers and errors of S3, for the runner.

Knows buckets and keys; it must not know calls, nor how a request is made. `s3_client.py` makes requests, and
`quick_requests.py` those for one small document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

_DEFAULT_REGION = "us-east-1"

_ROLE = "the job role (jobRoleArn of the job definition)"
_NEEDED = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket",
}


class S3Error(Exception):
    """An operation that failed for good.

    Attributes:
        code: S3's error code, or awscrt's name where no answer came.
        status: HTTP status; `None` where no answer came.
    """

    def __init__(self, message: str, code: str, status: int | None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class NotThere(S3Error):
    """404: no such object or bucket."""


class Refused(S3Error):
    """403, or no credentials at all. Without s3:ListBucket, S3 says 403 for an object that is not there."""


class OutOfTime(S3Error):
    """The request did not end in the time that is left to a job that is being stopped."""


class ConditionFailed(S3Error):
    """412: the object exists (If-None-Match), or has changed (If-Match)."""


class Answer(NamedTuple):
    """The answer to a request.

    Attributes:
        body: The object, if it was read into memory.
        headers: Headers; names are in lower case.
    """

    body: bytes
    headers: dict[str, str]

    @property
    def etag(self) -> str:
        """The object's entity tag, for If-Match."""
        return self.headers.get("etag", "")


class Endpoint:
    """The endpoint of S3.

    Args:
        environ: ``AWS_REGION``, ``AWS_DEFAULT_REGION``, ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``.

    Attributes:
        region: Name of the region.
        plain: Whether connections have no TLS: at an ``http`` endpoint only.

    Raises:
        S3Error: An endpoint that is not a URL.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION
        self._url = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
        scheme = urlsplit(self._url).scheme
        if self._url and scheme not in ("http", "https"):
            message = f"the endpoint {self._url!r} (AWS_ENDPOINT_URL) is not an http or https URL"
            raise S3Error(message, "InvalidEndpoint", None)
        self.plain = scheme == "http"

    def address(self, bucket: str, key: str) -> tuple[str, str]:
        """Host and path of an object: path-style for a set endpoint or a bucket with dots, else virtual-hosted."""
        path = "/" + quote(key, safe="/-_.~")
        if self._url:
            parts = urlsplit(self._url)
            return parts.netloc.rpartition("@")[2], parts.path.rstrip("/") + f"/{bucket}{path}"
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        host = f"s3.{self.region}.{domain}"
        # The wildcard of the certificate covers one label only.
        return (host, f"/{bucket}{path}") if "." in bucket else (f"{bucket}.{host}", path)


def explain(error: Exception, bucket: str, key: str, operation: str) -> S3Error:
    """Convert an error of awscrt. Uses code and message of S3's answer, not the rest, which can contain signatures."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None) or b""
    name = str(getattr(error, "name", type(error).__name__))
    code = _xml(body, "Code") or (f"HTTP {status}" if status else name)
    said = _xml(body, "Message") or ("" if status else str(getattr(error, "message", error)))
    failed = f"S3 {operation} of s3://{bucket}/{key} failed: {code}" + (f": {said}" if said else "")
    if "CREDENTIALS" in name or "IMDS" in name:
        return Refused(
            f"{failed}. The container has no AWS credentials: give the job definition a job role (jobRoleArn), or set "
            "them in its environment",
            code,
            status,
        )
    if status == 403:
        needed = _NEEDED.get(operation, operation)
        return Refused(
            f"{failed}. Check that {_ROLE} allows {needed} on arn:aws:s3:::{bucket}/*, that the bucket's policy and "
            "encryption key do not deny it, and s3:ListBucket, without which S3 says 403 for what is not there",
            code,
            status,
        )
    if status == 404:
        why = (
            f"There is no bucket {bucket!r} in this account and region"
            if code == "NoSuchBucket"
            else "The object is not there: deleted, or expired by the bucket's lifecycle rule before the job began"
        )
        return NotThere(f"{failed}. {why}", code, status)
    if status == 412:
        return ConditionFailed(failed, code, status)
    if status in (301, 400) and _xml(body, "Region"):
        return S3Error(f"{failed}. The bucket is in {_xml(body, 'Region')}: set AWS_REGION", code, status)
    if status is None:
        return S3Error(f"{failed}. Check the job's network: a route to S3, and DNS", code, status)
    return S3Error(failed, code, status)


def _xml(body: bytes, tag: str) -> str:
    match = re.search(rf"<{tag}>([^<]*)</{tag}>".encode(), body)
    return match[1].decode("utf-8", "replace").strip()[:500] if match else ""
