"""The one application behind the port: our AWS Batch, moto for the rest, and between them counting and faults.

Routes under ``/_cirro/`` are the emulator's own (`control`). It must not know what services do with a request.
"""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from covalent_cirro.emulator import batch_api, operations, s3_objects
from covalent_cirro.emulator.batch import Batch
from covalent_cirro.emulator.batch_api import Answer, Limits
from covalent_cirro.emulator.calls import Calls
from covalent_cirro.emulator.faults import Fault, Faults
from covalent_cirro.emulator.operations import Operation
from covalent_cirro.emulator.server import Application, Cut, Environ, StartResponse
from covalent_cirro.emulator.validation import Refused

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 409: "Conflict", 429: "Too Many Requests"}
LOCKS = 64
"""Conditional writes to one key go one after another; so many keys at once."""
WRITES = frozenset(("PutObject", "CompleteMultipartUpload", "CopyObject", "DeleteObject"))
XML_SERVICES = frozenset(("s3", "sts", "iam", "ec2", "cloudformation"))
OWN_KEY = "CIRROEMULATOR0000000"
"""Access key of the emulator's calls to itself: not counted, not hit by faults."""
WRONG_DIGEST = "The digest you specified did not match what we received."
CUT_AFTER_BYTES = 64
"""A connection that is cut during its answer has sent so much of the body."""


@dataclass
class Front:
    """WSGI application.

    Attributes:
        account: All callers belong to it.
        region: For requests that name none.
        moto: moto's application.
        batch: The Batch of a region, made when first asked for.
        control: Answers requests under ``/_cirro/``.
        is_job: Whether an access key was given to a job.
    """

    account: str
    region: str
    moto: Application
    batch: Callable[[str], Batch]
    control: Callable[[str, str, str, bytes], Answer]
    is_job: Callable[[str | None], bool]
    faults: Faults
    calls: Calls
    limits: Limits
    _locks: list[threading.Lock] = field(default_factory=lambda: [threading.Lock() for _ in range(LOCKS)])

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        if path.startswith("/_cirro/"):
            body = environ["wsgi.input"].read()
            return _give(self.control(environ["REQUEST_METHOD"], path, environ["QUERY_STRING"], body), start)
        return self._counted(environ, start)

    def _counted(self, environ: Environ, start: StartResponse) -> Iterator[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        asked = operations.identify(environ, batch_api.operation, lambda: _whole_body(environ))
        if asked.access_key == OWN_KEY:
            yield from self._dispatch(environ, asked, start)
            return
        caller = "job" if self.is_job(asked.access_key) else "client"
        name = f"{asked.service}:{asked.name}"
        sent = _Sent()
        try:
            yield from self._with_faults(environ, asked, caller, start, sent)
        finally:
            self.calls.add(caller, name, length, sent.bytes)

    def _with_faults(
        self, environ: Environ, asked: Operation, caller: str, start: StartResponse, sent: _Sent
    ) -> Iterator[bytes]:
        faults = {fault.kind: fault for fault in self.faults.take_request(asked.service, asked.name, caller)}
        if "slow" in faults:
            time.sleep(faults["slow"].seconds)
        cut = faults.get("cut")
        if cut is not None and cut.when == "before":
            raise Cut
        answer = _fault_answer(faults, asked.service)
        parts = self._dispatch(environ, asked, start) if answer is None else _give(answer, start)
        if cut is not None and cut.when == "after":
            for _ in parts:
                pass
            raise Cut
        speed = faults["slow"].bytes_per_s if "slow" in faults else None
        try:
            for part in parts:
                if cut is not None:
                    yield part[: min(CUT_AFTER_BYTES, len(part) // 2)]
                    yield b""
                    raise Cut
                sent.bytes += len(part)
                if speed is None:
                    yield part
                else:
                    yield from _slowly(part, speed)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _dispatch(self, environ: Environ, asked: Operation, start: StartResponse) -> Iterable[bytes]:
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
            return _give(answer, start)
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self.account
        if asked.service == "cloudformation":
            from covalent_cirro.emulator import stack_install

            stack_install.install()
        if asked.service != "s3" or asked.name not in WRITES | {"UploadPart"}:
            return self.moto(environ, start)
        try:
            s3_objects.take_body(environ)
        except s3_objects.WrongDigest as wrong:
            return _give(_xml_error(400, str(wrong), WRONG_DIGEST), start)
        if asked.name == "UploadPart":
            return self.moto(environ, start)
        # moto looks whether the key is there and then writes: two conditional writers could both win.
        lock = self._locks[zlib.crc32(environ["PATH_INFO"].encode("latin-1")) % LOCKS]
        with lock:
            return self.moto(environ, start)


@dataclass
class _Sent:
    bytes: int = 0


def _whole_body(environ: Environ) -> bytes:
    body: bytes = environ["wsgi.input"].read()
    environ["wsgi.input"] = s3_objects.Whole(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def _give(answer: Answer, start: StartResponse) -> Iterable[bytes]:
    headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    start(f"{answer.status} {REASONS.get(answer.status, 'Error')}", headers)
    return [answer.body]


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
    if "error" in faults:
        fault = faults["error"]
        usual = "InternalError" if fault.status == 500 else "ServiceUnavailable"
        if service == "batch":
            code = fault.code or "ServerException"
            return batch_api.failure(Refused("Internal server error", code=code, status=fault.status))
        return _error(service, fault.status, fault.code or usual, "We encountered an internal error. Please try again.")
    if "conflict" in faults:
        text = "The conditional request cannot succeed due to a conflicting operation against this resource."
        return _error(service, 409, faults["conflict"].code or "ConditionalRequestConflict", text)
    return None


def _error(service: str, status: int, code: str, text: str) -> Answer:
    if service == "s3":
        return _xml_error(status, code, text)
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


def json_answer(value: Any, status: int = 200) -> Answer:
    """An answer of the emulator's own."""
    return Answer(status, [("Content-Type", "application/json")], json.dumps(value).encode())
