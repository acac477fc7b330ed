"""Writes Covalent's files from the outcome of a job: output, stdout, stderr and error of each electron of a call.

How a job ended is read from its outcome; from AWS Batch only where the job wrote none. Bytes are copied from S3 to
files and checked by their digests; nothing is unpickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import os
import platform
import shutil
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, TypeAlias, cast

from covalent_cirro import local_files
from covalent_cirro.aws.store import Store
from covalent_cirro.contract import tobj
from covalent_cirro.contract.failed_pickle import pickle_of_failed
from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.limits import MAX_OUTCOME_BYTES
from covalent_cirro.contract.maps import ItemResults
from covalent_cirro.contract.places import Location
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome, Output
from covalent_cirro.contract.references import Inline, Ref
from covalent_cirro.covalent_server.assets import Node
from covalent_cirro.electron import log_files
from covalent_cirro.electron.maps.list_writer import ListWriter
from covalent_cirro.errors import CirroError, OutcomeError, TooLarge
from covalent_cirro.jobs.authentic_outcomes import JOBS_KEPT_S, later_attempts, outcome_of, refused
from covalent_cirro.jobs.ends import End
from covalent_cirro.jobs.explanations import Explanation
from covalent_cirro.jobs.log_text import without_parts
from covalent_cirro.jobs.states import JobDetail

_COPY_BYTES = 1024 * 1024
SMALL_BYTES = 64 * 1024
"""Most bytes of an outcome that is parsed on the event loop: 4 ms at most, 0.2 ms for a usual outcome."""


class WrittenFile(NamedTuple):
    """A file that was written, as Covalent's database needs it.

    Attributes:
        size: Bytes.
        sha1: SHA-1 of the content, in hex.
    """

    size: int
    sha1: str


class Received(NamedTuple):
    """The end of one electron, whose files are written.

    Attributes:
        node_id: The electron's node.
        completed: Whether the electron has a result.
        files: Files that were written, by asset: ``output``, ``stdout``, ``stderr``, ``error``.
        end: Class of the end.
    """

    node_id: int
    completed: bool
    files: dict[str, WrittenFile]
    end: End = End.SUCCEEDED

    @property
    def cancelled(self) -> bool:
        """Whether it has no result since it was cancelled in Covalent, or by `cirro stop`."""
        return not self.completed and self.end is End.CANCELLED


AskJob: TypeAlias = Callable[[str], Awaitable[JobDetail | None]]
"""What AWS Batch says of a job; `None` where it does not know the id (`batch.BatchGateway.job`)."""

Explain: TypeAlias = Callable[..., Explanation]
"""``explain(node, result, problem="")`` says why an electron has no result. The result is `None` where the job left no
outcome; the problem is why a result that is there could not be read."""


async def read_outcome(store: Store, ask: AskJob, place: Location, detail: JobDetail | None = None) -> Outcome | None:
    """Read the outcome that a job of a call wrote.

    Args:
        store: Store of the account.
        ask: Asks AWS Batch for the job of the outcome, where ``detail`` is not that job.
        place: The call.
        detail: The job that was submitted for the call, as far as it is known.

    Returns:
        The outcome; `None` if there is none.

    Raises:
        OutcomeError: The outcome is malformed, of another format or call, or not written by a job of this call.
        AwsError: S3 or AWS Batch cannot be asked.
    """
    found = await _outcome_at(store, place, place.outcome_key)
    if found is None:
        return None
    outcome = found if isinstance(found, Outcome) else None
    if detail is None or detail.mac_key_of(place) is None:
        detail = await ask(outcome.job_id) if outcome is not None and outcome.job_id else None
    mac_key = detail.mac_key_of(place) if detail is not None else None
    if mac_key is None:
        if isinstance(found, OutcomeError):
            raise found
        if detail is None and time.time() - place.made_at > JOBS_KEPT_S:
            return found  # AWS Batch has forgotten the job
        raise refused(place, found, detail)
    for attempt in later_attempts(outcome, mac_key, detail):
        later = await _outcome_at(store, place, place.attempt_key(mac_key, attempt))
        if isinstance(later, Outcome) and later.is_authentic(mac_key):
            return later
    if isinstance(found, OutcomeError):
        raise found
    if not found.is_authentic(mac_key):
        raise refused(place, found, detail)
    return found


async def _outcome_at(store: Store, place: Location, key: str) -> Outcome | OutcomeError | None:
    """Read the object of a key: an outcome, the error if it is none, or `None` if there is no object."""
    try:
        data = await store.get_document(place.bucket, key, MAX_OUTCOME_BYTES)
        if data is None:
            return None
        # A large outcome is parsed in a thread, so that it does not block the event loop. For a small one, the start of
        # the thread would take longer.
        small = len(data) <= SMALL_BYTES
        return outcome_of(data, place) if small else await asyncio.to_thread(outcome_of, data, place)
    except OutcomeError as error:
        return error
    except TooLarge as error:
        return OutcomeError(f"The outcome of the job was refused: {error}")


async def write_results(
    store: Store, place: Location, outcome: Outcome, nodes: Mapping[int, Node], explain: Explain, before: str = ""
) -> list[Received]:
    """Write the results of an outcome into Covalent's files.

    Args:
        store: Store of the account.
        place: The call.
        outcome: The outcome.
        nodes: The electrons of the call.
        explain: Makes the error of an electron without a result.
        before: Text at the beginning of each stderr.

    Raises:
        OutcomeError: The outcome is of other electrons.
        LocalFileError: A file could not be written. Each file has its old or its new content.
    """
    results = {result.node_id: result for result in outcome.results}
    if results.keys() != nodes.keys():
        raise OutcomeError(
            f"The outcome of s3://{place.bucket}/{place.outcome_key} is about nodes {sorted(results)}, the job was for "
            f"{sorted(nodes)}; it was refused."
        )
    if any(result.failure and result.failure.kind == Kind.FETCH for result in outcome.results):
        store.distrust()
    # All electrons, also where one fails: no write may be under way when the caller repeats this.
    written = await asyncio.gather(
        *(
            _write_result(store, place, outcome, results[node_id], node, explain, before)
            for node_id, node in nodes.items()
        ),
        return_exceptions=True,
    )
    for one in written:
        if isinstance(one, BaseException):
            raise one
    return [one for one in written if isinstance(one, Received)]


async def _write_result(
    store: Store, place: Location, outcome: Outcome, result: NodeResult, node: Node, explain: Explain, before: str
) -> Received:
    files = {
        "stdout": await _write_log(store, place, result.stdout, node.paths["stdout"]),
        "stderr": await _write_log(store, place, result.stderr, node.paths["stderr"], before),
    }
    why = None if result.failure is None else explain(node, result)
    try:
        if result.output is not None:
            files["output"] = await _write_output(store, place, outcome, result.output, node.paths["output"])
        elif result.items is not None and result.failure is None:
            files["output"] = await _write_items(store, place, result.items, node.paths["output"])
    except CirroError as problem:
        if problem.passes:
            raise
        why = explain(node, result, str(problem))
    files["error"] = await asyncio.to_thread(write_text, node.paths["error"], why.text if why is not None else "")
    return Received(node.node_id, why is None, files, why.end if why is not None else End.SUCCEEDED)


async def write_failure(
    store: Store, place: Location, nodes: Mapping[int, Node], parts: Sequence[str], explain: Explain, before: str = ""
) -> list[Received]:
    """Write the errors of all electrons of a call without an outcome, and the log as far as it is in S3.

    Args:
        store: Store of the account.
        place: The call.
        nodes: The electrons of the call.
        parts: Names of the parts of the log.
        explain: Makes the error of an electron.
        before: Text at the beginning of each stderr.
    """
    received = []
    for index, node in enumerate(nodes.values()):
        files = {}
        for stream in ("stdout", "stderr"):
            # Without an outcome, the logs of the electrons cannot be told apart: the first electron gets all.
            names = [part for part in parts if f"/{stream}." in part] if index == 0 else []
            begin = before if stream == "stderr" else ""
            log = Log(parts=tuple(names))
            files[stream] = await _write_log(store, place, log, node.paths[stream], begin, whole=False)
        why = explain(node, None)
        files["error"] = await asyncio.to_thread(write_text, node.paths["error"], why.text)
        received.append(Received(node.node_id, False, files, why.end))
    return received


def return_error(one: Received, node: Node) -> Received:
    """Make the error of an electron its value (``on_error="return"``). One with a result, or cancelled, is left alone.

    Args:
        one: The end of the electron; its files are written.
        node: The electron.

    Returns:
        The end, with a value.
    """
    if one.completed or one.cancelled:
        return one
    with local_files.errors_about(node.paths["error"]), open(node.paths["error"], encoding="utf-8") as file:
        text = file.read().strip()
    fields = tobj.header_fields("", "", platform.python_version(), importlib.metadata.version("cloudpickle"))
    output = _write_inline(node.paths["output"], fields, text.encode(), pickle_of_failed(text))
    return one._replace(completed=True, files={**one.files, "output": output})


async def _write_log(
    store: Store, place: Location, log: Log, path: str, before: str = "", *, whole: bool = True
) -> WrittenFile:
    if not log.parts:
        text = log_files.as_text(without_parts(log)) if whole else ""
        return await asyncio.to_thread(write_text, path, before + text)
    with replacing(path, log.size) as file:
        file.write(before.encode())
        await log_files.write(store, place, log, file, whole=whole)
    return await asyncio.to_thread(measure, path)


async def _write_output(store: Store, place: Location, outcome: Outcome, output: Output, path: str) -> WrittenFile:
    fields = tobj.header_fields(output.name, output.doc, outcome.python, outcome.cloudpickle)
    if isinstance(output.pickle, Inline) and isinstance(output.string, Inline):
        return await asyncio.to_thread(_write_inline, path, fields, output.string.data, output.pickle.data)
    string_size = len(output.string.data) if isinstance(output.string, Inline) else output.string.raw_size
    pickle_size = len(output.pickle.data) if isinstance(output.pickle, Inline) else output.pickle.raw_size
    with replacing(path, string_size + tobj.encoded_size(pickle_size)) as file:
        tobj.write_head(file, fields, string_size)
        await _append(store, place, output.string, file, lambda: _Plain(file))
        await _append(store, place, output.pickle, file, lambda: tobj.PickleWriter(file))
    return await asyncio.to_thread(measure, path)


async def _write_items(store: Store, place: Location, items: ItemResults, path: str) -> WrittenFile:
    """Write the list of the results of a whole map (`maps/map_outcomes.py`)."""
    length = items.stop or 0
    with replacing(path) as file:
        writer = ListWriter(file, length)
        for chunk in items.chunks:
            await writer.add(store, place, chunk.stop, chunk.body)
        writer.close()
    await asyncio.to_thread(writer.check, path, length)
    return await asyncio.to_thread(measure, path)


async def _append(
    store: Store, place: Location, ref: Ref, file: BinaryIO, writer: Callable[[], tobj.PickleWriter | _Plain]
) -> None:
    start = file.tell()

    @contextlib.contextmanager
    def begin() -> Iterator[Callable[[bytes], object]]:
        # After an error the stream is read again from its start.
        file.seek(start)
        file.truncate()
        to = writer()
        yield to.write
        to.close()

    if isinstance(ref, Inline):
        with begin() as write:
            write(ref.data)
    else:
        await store.read_into(ref, place.bucket, place.prefix, begin)


class _Plain:
    """Writes bytes unchanged; takes the place of `tobj.PickleWriter`, which encodes them."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write

    def close(self) -> None:
        """Do nothing: all bytes are written."""


def _write_inline(path: str, fields: dict[str, object], string: bytes, data: bytes) -> WrittenFile:
    with replacing(path, len(string) + tobj.encoded_size(len(data))) as file:
        writer = tobj.Writer(file, fields, string)
        writer.write(data)
        writer.close()
    return measure(path)


def write_text(path: str, text: str) -> WrittenFile:
    """Replace a log or error file."""
    data = text.encode("utf-8", errors="replace")
    with replacing(path, len(data)) as file:
        file.write(data)
    return measure(path)


def measure(path: str) -> WrittenFile:
    """Size and SHA-1 of a file, read in pieces."""
    digest = hashlib.sha1(usedforsecurity=False)  # Covalent's choice (``_object_store/local.py``)
    with local_files.errors_about(path), open(path, "rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
        return WrittenFile(file.tell(), digest.hexdigest())


def take_file(source: str, path: str) -> WrittenFile:
    """Copy a file that untrusted code has left.

    Raises:
        ValueError: It is not there, or is no regular file: a link could lead to files that the code must not read.
    """
    try:
        file = open_untrusted(source)
    except OSError as error:
        raise ValueError(f"a file that it should have left cannot be taken: {error}") from error
    with file, replacing(path, os.fstat(file.fileno()).st_size) as to:
        written = Measured(to)
        shutil.copyfileobj(file, cast(BinaryIO, written), _COPY_BYTES)
        return written.measured()


def open_untrusted(path: str) -> BinaryIO:
    """Open a file that untrusted code has left.

    Raises:
        OSError: It is not there, or is a link or a device.
        ValueError: It is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"what was left as {os.path.basename(path)} is no file")
    return open(descriptor, "rb")


class Measured:
    """A file that is written from its beginning to its end, with its size and SHA-1."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha1(usedforsecurity=False)  # Covalent's choice (``_object_store/local.py``)
        self._size = 0

    def write(self, data: bytes) -> int:
        """Append bytes."""
        self._digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def measured(self) -> WrittenFile:
        """Size and SHA-1 of what was written so far."""
        return WrittenFile(self._size, self._digest.hexdigest())


@contextlib.contextmanager
def replacing(path: str, need: int = 0) -> Iterator[BinaryIO]:
    """Write a new file that replaces ``path`` when the block ends without an error: readers see the old or the new one.

    Args:
        path: The file.
        need: Approximate bytes of the new file, where they are known: where the disk has less room, the block does not
            begin.
    """
    temporary = f"{path}.new"
    with local_files.room_for(path, need, growing=temporary), local_files.errors_about(path, need=need):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(temporary, "w+b") as file:
                yield file
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
