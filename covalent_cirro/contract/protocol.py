"""The protocol of executor and runner: S3 keys, the call, the outcome, exit codes, versions.

Executor and runner import this file, and nothing of each other. It does no I/O, reads no clock, and needs the standard
library only: the start of the runner waits for its import.

The executor writes one *call* (``call.json``) and submits a job whose only argument is the call's S3 URI. The runner
writes one *outcome* (``outcome.json``), last and once. Bytes that are too large for these documents are *blobs*.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple, TypeAlias

from covalent_cirro.contract import limits, log_parts, texts
from covalent_cirro.contract.failure_kinds import RUN_AGAIN, Failure
from covalent_cirro.contract.fields import Fields, mapping, number, shown, text
from covalent_cirro.contract.maps import ItemResults, Mapped, ReusedItems
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.references import Input, Ref, StoredInput

CALL_PARAMETER = "call"
"""The job definition's parameter that holds the call's URI; AWS Batch substitutes ``Ref::call`` in the command."""

ARGUMENTS_PARAMETER = "arguments"
"""The job's parameter that holds a summary of what its first electron was called with; no command refers to it."""

RUNNER_COMMAND = ("python", "-m", "covalent_cirro.runner", f"Ref::{CALL_PARAMETER}")
"""Command of every job definition."""

STOP_GRACE_S = 30
"""Seconds between SIGTERM and SIGKILL on AWS Batch (User Guide, Job timeouts)."""

CHECKPOINT_FORMAT = 1
"""Version of a checkpoint's index."""

CHECKPOINT_VARIABLE = "CIRRO_CHECKPOINT"
"""Variable of the electron's environment: the folder that electron and supervisor share for the checkpoint."""

CHECKPOINT_SOCKET = "socket"
"""Socket in that folder. A request is ``folder``, ``save`` or ``watch`` and a newline; the answer is JSON. In an
item of a mapped electron, a space and the item's index come before the newline; ``done`` says that the item ended."""

ITEM_FOLDER = "item-{}"
"""Folder in that folder that exists once an item has sent a request."""

ATTEMPT_VARIABLE = "CIRRO_ATTEMPT"
"""Variable of the electron's environment: the number of its attempt, from 1, counted over all its tries."""

STORED_VARIABLE = "CIRRO_STORED"
"""Variable of the environment that says what the handle of a stored value (`stored_references.py`) becomes where it is
unpickled: in a job the folder of the runner, which gives the value; on the server's host `STORED_KEPT`, a handle, or
`STORED_REFUSED`, an error. Where it is not set, the process belongs to a user, or to another executor."""

STORED_KEPT, STORED_REFUSED = "kept", "refused"

STORED_SOCKET = "stored.socket"
"""Socket in the folder of the runner. A request is the SHA-256 of a blob and a newline; the answer is JSON:
``{"path"}``, or ``{"error"}``."""

RANK_VARIABLE = "CIRRO_RANK"
"""Variable of the environment of a process of a distributed electron: its rank. Only rank 0 stores and reports."""

REPORTS_FILE = "reports"
"""File in the folder of `CHECKPOINT_VARIABLE` to which the electron's processes append `reports.record`."""

CHECKPOINT_GOING = "going"
"""File in the folder of `CHECKPOINT_VARIABLE` that exists once the attempt is about to be ended."""


LABEL_PYTHON = "covalent-cirro.python"
"""Label of an image: version of its Python."""

LABEL_CLOUDPICKLE = "covalent-cirro.cloudpickle"
"""Label of an image: version of its cloudpickle."""

LABEL_RUNNER = "covalent-cirro.runner"
"""Label of an image: version of its covalent-cirro."""

LABEL_FORMAT = "covalent-cirro.call-format"
"""Label of an image: `problems.CALL_FORMAT` of its runner."""

LABEL_MODULES = "covalent-cirro.modules"
"""Label of an image: what can be imported in it (`jobs/image_modules.py`)."""


class ExitCode:
    """Exit codes of the runner's process, which AWS Batch shows. The outcome has the details."""

    OK = 0
    """Every electron of the call returned."""
    RAISED = 1
    """An electron raised, or ended its own process."""
    BAD_CALL = 64
    """The call could not be read or parsed: no electron ran, and there may be no outcome."""
    FETCH = 65
    """A blob could not be fetched, or its digest did not match."""
    VERSIONS = 66
    """Versions of Python, cloudpickle or the format do not work together."""
    STORE = 67
    """The outcome could not be written."""
    HOST_GOING = 75
    """As `TERMINATED`, or the electron ended by itself, after EC2's Spot notice: AWS Batch starts another attempt
    (``batch.build_submit``). The runner watches for the notice only if an electron uses checkpoints."""
    TERMINATED = 143
    """SIGTERM arrived: time limit, cancel, or shutdown of the host (128 + 15)."""


# --- who wrote an outcome ---------------------------------------------------------------------------------------


def mac(data: bytes, mac_key: str) -> str:
    """Message authentication code of some bytes: HMAC-SHA256 (RFC 2104), in hex."""
    import hmac  # not at the top: it is not needed before an electron runs

    return hmac.digest(mac_key.encode(), data, "sha256").hex()


Arguments: TypeAlias = tuple[tuple[str, str], ...]
"""What an electron was called with, for people: names and summaries of its arguments (`jobs/arguments.py`)."""


_CALL_ID = re.compile(r"[^/\s]{1,64}")


def _read_arguments(value: object, _path: str) -> Arguments:
    """A summary of arguments is only shown: what has another form is left out, and the document can be used."""
    found = [(name, text) for name, text in value.items() if isinstance(text, str)] if isinstance(value, dict) else []
    return tuple(
        (texts.fitted(name, limits.ARGUMENT_NAME_CHARS), texts.fitted(text, limits.ARGUMENT_CHARS))
        for name, text in found[: limits.MAX_ARGUMENTS]
    )


def _read_gpu(value: object, path: str) -> dict[str, Any]:
    fields = Fields(value, path)
    utilization = fields.raw("utilization")
    return {
        "name": fields.text("name", limits.FACT_CHARS),
        "memory_bytes": fields.maybe_whole("memory_bytes"),
        "peak_memory_bytes": fields.maybe_whole("peak_memory_bytes"),
        "utilization": None if utilization is None else number(utilization, f"{path}.utilization"),
    }


def _read_host(value: object, path: str) -> dict[str, str]:
    found = mapping(value, path, limits.MAX_FACTS)
    return {
        texts.fitted(key, limits.ID_CHARS): text(each, f"{path}.{key}", limits.FACT_CHARS)
        for key, each in found.items()
    }


def _read_times(value: object, path: str) -> dict[str, float]:
    found = mapping(value, path, limits.MAX_FACTS)
    return {
        texts.fitted(key, limits.ID_CHARS): number(each, f"{path}.{key}", limits.LATEST_S)
        for key, each in found.items()
    }


# --- the call ---------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """One electron to run.

    Attributes:
        node_id: Id of its node in the dispatch.
        name: Name of the electron, for messages.
        function: Pickle of the function (raw, not base64).
        hooks: Covalent's ``hooks.json`` as it is; `None` without hooks.
        args: Pickles of the positional arguments.
        kwargs: Pickles of the keyword arguments.
        arguments: Summary of the arguments, for people; empty where it is not known.
        mapped: What makes the task one that is called for each item of a list; `None` for any other. A call with such
            a task has no other.
    """

    node_id: int
    name: Annotated[str, limits.ELECTRON_CHARS]
    function: Ref
    hooks: Ref | None
    args: tuple[Input, ...]
    kwargs: dict[str, Input]
    arguments: Annotated[Arguments, _read_arguments] = ()
    mapped: Mapped | None = None


class Package(NamedTuple):
    """A local package that is sent with the call: a zip whose root is put on ``sys.path``.

    Attributes:
        name: Import name, for messages.
        archive: The zip.
    """

    name: str
    archive: Ref


class Tried(NamedTuple):
    """An earlier try: a call of the same electrons whose job failed, and that the executor submitted again.

    Attributes:
        call_id: Id of its call. The checkpoint of all tries is stored under the first try's call.
        job_id: Id of its job.
        end: Value of its end (`ends.End`).
        attempts: Number of attempts that AWS Batch started.
        memory_mib: Memory that it asked for, in MiB.
        queue: Name of its queue.
        reached_bytes: Its peak use of memory, in bytes; `None` if it was not measured.
        next_memory_mib: Memory that the next try asks for, in MiB.
        next_queue: Name of the next try's queue.
    """

    call_id: str
    job_id: str
    end: str
    attempts: Annotated[int, limits.MAX_ATTEMPT]
    memory_mib: int
    queue: str
    reached_bytes: int | None
    next_memory_mib: int
    next_queue: str

    def check(self, path: str, _limit: Any) -> None:
        """Refuse what is not the id of a call: it becomes part of a key, which must not leave the node's own folder."""
        if _CALL_ID.fullmatch(self.call_id) is None:
            raise ProtocolError(f"{path}.call_id is {shown(self.call_id)}, which is not the id of a call")


class Call(NamedTuple):
    """What a job is asked to do.

    Attributes:
        call_id: Id of the call, which the outcome repeats.
        dispatch_id: Id of the dispatch.
        python: Version of the Python that pickled, ``"3.11.7"``.
        cloudpickle: Version of the cloudpickle that pickled.
        covalent: Version of Covalent on the server, for messages about an electron that needs Covalent.
        tasks: The electrons, in the order to run them.
        packages: Local packages of the user.
        tried: Earlier tries, oldest first.
        image: The job's image, with its digest if ECR knows it.
        lattice: Name of its lattice; empty if it is not known.
        not_reused: Why no results of an earlier dispatch were reused; empty if that was not asked for.
        stored: Stored values that functions, hooks and arguments name.
        num_nodes: Compute nodes of the job; from 2 on, a multi-node parallel job.
        processes: Processes that call the function on each compute node, each with a rank; 0: the function is called
            once, without a rank.
        variables: Digest of the electrons' variables and references to secrets; empty without any. The job definition
            has them.
    """

    call_id: str
    dispatch_id: str
    python: str
    cloudpickle: str
    covalent: str
    tasks: Annotated[tuple[Task, ...], limits.MAX_TASKS]
    packages: tuple[Package, ...] = ()
    tried: Annotated[tuple[Tried, ...], limits.MAX_TRIED] = ()
    image: Annotated[str, limits.URI_CHARS] = ""
    lattice: Annotated[str, limits.ELECTRON_CHARS] = ""
    not_reused: Annotated[str, limits.MESSAGE_CHARS] = ""
    stored: Annotated[tuple[StoredInput, ...], limits.MAX_STORED] = ()
    num_nodes: Annotated[int, limits.MAX_NODES] = 1
    processes: Annotated[int, limits.MAX_PROCESSES] = 0
    variables: Annotated[str, limits.ID_CHARS] = ""

    @property
    def attempts_before(self) -> int:
        """Number of attempts of all earlier tries."""
        return sum(each.attempts for each in self.tried)


class ReusedNode(NamedTuple):
    """An electron that has the result of an earlier one.

    Attributes:
        node_id: Its node.
        name: Its name.
        origin_node_id: The node of the earlier electron.
    """

    node_id: int
    name: Annotated[str, limits.ELECTRON_CHARS]
    origin_node_id: int


class Reused(NamedTuple):
    """Results of earlier work that are taken instead of a job: ``reused.json``, in the place of call and outcome.

    Attributes:
        dispatch_id: Id of the dispatch that takes the results.
        lattice: Name of its lattice.
        origin: URI of the call whose job computed the results; never another reuse.
        job_id: Id of that job.
        at: Time at which the results were taken, in epoch seconds.
        nodes: The electrons; there is at least one.
        arguments: Summary of what the first electron was called with, as in `Task`.
        items: For a map all of whose items are reused one by one, where their results are; `None` where the results
            are those of the origin.
        digests: With ``items``, what `maps.Mapped.digests` would be.
    """

    dispatch_id: str
    lattice: Annotated[str, limits.ELECTRON_CHARS]
    origin: Annotated[str, limits.URI_CHARS]
    job_id: str
    at: Annotated[float, limits.LATEST_S]
    nodes: Annotated[tuple[ReusedNode, ...], limits.MAX_TASKS]
    arguments: Annotated[Arguments, _read_arguments] = ()
    items: ReusedItems | None = None
    digests: Ref | None = None

    def check(self, path: str, _limit: Any) -> None:
        """Refuse a document without electrons."""
        if not self.nodes:
            raise ProtocolError(f"{path}.nodes is empty")


# --- the outcome ------------------------------------------------------------------------------------------------


class Output(NamedTuple):
    """A result.

    Attributes:
        pickle: The pickled value.
        string: ``str(value)`` in UTF-8: whole for a string, else cut at `STRING_BYTES`.
        name: ``value.__name__`` or empty, as Covalent's header wants it.
        doc: ``value.__doc__`` or empty.
    """

    pickle: Annotated[Ref, limits.INLINE_BYTES]
    string: Annotated[Ref, limits.INLINE_BYTES]
    name: Annotated[str, limits.NAME_CHARS] = ""
    doc: Annotated[str, limits.DOC_CHARS] = ""


class Log(NamedTuple):
    """The text that an electron wrote to stdout or stderr.

    Attributes:
        size: Number of bytes in total.
        parts: Names of the parts in S3 (`log_parts.Part`), in order; together they are the whole text. Empty if
            ``tail`` is the whole text.
        tail: The end, decoded with replacement: `LOG_TAIL_BYTES`, or less for one of many electrons that returned.
    """

    size: int = 0
    parts: Annotated[tuple[str, ...], limits.MAX_PARTS] = ()
    tail: Annotated[str, limits.LOG_TAIL_BYTES] = ""


class NodeResult(NamedTuple):
    """How one electron ended: exactly one of ``output`` and ``failure`` is set.

    A mapped electron has no ``output`` but ``items``, also with a ``failure``, where any of its items were computed.
    """

    node_id: int
    output: Output | None
    failure: Failure | None
    stdout: Log
    stderr: Log
    items: ItemResults | None = None

    def check(self, path: str, _limit: Any) -> None:
        """Refuse a result and a failure at once, and neither."""
        if (self.output is None) == (self.failure is None and self.items is None):
            raise ProtocolError(f"{path} must have either an output or a failure")


class Usage(NamedTuple):
    """Resources that the job used, over all its electrons.

    Attributes:
        wall_s: Seconds from the runner's start to the outcome.
        cpu_s: CPU seconds, user and system, of the electrons' processes.
        peak_memory_bytes: Largest resident size of an electron's process, or the cgroup's peak if it can be read.
        memory_limit_bytes: Memory limit of the container; `None` if there is none.
        gpus: For each GPU ``{"name", "memory_bytes", "peak_memory_bytes", "utilization"}``; empty without GPUs.
        oom_kills: Number of processes that the kernel killed in the container because memory ran out; `None` if the
            kernel does not count them.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    gpus: Annotated[tuple[Annotated[dict[str, Any], _read_gpu], ...], limits.MAX_GPUS] = ()
    oom_kills: int | None = None


class ComputeNode(NamedTuple):
    """A compute node of a multi-node job, as the main node knows it at the end.

    Attributes:
        number: Its number in the job, from 0.
        state: ``"done"``, ``"failed"``, ``"lost"``, ``"missing"`` or ``"ended"`` (by the main node).
        cpu_s: CPU seconds of its processes.
        peak_memory_bytes: As in `Usage`; `None` where it was not told.
        instance_type, instance_id: Its machine; empty where it was not told.
    """

    number: Annotated[int, limits.MAX_NODES]
    state: str = ""
    cpu_s: float = 0.0
    peak_memory_bytes: int | None = None
    instance_type: str = ""
    instance_id: str = ""


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        call_id: Id of the call.
        attempt: AWS_BATCH_JOB_ATTEMPT, from 1.
        job_id: AWS_BATCH_JOB_ID; empty outside AWS Batch.
        results: One for each task of the call, in the same order.
        usage: Resources that the job used.
        python: Version of the runner's Python.
        cloudpickle: Version of the runner's cloudpickle.
        host: Facts about the machine: ``instance_type``, ``instance_id``, ``zone``, ``hostname``, and
            ``life_cycle`` (``"spot"`` or ``"on-demand"``, as EC2's metadata service has it).
        times: Epoch seconds by milestone: ``started``, ``fetched``, ``first_line``, ``ran``, ``stored``.
        nodes: The compute nodes of a multi-node job, in their order; empty for any other job.
        mac: The message authentication code in the document (`documents.parse_outcome`).
        digest: SHA-256 of the bytes that the code authenticates.
    """

    call_id: str
    attempt: Annotated[int, limits.MAX_ATTEMPT]
    job_id: str
    results: Annotated[tuple[NodeResult, ...], limits.MAX_TASKS]
    usage: Usage
    python: str
    cloudpickle: str
    host: Annotated[dict[str, str], _read_host]
    times: Annotated[dict[str, float], _read_times]
    nodes: Annotated[tuple[ComputeNode, ...], limits.MAX_NODES] = ()
    mac: str = ""
    digest: bytes = b""

    def check(self, path: str, _limit: Any) -> None:
        """Refuse a node that is there twice, and parts of a log of which one is not of its stream or counts twice."""
        nodes = set[int]()
        last = dict.fromkeys(log_parts.STREAMS, -1)
        for i, result in enumerate(self.results):
            if result.node_id in nodes:
                raise ProtocolError(f"{path}.results has node {result.node_id} twice")
            nodes.add(result.node_id)
            for stream, log in ((log_parts.STDOUT, result.stdout), (log_parts.STDERR, result.stderr)):
                where = f"{path}.results[{i}].{stream}.parts"
                for name in log.parts:
                    # It becomes a key, which must not leave the call's own folder.
                    part = log_parts.parse(name)
                    if part is None:
                        raise ProtocolError(f"{where} has {shown(name)}, which is not the name of a part")
                    if (part.attempt, part.stream) != (self.attempt, stream):
                        raise ProtocolError(f"{where} has {name}, which is not of {stream} of attempt {self.attempt}")
                    if part.number <= last[stream]:
                        raise ProtocolError(f"{where} has {name} twice, or after a later one")
                    last[stream] = part.number

    def is_authentic(self, mac_key: str) -> bool:
        """Whether the job with this key wrote the outcome. True for a job that was submitted without a key."""
        return not mac_key or mac(self.digest, mac_key) == self.mac

    def is_of(self, call_id: str, child_index: int | None, compute_node: int | None = None) -> bool:
        """Whether the outcome names this job of a call: all jobs of an array or of nodes have the same key."""
        own = "" if child_index is None else f":{child_index}"
        own = own if compute_node is None else f"#{compute_node}"
        return self.call_id == call_id and self.job_id.endswith(own)

    @property
    def is_final(self) -> bool:
        """Whether a further attempt of the job has nothing to do."""
        return not any(result.failure is not None and result.failure.kind in RUN_AGAIN for result in self.results)

    @property
    def succeeded(self) -> bool:
        """Whether every electron returned."""
        return all(result.failure is None for result in self.results)


# --- versions ---------------------------------------------------------------------------------------------------


def same_python(one: str, other: str) -> bool:
    """Whether one version of Python reads functions that the other pickled: cloudpickle writes bytecode."""
    return one.split(".")[:2] == other.split(".")[:2]


def same_cloudpickle(one: str, other: str) -> bool:
    """Whether one version of cloudpickle reads what the other pickled (its README, "security and compatibility")."""
    return one.split(".")[:1] == other.split(".")[:1]


def version_conflict(pickled_by: Call, python: str, cloudpickle: str) -> str | None:
    """Why this Python and cloudpickle cannot read the pickles of the call; `None` if they can.

    cloudpickle writes functions as the bytecode of its Python: only the same minor version reads them. Its own format
    is stable within a major version.
    """
    if not same_python(pickled_by.python, python):
        theirs, ours = ".".join(pickled_by.python.split(".")[:2]), ".".join(python.split(".")[:2])
        return (
            f"the electron was pickled by Python {pickled_by.python}, the container has Python {python}: a pickled "
            f"function is read only by the same minor version. Use an image with Python {theirs}, or dispatch from "
            f"Python {ours}"
        )
    if not same_cloudpickle(pickled_by.cloudpickle, cloudpickle):
        return (
            f"the electron was pickled by cloudpickle {pickled_by.cloudpickle}, the container has cloudpickle "
            f"{cloudpickle}: install cloudpickle=={pickled_by.cloudpickle} in the image"
        )
    return None
