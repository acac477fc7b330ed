"""Writes the call and the outcome as JSON within the limits, and reads them with every field checked.

Executor and runner import this file. It does no I/O and needs the standard library only, like `protocol`, which has the
types.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from covalent_cirro.contract import limits, log_parts, texts
from covalent_cirro.contract.failure_kinds import KINDS, Failure
from covalent_cirro.contract.fields import Fields, load, shown
from covalent_cirro.contract.limits import MAX_ATTEMPT, MAX_OUTCOME_BYTES, MAX_TASKS
from covalent_cirro.contract.maps import (
    MAX_BODIES,
    MAX_CHILD_ITEMS,
    MAX_CHILDREN,
    MAX_CHUNKS,
    MAX_FAILURES_TOLD,
    MAX_ITEMS,
    Chunk,
    ItemFailure,
    ItemResults,
    Mapped,
    MappedArgument,
    Span,
)
from covalent_cirro.contract.protocol import (
    FORMAT,
    INLINE_BYTES,
    LOG_TAIL_BYTES,
    MAX_DOCUMENT_BYTES,
    Arguments,
    Call,
    Log,
    NodeResult,
    Outcome,
    Output,
    Package,
    ProtocolError,
    Reused,
    Task,
    Tried,
    Usage,
    mac,
)
from covalent_cirro.contract.references import Blob, Inline, Input, Joined, NodeOutput, Ref

# --- writing ----------------------------------------------------------------------------------------------------


def _ref_json(ref: Input) -> dict[str, Any]:
    if isinstance(ref, Inline):
        return {"inline": base64.b64encode(ref.data).decode("ascii")}
    if isinstance(ref, NodeOutput):
        return {"node": ref.node_id}
    if isinstance(ref, Joined):
        return {"bodies": [_ref_json(body) for body in ref.bodies]}
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
            "arguments": dict(task.arguments),
            "mapped": None if task.mapped is None else _mapped_json(task.mapped),
        }
        for task in call.tasks
    ]
    packages = [{"name": package.name, "archive": _ref_json(package.archive)} for package in call.packages]
    tried = [each._asdict() for each in call.tried]
    document = {**call._asdict(), "format": FORMAT, "tasks": tasks, "packages": packages, "tried": tried}
    return json.dumps(document, separators=(",", ":")).encode()


def _mapped_json(mapped: Mapped) -> dict[str, Any]:
    arguments = [
        {
            "name": each.name,
            "sources": [_ref_json(source) for source in each.sources],
            "spans": [[number for span in spans for number in span] for spans in each.spans],
        }
        for each in mapped.arguments
    ]
    return {**mapped._asdict(), "arguments": arguments}


def items_json(items: ItemResults) -> dict[str, Any]:
    """The results of items as JSON; `parse_items` reads it."""
    more: dict[str, list[int]] = {}
    for each in items.failures[MAX_FAILURES_TOLD:]:
        ranges = more.setdefault(each.failure.kind, [])
        if ranges and ranges[-1] == each.item:
            ranges[-1] += 1
        else:
            ranges += [each.item, each.item + 1]
    told = items.failures[:MAX_FAILURES_TOLD]
    return {
        "chunks": [{"first": each.first, "stop": each.stop, "body": _ref_json(each.body)} for each in items.chunks],
        "failures": [{"item": each.item, **each.failure._asdict()} for each in told],
        "more_failures": more,  # for each kind: first and stop of each range of items
        "seconds": [round(each, 3) for each in items.seconds],
    }


def dump_outcome(outcome: Outcome, mac_key: str = "") -> bytes:
    """The bytes of ``outcome.json``. `parse_outcome` accepts them, whatever the electrons raised, returned and printed.

    Args:
        outcome: What to write.
        mac_key: MAC key of the job, for the message authentication code at the end of the document.
    """
    kept = _within_limits(outcome)
    results = []
    for result in kept.results:
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
                **({} if result.items is None else {"items": items_json(result.items)}),
            }
        )
    document = {**kept._asdict(), "format": FORMAT, "results": results, "usage": kept.usage._asdict()}
    del document["mac"], document["digest"]
    # Not escaped: an escaped character outside of ASCII takes up to twelve bytes.
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return data[:-1] + b',"mac":"' + mac(_digest(data[:-1]), mac_key).encode() + b'"}' if mac_key else data


_MAC = re.compile(rb',"mac":"([0-9a-f]{64})"\}')
_MAC_BYTES = len(b',"mac":"') + 64 + len(b'"}')


def _digest(data: bytes) -> bytes:
    import hashlib  # loaded where it is needed: not before an electron runs

    return hashlib.sha256(data).digest()


def _within_limits(outcome: Outcome) -> Outcome:
    """The outcome with texts and numbers within the limits of the reader."""
    outputs = [result.output for result in outcome.results if result.output is not None]
    items = [
        each
        for result in outcome.results
        if result.items is not None
        for each in result.items.failures[:MAX_FAILURES_TOLD]
    ]
    failures = [result.failure for result in outcome.results if result.failure is not None]
    failures += [each.failure for each in items]
    fitted = _fitting(failures)
    doc = limits.share((len(each.doc) for each in outputs), limits.DOC_CHARS, limits.ALL_DOCS_CHARS)

    def result(of: NodeResult) -> NodeResult:
        output, failure, items = of.output, of.failure, of.items
        if output is not None:
            output = output._replace(
                name=texts.fitted(output.name, limits.NAME_CHARS), doc=texts.fitted(output.doc, doc)
            )
        if failure is not None:
            failure = fitted(failure)
        if items is not None:
            items = _items_within_limits(items, fitted)
        return of._replace(output=output, failure=failure, items=items)

    usage = outcome.usage
    return outcome._replace(
        results=tuple(result(each) for each in outcome.results),
        usage=usage._replace(
            wall_s=_number(usage.wall_s),
            cpu_s=_number(usage.cpu_s),
            peak_memory_bytes=_known(usage.peak_memory_bytes),
            memory_limit_bytes=_known(usage.memory_limit_bytes),
            oom_kills=_known(usage.oom_kills),
            gpus=tuple(
                {**gpu, "name": texts.fitted(gpu["name"], limits.FACT_CHARS)} for gpu in usage.gpus[: limits.MAX_GPUS]
            ),
        ),
        host={key: texts.fitted(value, limits.FACT_CHARS) for key, value in outcome.host.items()},
        times={key: at for key, at in outcome.times.items() if 0 <= at <= limits.LATEST_S},
        cloudpickle=texts.fitted(outcome.cloudpickle, limits.ID_CHARS),
    )


def _fitting(failures: Sequence[Failure]) -> Callable[[Failure], Failure]:
    """A function that cuts the texts of each of these failures, so that all of them have room."""
    message = limits.share((len(each.message) for each in failures), limits.MESSAGE_CHARS, limits.ALL_MESSAGES_CHARS)
    traceback = limits.share(
        (len(each.traceback) for each in failures), limits.TRACEBACK_CHARS, limits.ALL_TRACEBACKS_CHARS
    )
    module = limits.share((len(each.module) for each in failures), limits.NAME_CHARS, limits.ALL_MODULES_CHARS)

    def fitted(failure: Failure) -> Failure:
        return failure._replace(
            message=texts.fitted(failure.message, message),
            traceback=texts.fitted(failure.traceback, traceback),
            module=texts.fitted(failure.module, module),
            signal=texts.fitted(failure.signal, limits.ID_CHARS),
        )

    return fitted


def _items_within_limits(items: ItemResults, fitted: Callable[[Failure], Failure]) -> ItemResults:
    told, more = items.failures[:MAX_FAILURES_TOLD], items.failures[MAX_FAILURES_TOLD:]
    return items._replace(
        failures=(*(each._replace(failure=fitted(each.failure)) for each in told), *more),
        seconds=tuple(_number(each) for each in items.seconds),
    )


def items_document(items: ItemResults) -> dict[str, Any]:
    """The results of items as JSON that `parse_items` accepts, whatever the items raised."""
    told = [each.failure for each in items.failures[:MAX_FAILURES_TOLD]]
    return items_json(_items_within_limits(items, _fitting(told)))


def _number(value: float) -> float:
    """The number, or 0 if it is no number from 0 to the limit, as after a clock was set back."""
    return value if math.isfinite(value) and 0 <= value <= limits.MAX_NUMBER else 0.0


def _known(value: int | None) -> int | None:
    """The measured number; `None` if it is impossible."""
    return value if value is not None and 0 <= value <= limits.MAX_NUMBER else None


# --- reading ----------------------------------------------------------------------------------------------------

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _parse_blob(fields: Fields) -> Blob:
    sha256, codec = fields.text("sha256"), fields.text("codec")
    if _SHA256.fullmatch(sha256) is None:
        raise ProtocolError(f"{fields.path}.sha256 is not a SHA-256 in hex")
    if codec not in ("raw", "zlib"):
        raise ProtocolError(f"{fields.path}.codec is {shown(codec)}, known are raw and zlib")
    return Blob(sha256, fields.whole("size"), codec, fields.whole("raw_size"))


def _parse_ref(value: object, path: str, most_inline: int = MAX_DOCUMENT_BYTES) -> Ref:
    fields = Fields(value, path)
    if fields.raw("inline") is None:
        return _parse_blob(fields)
    try:
        data = base64.b64decode(fields.text("inline", MAX_DOCUMENT_BYTES), validate=True)
    except binascii.Error as error:
        raise ProtocolError(f"{path}.inline is not base64") from error
    if len(data) > most_inline:
        raise ProtocolError(f"{path}.inline has {len(data)} bytes, more than {most_inline}")
    return Inline(data)


def _parse_input(value: object, path: str) -> Input:
    fields = Fields(value, path)
    if fields.raw("bodies") is not None:
        bodies = fields.items("bodies", MAX_BODIES)
        return Joined(tuple(_parse_ref(body, f"{path}.bodies[{i}]") for i, body in enumerate(bodies)))
    return NodeOutput(fields.whole("node")) if fields.raw("node") is not None else _parse_ref(value, path)


def _parse_mapped(fields: Fields) -> Mapped:
    length = fields.whole("length", MAX_ITEMS)
    ranges = fields.items("children", MAX_CHILDREN)
    children = tuple(_pair(each, f"{fields.path}.children[{i}]") for i, each in enumerate(ranges))
    if not children or any(not first < stop <= length for first, stop in children):
        raise ProtocolError(f"{fields.path}.children are not ranges of the {length} items")
    if any(stop - first > MAX_CHILD_ITEMS for first, stop in children):
        raise ProtocolError(f"{fields.path}.children has one with more than {MAX_CHILD_ITEMS} items")
    arguments = []
    for i, value in enumerate(fields.items("arguments", limits.MAX_ARGUMENTS)):
        each = Fields(value, f"{fields.path}.arguments[{i}]")
        sources = tuple(_parse_ref(ref, f"{each.path}.sources[{j}]") for j, ref in enumerate(each.items("sources")))
        spans = tuple(
            _parse_spans(one, len(sources), f"{each.path}.spans[{j}]") for j, one in enumerate(each.items("spans"))
        )
        if len(spans) != len(children):
            raise ProtocolError(f"{each.path}.spans has {len(spans)} entries for {len(children)} children")
        arguments.append(MappedArgument(each.text("name", limits.NAME_CHARS), sources, spans))
    if not arguments:
        raise ProtocolError(f"{fields.path}.arguments is empty")
    return Mapped(length, children, tuple(arguments), max(1, fields.whole("parallel")), fields.text("on_error"))


def _pair(value: object, path: str) -> tuple[int, int]:
    if not (isinstance(value, list) and len(value) == 2 and all(type(each) is int and each >= 0 for each in value)):
        raise ProtocolError(f"{path} is not a pair of whole numbers")
    return value[0], value[1]


def _parse_spans(value: object, sources: int, path: str) -> tuple[Span, ...]:
    if not (isinstance(value, list) and len(value) % 3 == 0 and all(type(each) is int and each >= 0 for each in value)):
        raise ProtocolError(f"{path} is not a list of spans")
    spans = tuple(Span(*value[i : i + 3]) for i in range(0, len(value), 3))
    if any(span.source >= sources for span in spans):
        raise ProtocolError(f"{path} names a source that is not there")
    return spans


def parse_call(data: bytes) -> Call:
    """Read ``call.json``.

    Raises:
        UnknownFormat: Another format version.
        ProtocolError: Malformed; the message names the place.
    """
    fields = load(data, "call.json", MAX_DOCUMENT_BYTES)
    tasks = []
    for i, value in enumerate(fields.items("tasks", MAX_TASKS)):
        path = f"call.json.tasks[{i}]"
        task = Fields(value, path)
        hooks = task.raw("hooks")
        args, kwargs = task.items("args"), task.mapping("kwargs")
        tasks.append(
            Task(
                node_id=task.whole("node_id"),
                name=task.text("name", limits.ELECTRON_CHARS),
                function=_parse_ref(task.raw("function"), f"{path}.function"),
                hooks=None if hooks is None else _parse_ref(hooks, f"{path}.hooks"),
                args=tuple(_parse_input(ref, f"{path}.args[{j}]") for j, ref in enumerate(args)),
                kwargs={key: _parse_input(ref, f"{path}.kwargs[{shown(key)}]") for key, ref in kwargs.items()},
                arguments=_parse_arguments(task),
                mapped=None if task.raw("mapped") is None else _parse_mapped(task.inner("mapped")),
            )
        )
    packages = []
    for i, value in enumerate(fields.items("packages")):
        package = Fields(value, f"call.json.packages[{i}]")
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
        image=fields.text("image", _URI_CHARS) if fields.raw("image") is not None else "",
        lattice=fields.text("lattice", limits.ELECTRON_CHARS) if fields.raw("lattice") is not None else "",
        not_reused=fields.text("not_reused", limits.MESSAGE_CHARS) if fields.raw("not_reused") is not None else "",
    )


def _parse_arguments(fields: Fields) -> Arguments:
    """A summary of arguments; empty in a document of an older covalent-cirro, which has none.

    It is only shown: what has another form is left out, and the document can be used.
    """
    given = fields.raw("arguments")
    found = [(name, text) for name, text in given.items() if isinstance(text, str)] if isinstance(given, dict) else []
    return tuple(
        (texts.fitted(name, limits.ARGUMENT_NAME_CHARS), texts.fitted(text, limits.ARGUMENT_CHARS))
        for name, text in found[: limits.MAX_ARGUMENTS]
    )


_URI_CHARS = 1024

_MAX_TRIED = 100

_CALL_ID = re.compile(r"[^/\s]{1,64}")


def _parse_tried(fields: Fields) -> tuple[Tried, ...]:
    tried = []
    for i, value in enumerate(fields.items("tried", _MAX_TRIED) if fields.raw("tried") is not None else ()):
        each = Fields(value, f"call.json.tried[{i}]")
        call_id = each.text("call_id")
        if _CALL_ID.fullmatch(call_id) is None:
            # It becomes part of a key, which must not leave the node's own folder.
            raise ProtocolError(f"{each.path}.call_id is {shown(call_id)}, which is not the id of a call")
        tried.append(
            Tried(
                call_id=call_id,
                job_id=each.text("job_id"),
                end=each.text("end"),
                attempts=each.whole("attempts", MAX_ATTEMPT),
                memory_mib=each.whole("memory_mib"),
                queue=each.text("queue"),
                reached_bytes=each.maybe_whole("reached_bytes"),
                next_memory_mib=each.whole("next_memory_mib"),
                next_queue=each.text("next_queue"),
            )
        )
    return tuple(tried)


def parse_outcome(data: bytes) -> Outcome:
    """Read ``outcome.json``. Any job may have written it: texts are cut, and any other value beyond a limit is refused.

    Raises:
        UnknownFormat: Another format version.
        ProtocolError: Malformed, or beyond the limits; the message names the place.
    """
    fields = load(data, "outcome.json", MAX_OUTCOME_BYTES)
    usage, times = fields.inner("usage"), fields.inner("times")
    attempt = fields.whole("attempt", MAX_ATTEMPT)
    results: dict[int, NodeResult] = {}
    last_parts = dict.fromkeys(log_parts.STREAMS, -1)
    for i, value in enumerate(fields.items("results", MAX_TASKS)):
        result = _parse_result(Fields(value, f"outcome.json.results[{i}]"), attempt, last_parts)
        if results.setdefault(result.node_id, result) is not result:
            raise ProtocolError(f"outcome.json.results has node {result.node_id} twice")
    authenticated = _MAC.fullmatch(data, max(0, len(data) - _MAC_BYTES))
    return Outcome(
        call_id=fields.text("call_id"),
        attempt=attempt,
        job_id=fields.text("job_id"),
        results=tuple(results.values()),
        usage=Usage(
            wall_s=usage.number("wall_s"),
            cpu_s=usage.number("cpu_s"),
            peak_memory_bytes=usage.maybe_whole("peak_memory_bytes"),
            memory_limit_bytes=usage.maybe_whole("memory_limit_bytes"),
            gpus=tuple(
                _parse_gpu(Fields(value, f"outcome.json.usage.gpus[{i}]"))
                for i, value in enumerate(usage.items("gpus", limits.MAX_GPUS))
            ),
            oom_kills=usage.maybe_whole("oom_kills"),  # a runner that does not count them leaves it out
        ),
        python=fields.text("python"),
        cloudpickle=fields.text("cloudpickle"),
        host=_parse_host(fields),
        times={
            texts.fitted(key, limits.ID_CHARS): times.number(key, limits.LATEST_S)
            for key in fields.mapping("times", limits.MAX_FACTS)
        },
        mac=authenticated[1].decode() if authenticated is not None else "",
        digest=_digest(data[: authenticated.start()]) if authenticated is not None else b"",
    )


def _parse_result(fields: Fields, attempt: int, last_parts: dict[str, int]) -> NodeResult:
    output: Output | None = None
    failure: Failure | None = None
    if fields.raw("output") is not None:
        of = fields.inner("output")
        output = Output(
            pickle=_parse_ref(of.raw("pickle"), f"{of.path}.pickle", INLINE_BYTES),
            string=_parse_ref(of.raw("string"), f"{of.path}.string", INLINE_BYTES),
            name=of.text("name", limits.NAME_CHARS),
            doc=of.text("doc", limits.DOC_CHARS),
        )
    if fields.raw("failure") is not None:
        failure = _parse_failure(fields.inner("failure"))
    items = None if fields.raw("items") is None else parse_items(fields.inner("items"))
    if (output is None) == (failure is None and items is None):
        raise ProtocolError(f"{fields.path} must have either an output or a failure")
    return NodeResult(
        node_id=fields.whole("node_id"),
        output=output,
        failure=failure,
        stdout=_parse_log(fields.inner("stdout"), log_parts.STDOUT, attempt, last_parts),
        stderr=_parse_log(fields.inner("stderr"), log_parts.STDERR, attempt, last_parts),
        items=items,
    )


def _parse_failure(fields: Fields) -> Failure:
    failure = Failure(
        kind=fields.text("kind"),
        message=fields.text("message", limits.MESSAGE_CHARS),
        traceback=fields.text("traceback", limits.TRACEBACK_CHARS),
        module=fields.text("module", limits.NAME_CHARS),
        exit_code=fields.maybe_whole("exit_code", _MAX_EXIT_CODE),
        signal=fields.text("signal"),
    )
    if failure.kind not in KINDS:
        raise ProtocolError(f"{fields.path}.kind is {shown(failure.kind)}; known are {', '.join(sorted(KINDS))}")
    return failure


def parse_items(fields: Fields) -> ItemResults:
    """Read the results of items, which follow one another without gaps.

    Raises:
        ProtocolError: Malformed, or beyond the limits; the message names the place.
    """
    chunks: list[Chunk] = []
    for i, value in enumerate(fields.items("chunks", MAX_CHUNKS)):
        each = Fields(value, f"{fields.path}.chunks[{i}]")
        first, stop = each.whole("first", MAX_ITEMS), each.whole("stop", MAX_ITEMS)
        if first >= stop or (chunks and chunks[-1].stop != first):
            raise ProtocolError(f"{each.path} does not follow the chunk before it")
        chunks.append(Chunk(first, stop, _parse_ref(each.raw("body"), f"{each.path}.body", INLINE_BYTES)))
    failures = []
    for i, value in enumerate(fields.items("failures", MAX_FAILURES_TOLD)):
        each = Fields(value, f"{fields.path}.failures[{i}]")
        failures.append(ItemFailure(each.whole("item", MAX_ITEMS), _parse_failure(each)))
    failures += _parse_more_failures(fields)
    if any(one.item >= other.item for one, other in itertools.pairwise(failures)):
        raise ProtocolError(f"{fields.path}.failures are not in the order of the items")
    seconds = fields.items("seconds", MAX_CHILD_ITEMS)
    if not all(type(each) in (int, float) and 0 <= each <= limits.MAX_NUMBER for each in seconds):
        raise ProtocolError(f"{fields.path}.seconds is not a list of numbers")
    return ItemResults(tuple(chunks), tuple(failures), tuple(float(each) for each in seconds))


def _parse_more_failures(fields: Fields) -> list[ItemFailure]:
    """The failures of which a document has no text, in the order of the items."""
    found: list[ItemFailure] = []
    more = fields.inner("more_failures")
    for kind in fields.mapping("more_failures", len(KINDS)):
        if kind not in KINDS:
            raise ProtocolError(f"{more.path} has {shown(kind)}; known are {', '.join(sorted(KINDS))}")
        numbers = more.items(kind, MAX_CHILD_ITEMS + 1)
        last = [0, *numbers]
        if len(numbers) % 2 or any(type(each) is not int for each in numbers) or last != sorted(last):
            raise ProtocolError(f"{more.path}.{kind} are not ranges of items in order")
        for first, stop in zip(numbers[::2], numbers[1::2], strict=True):
            if stop > MAX_ITEMS or len(found) + stop - first > MAX_CHILD_ITEMS:
                raise ProtocolError(f"{more.path}.{kind} has more items than a job")
            found += [ItemFailure(item, Failure(kind, _NOT_TOLD)) for item in range(first, stop)]
    return sorted(found, key=lambda each: each.item)


_NOT_TOLD = f"its message is not kept: only those of the first {MAX_FAILURES_TOLD:,} failures of a job are"

_MAX_EXIT_CODE = 255


def _parse_log(fields: Fields, stream: str, attempt: int, last_parts: dict[str, int]) -> Log:
    """Read a log whose parts must follow all parts of the electrons before it, so that no part counts twice."""
    parts = fields.items("parts", limits.MAX_PARTS)
    for name in parts:
        # It becomes a key, which must not leave the call's own folder.
        part = log_parts.parse(name) if isinstance(name, str) else None
        if part is None:
            raise ProtocolError(f"{fields.path}.parts has {shown(name)}, which is not the name of a part")
        if (part.attempt, part.stream) != (attempt, stream):
            raise ProtocolError(f"{fields.path}.parts has {name}, which is not of {stream} of attempt {attempt}")
        if part.number <= last_parts[stream]:
            raise ProtocolError(f"{fields.path}.parts has {name} twice, or after a later one")
        last_parts[stream] = part.number
    return Log(fields.whole("size"), tuple(parts), fields.text("tail", LOG_TAIL_BYTES))


def _parse_gpu(fields: Fields) -> dict[str, Any]:
    return {
        "name": fields.text("name", limits.FACT_CHARS),
        "memory_bytes": fields.maybe_whole("memory_bytes"),
        "peak_memory_bytes": fields.maybe_whole("peak_memory_bytes"),
        "utilization": fields.maybe_number("utilization"),
    }


def _parse_host(fields: Fields) -> dict[str, str]:
    host = fields.inner("host")
    return {
        texts.fitted(key, limits.ID_CHARS): host.text(key, limits.FACT_CHARS)
        for key in fields.mapping("host", limits.MAX_FACTS)
    }


# --- reuse ------------------------------------------------------------------------------------------------------


def dump_reused(reused: Reused) -> bytes:
    """The bytes of ``reused.json``."""
    nodes = [dict(zip(("node_id", "name", "origin_node_id"), each, strict=True)) for each in reused.nodes]
    document = {**reused._asdict(), "format": FORMAT, "nodes": nodes, "arguments": dict(reused.arguments)}
    return json.dumps(document, separators=(",", ":")).encode()


def parse_reused(data: bytes) -> Reused:
    """Read ``reused.json``.

    Raises:
        UnknownFormat: Another format version.
        ProtocolError: Malformed; the message names the place.
    """
    fields = load(data, "reused.json", MAX_DOCUMENT_BYTES)
    nodes = []
    for i, value in enumerate(fields.items("nodes", MAX_TASKS)):
        each = Fields(value, f"reused.json.nodes[{i}]")
        nodes.append((each.whole("node_id"), each.text("name", limits.ELECTRON_CHARS), each.whole("origin_node_id")))
    if not nodes:
        raise ProtocolError("reused.json.nodes is empty")
    return Reused(
        dispatch_id=fields.text("dispatch_id"),
        lattice=fields.text("lattice", limits.ELECTRON_CHARS),
        origin=fields.text("origin", _URI_CHARS),
        job_id=fields.text("job_id"),
        at=fields.number("at", limits.LATEST_S),
        nodes=tuple(nodes),
        arguments=_parse_arguments(fields),
    )
