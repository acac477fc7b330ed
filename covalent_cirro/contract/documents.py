"""Writes the call and the outcome as JSON within the limits, and reads them with every field checked (`codec`).

Executor and runner import this file. It does no I/O and needs the standard library only, like `protocol`, which has the
types.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from covalent_cirro.contract import codec, limits, texts
from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.contract.fields import load
from covalent_cirro.contract.limits import (
    MAX_DOCUMENT_BYTES,
    MAX_OUTCOME_BYTES,
)
from covalent_cirro.contract.maps import (
    ItemResults,
)
from covalent_cirro.contract.problems import FORMAT
from covalent_cirro.contract.protocol import (
    Call,
    NodeResult,
    Outcome,
    Reused,
    mac,
)

# --- writing ----------------------------------------------------------------------------------------------------


def dump_call(call: Call) -> bytes:
    """The bytes of ``call.json``."""
    document = {"format": FORMAT, **codec.dump(call)}
    for task, made in zip(call.tasks, document["tasks"], strict=True):
        made["arguments"] = dict(task.arguments)
    return json.dumps(document, separators=(",", ":")).encode()


def dump_items(items: ItemResults) -> dict[str, Any]:
    """The results of items as JSON. `parse_items` reads it, whatever the items raised."""
    fitted = _fitting([each.failure for each in items.failures])
    dumped: dict[str, Any] = codec.dump(_items_within_limits(items, fitted))
    return dumped


def dump_outcome(outcome: Outcome, mac_key: str = "") -> bytes:
    """The bytes of ``outcome.json``. `parse_outcome` accepts them, whatever the electrons raised, returned and printed.

    Args:
        outcome: What to write.
        mac_key: MAC key of the job, for the message authentication code at the end of the document.
    """
    kept = _within_limits(outcome)
    document = {"format": FORMAT, **codec.dump(kept)}
    del document["mac"], document["digest"]
    if not kept.nodes:
        del document["nodes"]
    for result, made in zip(kept.results, document["results"], strict=True):
        if result.items is None:
            del made["items"]
        else:
            made["items"] = dump_items(result.items)
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
    items = [each for result in outcome.results if result.items is not None for each in result.items.failures]
    failures = [result.failure for result in outcome.results if result.failure is not None]
    failures += [each.failure for each in items]
    doc = limits.share((len(each.doc) for each in outputs), limits.DOC_CHARS, limits.ALL_DOCS_CHARS)
    fitted = _fitting(failures)

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
        nodes=tuple(
            each._replace(
                cpu_s=_number(each.cpu_s),
                peak_memory_bytes=_known(each.peak_memory_bytes),
                instance_type=texts.fitted(each.instance_type, limits.ID_CHARS),
                instance_id=texts.fitted(each.instance_id, limits.ID_CHARS),
            )
            for each in outcome.nodes[: limits.MAX_NODES]
        ),
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
    return items._replace(
        failures=tuple(each._replace(failure=fitted(each.failure)) for each in items.failures),
        seconds=tuple(round(_number(each), 3) for each in items.seconds),
    )


def _number(value: float) -> float:
    """The number, or 0 if it is no number from 0 to the limit, as after a clock was set back."""
    return value if math.isfinite(value) and 0 <= value <= limits.MAX_NUMBER else 0.0


def _known(value: int | None) -> int | None:
    """The measured number; `None` if it is impossible."""
    return value if value is not None and 0 <= value <= limits.MAX_NUMBER else None


# --- reading ----------------------------------------------------------------------------------------------------


def parse_call(data: bytes) -> Call:
    """Read ``call.json``.

    Raises:
        UnknownFormat: Another format version.
        ProtocolError: Malformed; the message names the place.
    """
    return codec.read(Call, load(data, "call.json", MAX_DOCUMENT_BYTES), "call.json")


def parse_items(value: object, path: str) -> ItemResults:
    """Read the results of items.

    Raises:
        ProtocolError: Malformed, or beyond the limits; the message names the place.
    """
    return codec.read(ItemResults, value, path)


def parse_outcome(data: bytes) -> Outcome:
    """Read ``outcome.json``. Any job may have written it: texts are cut, and any other value beyond a limit is refused.

    Raises:
        UnknownFormat: Another format version.
        ProtocolError: Malformed, or beyond the limits; the message names the place.
    """
    fields = load(data, "outcome.json", MAX_OUTCOME_BYTES)
    # Both follow from the bytes, whatever the document says.
    fields = {key: value for key, value in fields.items() if key not in ("mac", "digest")}
    outcome = codec.read(Outcome, fields, "outcome.json")
    authenticated = _MAC.fullmatch(data, max(0, len(data) - _MAC_BYTES))
    if authenticated is None:
        return outcome
    return outcome._replace(mac=authenticated[1].decode(), digest=_digest(data[: authenticated.start()]))


# --- reuse ------------------------------------------------------------------------------------------------------


def dump_reused(reused: Reused) -> bytes:
    """The bytes of ``reused.json``."""
    document = {"format": FORMAT, **codec.dump(reused), "arguments": dict(reused.arguments)}
    return json.dumps(document, separators=(",", ":")).encode()


def parse_reused(data: bytes) -> Reused:
    """Read ``reused.json``.

    Raises:
        UnknownFormat: Another format version.
        ProtocolError: Malformed; the message names the place.
    """
    return codec.read(Reused, load(data, "reused.json", MAX_DOCUMENT_BYTES), "reused.json")
