"""The WSGI application of the emulator: gives each request to AWS Batch, the registry, moto or its own routes.

It refuses what a web page sent and what is not signed, counts calls, and applies faults. It must not know what services
do with a request.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from types import MappingProxyType
from typing import Any
from xml.sax.saxutils import escape

from covalent_cirro.local.emulator.account import Account
from covalent_cirro.local.emulator.batch import batch_api
from covalent_cirro.local.emulator.batch.batch_api import Limits
from covalent_cirro.local.emulator.batch.model import Job
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.batch.validation import ServiceError
from covalent_cirro.local.emulator.ecr import registry
from covalent_cirro.local.emulator.fault_effects import ChangedAnswers, damage
from covalent_cirro.local.emulator.faults import ERRORS, LOSE_HOST, Fault, Faults
from covalent_cirro.local.emulator.http import operations, s3_bodies
from covalent_cirro.local.emulator.http.answers import Answer, json_answer
from covalent_cirro.local.emulator.http.authentication import Authentication, Refusal
from covalent_cirro.local.emulator.http.call_counts import CallCounts
from covalent_cirro.local.emulator.http.operations import Operation
from covalent_cirro.local.emulator.http.server import Application, ConnectionCut, Environ, StartResponse
from covalent_cirro.local.emulator.iam import signatures
from covalent_cirro.local.emulator.iam.enforcement import IamEnforcement
from covalent_cirro.local.emulator.keys import OWN_ID
from covalent_cirro.local.emulator.serving.serving import Serving
from covalent_cirro.loopback import web_pages

REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 409: "Conflict", 429: "Too Many Requests"}
SIGNATURE_VALID_S = 300
"""AWS refuses a request that was signed further in the past or future (IAM User Guide, Signature Version 4)."""
LOCKS = 64
"""Number of locks: conditional writes to one key happen one after another."""
WRITES = frozenset(("PutObject", "CompleteMultipartUpload", "CopyObject", "DeleteObject"))
XML_SERVICES = frozenset(("s3", "sts", "iam", "ec2", "cloudformation", "elasticloadbalancing"))
OWN_ROUTES = ("/_cirro/", "/moto-api/")
"""The emulator's own routes and moto's pages, which are no AWS calls. Requests to them need the emulator's key; those
of a task for its credentials and metadata need none."""
NO_FAULTS: Mapping[str, Fault] = MappingProxyType({})
WRONG_DIGEST = "The digest you specified did not match what we received."
CUT_AFTER_BYTES = 64
"""How much of the body is sent before a connection is cut during its answer."""


@dataclass
class RequestRouter:
    """WSGI application.

    Attributes:
        account: Number of the account that all callers belong to.
        region: For requests that name none.
        moto: moto's application.
        registry: Images of the emulated ECR (`registry.Registry`).
        batch: Gives the AWS Batch of a region.
        serving: Gives the ECS of a region.
        callers: Checks who a request comes from.
        control: Answers requests under ``/_cirro/``.
        is_tasks: Whether a path under ``/_cirro/`` is one that only a task knows.
        job_of: Gives the job that an access key was given to; `None` where there is none.
        account_settings: Quotas and instance types of the account.
        install: Replaces what moto does in a service, before its first call.
        iam: Refuses what policies do not allow; `None` before the account is known.
    """

    account: str
    region: str
    moto: Application
    registry: Application
    batch: Callable[[str], Batch]
    serving: Callable[[str], Serving]
    callers: Authentication
    control: Callable[[str, str, str, bytes], Answer]
    is_tasks: Callable[[str], bool]
    job_of: Callable[[str | None], Job | None]
    faults: Faults
    calls: CallCounts
    limits: Limits
    account_settings: Account
    install: Callable[[str], None]
    iam: IamEnforcement | None = None
    _answers: ChangedAnswers = field(default_factory=ChangedAnswers)
    _locks: list[threading.Lock] = field(default_factory=lambda: [threading.Lock() for _ in range(LOCKS)])

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        start = _without_permissions(start)
        path = environ["PATH_INFO"]
        refused = web_pages.refusal(*(environ.get(f"HTTP_{name}") for name in ("HOST", "ORIGIN", "SEC_FETCH_SITE")))
        if refused is not None:
            return _give(json_answer({"message": refused}, 403), start)
        if path.startswith(registry.LAYERS):  # the URL has a signature
            return self.registry(environ, start)
        if f"{path}/".startswith(OWN_ROUTES):
            return self._own(environ, start)
        if registry.serves(environ):  # the registry asks for a token
            name = registry.operation(environ["REQUEST_METHOD"], path)
            return self._counted(environ, Operation(registry.SERVICE, name, None, None), start)
        signature = signatures.of(environ)
        asked = operations.identify(environ, signature, batch_api.operation, lambda: _whole_body(environ))
        refusal = self.callers.refusal(asked, signature, environ, lambda: _whole_body(environ))
        if refusal is not None:
            return _give(_refusal_answer(asked.service, refusal), start)
        if asked.access_key == OWN_ID:
            return self._dispatch(environ, asked, start)
        return self._counted(environ, asked, start)

    def _own(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if not self.is_tasks(path) and not self.callers.has_key(environ):
            refused = f"{path} needs the key of this emulator as user and password"
            return _give(json_answer({"message": refused}, 403), start)
        if not path.startswith("/_cirro/"):
            return self.moto(environ, start)
        body = environ["wsgi.input"].read()
        return _give(self.control(environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], body), start)

    def _counted(self, environ: Environ, asked: Operation, start: StartResponse) -> Iterator[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        caller = "client" if self.job_of(asked.access_key) is None else "job"
        name = f"{asked.service}:{asked.name}"
        sent = _Sent()
        try:
            yield from self._with_faults(environ, asked, caller, start, sent)
        finally:
            self.calls.add(caller, name, length, sent.bytes)

    def _with_faults(
        self, environ: Environ, asked: Operation, caller: str, start: StartResponse, sent: _Sent
    ) -> Iterator[bytes]:
        hit = self.faults.take_request(
            asked.service, asked.name, caller, environ["PATH_INFO"], lambda: self._about(environ, asked)
        )
        faults = {fault.kind: fault for fault in hit}
        if "slow" in faults:
            time.sleep(faults["slow"].seconds)
        cut, job = faults.get("cut"), self.job_of(asked.access_key)
        if cut is not None and cut.when == "before":
            raise ConnectionCut
        if "clock" in faults:
            start = _dated(start, time.time() + faults["clock"].seconds)
        answer = _fault_answer(faults, asked.service) or self._refusal(environ, asked)
        parts = self._dispatch(environ, asked, start, faults) if answer is None else _give(answer, start)
        if (cut is not None and cut.when == "after") or LOSE_HOST in faults:
            for _ in parts:
                pass
            if LOSE_HOST in faults and job is not None:
                self.batch(asked.region or self.region).lose_host_of(job)
            raise ConnectionCut
        speed = faults["slow"].bytes_per_s if "slow" in faults else None
        try:
            for part in parts:
                if cut is not None:
                    yield part[: min(CUT_AFTER_BYTES, len(part) // 2)]
                    yield b""
                    raise ConnectionCut
                sent.bytes += len(part)
                if speed is None:
                    yield part
                else:
                    yield from _slowly(part, speed)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _refusal(self, environ: Environ, asked: Operation) -> Answer | None:
        if self.iam is None:
            return None
        refusal = self.iam.refusal(asked, environ, lambda: _whole_body(environ))
        return None if refusal is None else _refusal_answer(asked.service, refusal)

    def _about(self, environ: Environ, asked: Operation) -> list[str]:
        """Names, ids and paths of the jobs and objects that a call is about."""
        job = self.job_of(asked.access_key)
        if job is not None:
            return [job.name]
        if asked.service != "batch":
            return [environ["PATH_INFO"]]
        try:
            request = json.loads(_whole_body(environ) or b"{}")
            jobs = [request.get("jobName"), request.get("jobId"), *request.get("jobs", ())]
        except (ValueError, AttributeError, TypeError):  # malformed: AWS Batch refuses it later
            return []
        return [each for each in jobs if isinstance(each, str)]

    def _dispatch(
        self, environ: Environ, asked: Operation, start: StartResponse, faults: Mapping[str, Fault] = NO_FAULTS
    ) -> Iterable[bytes]:
        if asked.service == "batch":
            body = environ["wsgi.input"].read()
            answer = batch_api.call(
                self.batch(asked.region or self.region),
                self.limits,
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                environ["QUERY_STRING"],
                body,
            )
            return _give(answer._replace(body=self._answers.change(asked.name, answer.body, faults)), start)
        if asked.service == registry.SERVICE:
            return self.registry(environ, start)
        own = self.account_settings.answer(asked, asked.region or self.region, lambda: _whole_body(environ))
        if own is not None:
            return _give(own, start)
        if asked.service == "ecs":
            serving = self.serving(asked.region or self.region)
            return _give(serving.answer_ecs(asked.name, _whole_body(environ)), start)
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self.account
        self.install(asked.service)
        try:
            return self._by_moto(environ, asked, start, faults)
        except NotImplementedError:
            text = f"The emulated AWS does not have {asked.service}:{asked.name}."
            return _give(_error(asked.service, 501, "NotImplemented", text), start)

    def _by_moto(
        self, environ: Environ, asked: Operation, start: StartResponse, faults: Mapping[str, Fault]
    ) -> Iterable[bytes]:
        if asked.service != "s3" or asked.name not in WRITES | {"UploadPart"}:
            return self.moto(environ, start)
        try:
            s3_bodies.take_body(environ)
        except s3_bodies.WrongDigest as wrong:
            return _give(_xml_error(400, str(wrong), WRONG_DIGEST), start)
        if asked.name == "UploadPart":
            return self.moto(environ, start)
        if "damage" in faults:
            damage(environ, faults["damage"])
        # moto looks whether the key exists, and then writes: without a lock two conditional writes could both succeed.
        lock = self._locks[zlib.crc32(environ["PATH_INFO"].encode("latin-1")) % LOCKS]
        with lock:
            return self.moto(environ, start)


@dataclass
class _Sent:
    bytes: int = 0


def _whole_body(environ: Environ) -> bytes:
    body: bytes = environ["wsgi.input"].read()
    environ["wsgi.input"] = s3_bodies.BytesBody(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def _give(answer: Answer, start: StartResponse) -> Iterable[bytes]:
    headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    start(f"{answer.status} {REASONS.get(answer.status, 'Error')}", headers)
    return [answer.body]


def _without_permissions(start: StartResponse) -> StartResponse:
    """Remove the headers by which moto lets pages of other origins read its answers."""

    def without(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start(status, web_pages.without_permissions(headers), exc_info)

    return without


def _dated(start: StartResponse, epoch_s: float) -> StartResponse:
    """Give answers another time in the header ``Date``."""

    def dated(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() != "date"]
        return start(status, [*kept, ("Date", formatdate(epoch_s, usegmt=True))], exc_info)

    return dated


def _slowly(part: bytes, bytes_per_s: float) -> Iterator[bytes]:
    step = max(1, int(bytes_per_s / 20))
    for begin in range(0, len(part), step):
        piece = part[begin : begin + step]
        time.sleep(len(piece) / bytes_per_s)
        yield piece


def _fault_answer(faults: dict[str, Fault], service: str) -> Answer | None:
    if "throttle" in faults:
        fault = faults["throttle"]
        if service == "batch":
            return batch_api.throttled()
        if service == "s3":
            return _error(service, 503, fault.code or "SlowDown", "Please reduce your request rate.")
        return _error(service, 400, fault.code or "ThrottlingException", "Rate exceeded")
    if "expired" in faults:
        query = service in XML_SERVICES
        code = "ExpiredToken" if query else "ExpiredTokenException"
        return _error(service, 403 if query else 400, code, "The security token included in the request is expired")
    if "clock" in faults and abs(faults["clock"].seconds) > SIGNATURE_VALID_S:
        if service == "s3":
            return _error(
                service,
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            )
        return _error(service, 403, "SignatureDoesNotMatch", "Signature expired: it is now earlier than the request.")
    if "error" in faults:
        fault = faults["error"]
        usual, text = ERRORS[fault.status]
        if service == "batch":
            code = fault.code or "ServerException"
            return batch_api.failure(ServiceError("Internal server error", code=code, status=fault.status))
        return _error(service, fault.status, fault.code or usual, text)
    if "conflict" in faults:
        text = "The conditional request cannot succeed due to a conflicting operation against this resource."
        return _error(service, 409, faults["conflict"].code or "ConditionalRequestConflict", text)
    return None


UNKNOWN_KEYS = {"s3": "InvalidAccessKeyId", "ec2": "AuthFailure", "batch": "UnrecognizedClientException"}
"""Error code for an unknown access key, by service; other services: InvalidClientTokenId, or
UnrecognizedClientException where they speak JSON."""


def _refusal_answer(service: str, refusal: Refusal) -> Answer:
    """A refusal in the form of the service's protocol; status 400 in the JSON protocols of Logs and ECR, else 403."""
    query = service in XML_SERVICES
    if refusal.kind == "not evaluated":
        return _error(service, 501, "NotImplemented", refusal.text)
    if refusal.kind == "unsigned":
        code = "AccessDenied" if service == "s3" else "MissingAuthenticationToken"
    elif refusal.kind == "signature":
        wrong = "SignatureDoesNotMatch" if query else "InvalidSignatureException"
        code = "AuthFailure" if service == "ec2" else wrong
    elif refusal.kind == "unknown":
        code = UNKNOWN_KEYS.get(service, "InvalidClientTokenId" if query else "UnrecognizedClientException")
    elif service == "ec2":
        # EC2 API Reference, Error codes for the Amazon EC2 API.
        code, refusal = (
            "UnauthorizedOperation",
            refusal._replace(text=f"You are not authorized to perform this operation. {refusal.text}"),
        )
    else:
        code = "AccessDenied" if query else "AccessDeniedException"
    return _error(service, 403 if query or service == "batch" else 400, code, refusal.text)


def _error(service: str, status: int, code: str, text: str) -> Answer:
    if service == "s3":
        return _xml_error(status, code, text)
    if service == "ec2":
        inner = f"<Errors><Error><Code>{escape(code)}</Code><Message>{escape(text)}</Message></Error></Errors>"
        body = f"<Response>{inner}<RequestID>{uuid.uuid4()}</RequestID></Response>"
        return Answer(status, [("Content-Type", "text/xml")], body.encode())
    if service in XML_SERVICES:
        inner = f"<Error><Code>{escape(code)}</Code><Message>{escape(text)}</Message></Error>"
        body = f"<ErrorResponse>{inner}</ErrorResponse>"
        return Answer(status, [("Content-Type", "text/xml")], body.encode())
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-errortype", code)]
    return Answer(status, headers, json.dumps({"__type": code, "message": text}).encode())


def _xml_error(status: int, code: str, text: str) -> Answer:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(code)}</Code><Message>{escape(text)}</Message></Error>"
    )
    return Answer(status, [("Content-Type", "application/xml")], body.encode())
