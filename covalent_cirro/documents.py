"""The call and the outcome as JSON: written, and read with every field checked.

Both sides import this file. It does no I/O and needs the standard library only, as `protocol`, which has the shapes.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from covalent_cirro.protocol import (
    FORMAT,
    KINDS,
    MAX_DOCUMENT_BYTES,
    Blob,
    Call,
    Failure,
    Inline,
    Input,
    Log,
    NodeOutput,
    NodeResult,
    Outcome,
    Output,
    Package,
    ProtocolError,
    Ref,
    Reused,
    Task,
    Tried,
    UnknownFormat,
    Usage,
    mac,
)

# --- writing ----------------------------------------------------------------------------------------------------


def _ref_json(ref: Input) -> dict[str, Any]:
    if isinstance(ref, Inline):
        return {"inline": base64.b64encode(ref.data).decode("ascii")}
    if isinstance(ref, NodeOutput):
        return {"node": ref.node_id}
    return {"sha256": ref.sha256, "size": ref.size, "codec": ref.codec, "raw_size": ref.raw_size}


def dump_call(call: Call) -> bytes:
    """The bytes of ``call.json``."""
    tasks = [
        {
            "node_id": task.node_id,
            "name": task.name,
            "function": _ref_json(task.function),
            "hooks": None if task.hooks is None else _ref_json(task.hooks),
            "args": [_ref_json(ref) for ref in task.args],
            "kwargs": {key: _ref_json(ref) for key, ref in task.kwargs.items()},
        }
        for task in call.tasks
    ]
    packages = [{"name": package.name, "archive": _ref_json(package.archive)} for package in call.packages]
    tried = [each._asdict() for each in call.tried]
    document = {**call._asdict(), "format": FORMAT, "tasks": tasks, "packages": packages, "tried": tried}
    return json.dumps(document, separators=(",", ":")).encode()


def dump_outcome(outcome: Outcome, mac_key: str = "") -> bytes:
    """The bytes of ``outcome.json``, with the message authentication code of all that stands before it."""
    results = []
    for result in outcome.results:
        output = result.output
        results.append(
            {
                "node_id": result.node_id,
                "output": None
                if output is None
                else {
                    **output._asdict(),
                    "pickle": _ref_json(output.pickle),
                    "string": _ref_json(output.string),
                },
                "failure": None if result.failure is None else result.failure._asdict(),
                "stdout": result.stdout._asdict(),
                "stderr": result.stderr._asdict(),
            }
        )
    document = {**outcome._asdict(), "format": FORMAT, "results": results, "usage": outcome.usage._asdict()}
    del document["mac"], document["digest"]
    data = json.dumps(document, separators=(",", ":")).encode()
    return data[:-1] + b',"mac":"' + mac(_digest(data[:-1]), mac_key).encode() + b'"}' if mac_key else data


_MAC = re.compile(rb',"mac":"([0-9a-f]{64})"\}')
_MAC_BYTES = len(b',"mac":"') + 64 + len(b'"}')


def _digest(data: bytes) -> bytes:
    import hashlib  # loaded where it is needed: not before an electron runs

    return hashlib.sha256(data).digest()


# --- reading ----------------------------------------------------------------------------------------------------


class _Fields:
    """A JSON object whose fields are taken out by type; a wrong one names its path."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise ProtocolError(f"{path} is not an object")
        self._value = value
        self._path = path

    def _get(self, key: str, types: tuple[type, ...], what: str) -> Any:
        value = self._value.get(key)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ProtocolError(f"{self._path}.{key} is not {what}")
        return value

    def text(self, key: str) -> str:
        value: str = self._get(key, (str,), "a string")
        return value

    def whole(self, key: str) -> int:
        value: int = self._get(key, (int,), "a whole number")
        if value < 0:
            raise ProtocolError(f"{self._path}.{key} is negative")
        return value

    def number(self, key: str) -> float:
        return float(self._get(key, (int, float), "a number"))

    def maybe_whole(self, key: str) -> int | None:
        value: int | None = self._get(key, (int, type(None)), "a whole number or null")
        return value

    def items(self, key: str) -> list[Any]:
        value: list[Any] = self._get(key, (list,), "a list")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value: dict[str, Any] = self._get(key, (dict,), "an object")
        return value

    def raw(self, key: str) -> Any:
        return self._value.get(key)


_SHA256 = re.compile(r"[0-9a-f]{64}")


def _parse_blob(fields: _Fields, path: str) -> Blob:
    sha256, codec = fields.text("sha256"), fields.text("codec")
    if _SHA256.fullmatch(sha256) is None:
        raise ProtocolError(f"{path}.sha256 is not a SHA-256 in hex")
    if codec not in ("raw", "zlib"):
        raise ProtocolError(f"{path}.codec is {codec!r}, known are raw and zlib")
    return Blob(sha256, fields.whole("size"), codec, fields.whole("raw_size"))


def _parse_ref(value: object, path: str) -> Ref:
    fields = _Fields(value, path)
    if fields.raw("inline") is not None:
        try:
            return Inline(base64.b64decode(fields.text("inline"), validate=True))
        except binascii.Error as error:
            raise ProtocolError(f"{path}.inline is not base64") from error
    return _parse_blob(fields, path)


def _parse_input(value: object, path: str) -> Input:
    fields = _Fields(value, path)
    return NodeOutput(fields.whole("node")) if fields.raw("node") is not None else _parse_ref(value, path)


def _load(data: bytes, document: str) -> _Fields:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ProtocolError(
            f"{document} has {len(data)} bytes, more than the {MAX_DOCUMENT_BYTES} of any well-formed one"
        )
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{document} is not JSON: {error}") from error
    fields = _Fields(value, document)
    if fields.raw("format") != FORMAT:
        raise UnknownFormat(document, fields.raw("format"))
    return fields


def parse_call(data: bytes) -> Call:
    """Read ``call.json``.

    Raises:
        UnknownFormat: Another format version.
        ProtocolError: Malformed; the message names the place.
    """
    fields = _load(data, "call.json")
    tasks = []
    for i, value in enumerate(fields.items("tasks")):
        path = f"call.json.tasks[{i}]"
        task = _Fields(value, path)
        hooks = task.raw("hooks")
        tasks.append(
            Task(
                node_id=task.whole("node_id"),
                name=task.text("name"),
                function=_parse_ref(task.raw("function"), f"{path}.function"),
                hooks=None if hooks is None else _parse_ref(hooks, f"{path}.hooks"),
                args=tuple(_parse_input(ref, f"{path}.args[{j}]") for j, ref in enumerate(task.items("args"))),
                kwargs={
                    str(key): _parse_input(ref, f"{path}.kwargs[{key!r}]")
                    for key, ref in task.mapping("kwargs").items()
                },
            )
        )
    packages = []
    for i, value in enumerate(fields.items("packages")):
        package = _Fields(value, f"call.json.packages[{i}]")
        packages.append(
            Package(package.text("name"), _parse_ref(package.raw("archive"), f"call.json.packages[{i}].archive"))
        )
    return Call(
        call_id=fields.text("call_id"),
        dispatch_id=fields.text("dispatch_id"),
        python=fields.text("python"),
        cloudpickle=fields.text("cloudpickle"),
        covalent=fields.text("covalent"),
        tasks=tuple(tasks),
        packages=tuple(packages),
        tried=_parse_tried(fields),
        image=fields.text("image") if fields.raw("image") is not None else "",
    )


_CALL_ID = re.compile(r"[^/\s]{1,64}")


def _parse_tried(fields: _Fields) -> tuple[Tried, ...]:
    tried = []
    for i, value in enumerate(fields.items("tried") if fields.raw("tried") is not None else ()):
        path = f"call.json.tried[{i}]"
        each = _Fields(value, path)
        call_id = each.text("call_id")
        if _CALL_ID.fullmatch(call_id) is None:
            # It becomes part of a key: nothing that leaves the node's own folder.
            raise ProtocolError(f"{path}.call_id is {call_id!r}, which is not the id of a call")
        tried.append(
            Tried(
                call_id=call_id,
                job_id=each.text("job_id"),
                end=each.text("end"),
                attempts=each.whole("attempts"),
                memory_mib=each.whole("memory_mib"),
                queue=each.text("queue"),
                reached_bytes=each.maybe_whole("reached_bytes"),
                next_memory_mib=each.whole("next_memory_mib"),
                next_queue=each.text("next_queue"),
            )
        )
    return tuple(tried)


_PART = re.compile(r"\d{2,}/(stdout|stderr)\.\d{6,}")


def _parse_log(value: object, path: str) -> Log:
    fields = _Fields(value, path)
    parts = fields.items("parts")
    for part in parts:
        # A part's name becomes a key: nothing that leaves the call's own folder.
        if not isinstance(part, str) or _PART.fullmatch(part) is None:
            raise ProtocolError(f"{path}.parts has {part!r}, which is not the name of a part")
    return Log(fields.whole("size"), tuple(parts), fields.text("tail"))


def _parse_result(value: object, path: str) -> NodeResult:
    fields = _Fields(value, path)
    output: Output | None = None
    failure: Failure | None = None
    if fields.raw("output") is not None:
        of = _Fields(fields.raw("output"), f"{path}.output")
        output = Output(
            pickle=_parse_ref(of.raw("pickle"), f"{path}.output.pickle"),
            string=_parse_ref(of.raw("string"), f"{path}.output.string"),
            name=of.text("name"),
            doc=of.text("doc"),
        )
    if fields.raw("failure") is not None:
        ff = _Fields(fields.raw("failure"), f"{path}.failure")
        failure = Failure(
            kind=ff.text("kind"),
            message=ff.text("message"),
            traceback=ff.text("traceback"),
            module=ff.text("module"),
            exit_code=ff.maybe_whole("exit_code"),
            signal=ff.text("signal"),
        )
        if failure.kind not in KINDS:
            raise ProtocolError(f"{path}.failure.kind is {failure.kind!r}; known are {', '.join(sorted(KINDS))}")
    if (output is None) == (failure is None):
        raise ProtocolError(f"{path} must have either an output or a failure")
    return NodeResult(
        node_id=fields.whole("node_id"),
        output=output,
        failure=failure,
        stdout=_parse_log(fields.raw("stdout"), f"{path}.stdout"),
        stderr=_parse_log(fields.raw("stderr"), f"{path}.stderr"),
    )


def parse_outcome(data: bytes) -> Outcome:
    """Read ``outcome.json``.

    Raises:
        UnknownFormat: Another format version.
        ProtocolError: Malformed; the message names the place.
    """
    fields = _load(data, "outcome.json")
    usage = _Fields(fields.raw("usage"), "outcome.json.usage")
    gpus = usage.items("gpus")
    if not all(isinstance(gpu, dict) for gpu in gpus):
        raise ProtocolError("outcome.json.usage.gpus has an entry that is not an object")
    times = _Fields(fields.raw("times"), "outcome.json.times")
    authenticated = _MAC.fullmatch(data, max(0, len(data) - _MAC_BYTES))
    return Outcome(
        call_id=fields.text("call_id"),
        attempt=fields.whole("attempt"),
        job_id=fields.text("job_id"),
        results=tuple(
            _parse_result(value, f"outcome.json.results[{i}]") for i, value in enumerate(fields.items("results"))
        ),
        usage=Usage(
            wall_s=usage.number("wall_s"),
            cpu_s=usage.number("cpu_s"),
            peak_memory_bytes=usage.maybe_whole("peak_memory_bytes"),
            memory_limit_bytes=usage.maybe_whole("memory_limit_bytes"),
            gpus=tuple(gpus),
            oom_kills=usage.maybe_whole("oom_kills"),  # a runner that does not count leaves it out
        ),
        python=fields.text("python"),
        cloudpickle=fields.text("cloudpickle"),
        host={str(key): str(value) for key, value in fields.mapping("host").items()},
        times={str(key): times.number(str(key)) for key in fields.mapping("times")},
        mac=authenticated[1].decode() if authenticated is not None else "",
        digest=_digest(data[: authenticated.start()]) if authenticated is not None else b"",
    )


# --- reuse ------------------------------------------------------------------------------------------------------


def dump_reused(reused: Reused) -> bytes:
    """The bytes of ``reused.json``."""
    nodes = [dict(zip(("node_id", "name", "origin_node_id"), each, strict=True)) for each in reused.nodes]
    return json.dumps({**reused._asdict(), "format": FORMAT, "nodes": nodes}, separators=(",", ":")).encode()


def parse_reused(data: bytes) -> Reused:
    """Read ``reused.json``.

    Raises:
        UnknownFormat: Another format version.
        ProtocolError: Malformed; the message names the place.
    """
    fields = _load(data, "reused.json")
    nodes = []
    for i, value in enumerate(fields.items("nodes")):
        each = _Fields(value, f"reused.json.nodes[{i}]")
        nodes.append((each.whole("node_id"), each.text("name"), each.whole("origin_node_id")))
    if not nodes:
        raise ProtocolError("reused.json.nodes is empty")
    return Reused(
        dispatch_id=fields.text("dispatch_id"),
        lattice=fields.text("lattice"),
        origin=fields.text("origin"),
        job_id=fields.text("job_id"),
        at=fields.number("at"),
        nodes=tuple(nodes),
    )
