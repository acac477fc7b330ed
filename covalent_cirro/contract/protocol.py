"""What executor and runner say to each other: S3 keys, the call, the outcome, exit codes, versions.

Both sides import this file and nothing of each other. It does no I/O, knows no clock, and needs the standard
library only: the runner's start depends on how fast it imports.

The executor writes one *call* (``call.json``) and submits a job whose only argument is the call's S3 URI. The runner
answers with one *outcome* (``outcome.json``), written last and once. Bytes too big for those documents are *blobs*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

FORMAT = 2
"""Version of both documents. A reader refuses any other and says which side to update."""

CALL_PARAMETER = "call"
"""The job definition's parameter that holds the call's URI; AWS Batch substitutes ``Ref::call`` in the command."""

RUNNER_COMMAND = ("python", "-m", "covalent_cirro.runner", f"Ref::{CALL_PARAMETER}")
"""Command of every job definition."""

INLINE_BYTES = 16 * 1024
"""A function, hooks, an input or an output up to this size rides inside the document instead of in a blob."""

INLINE_TOTAL_BYTES = 256 * 1024
"""All that rides inside one document, at most; what comes after goes into blobs."""

LOG_TAIL_BYTES = 32 * 1024
"""The end of stdout and of stderr that the outcome carries itself, at most."""

STRING_BYTES = 10_000
"""``str(result)`` is cut here for display, unless the result is a string (`Output.string`)."""

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
"""A larger call is refused unread: a well-formed one stays far below. An outcome's limit is `limits`'."""

STOP_GRACE_S = 30
"""Seconds between SIGTERM and SIGKILL on AWS Batch (User Guide, Job timeouts)."""

CHECKPOINT_FORMAT = 1
"""Version of a checkpoint's index."""

CHECKPOINT_VARIABLE = "CIRRO_CHECKPOINT"
"""The electron's environment has it: a folder by which electron and supervisor speak of the checkpoint."""

CHECKPOINT_SOCKET = "socket"
"""In that folder, where the supervisor listens: ``folder``, ``save`` or ``watch`` and a newline, answered in JSON."""

ATTEMPT_VARIABLE = "CIRRO_ATTEMPT"
"""The electron's environment has it: the number of its attempt, from 1, over all its tries."""

CHECKPOINT_GOING = "going"
"""In that folder, a file that appears once the attempt is about to be ended."""


LABEL_PYTHON = "covalent-cirro.python"
"""Label of an image: version of its Python."""

LABEL_CLOUDPICKLE = "covalent-cirro.cloudpickle"
"""Label of an image: version of its cloudpickle."""

LABEL_RUNNER = "covalent-cirro.runner"
"""Label of an image: version of its covalent-cirro."""

LABEL_FORMAT = "covalent-cirro.call-format"
"""Label of an image: `FORMAT` of the calls that its runner understands."""


class ExitCode:
    """How the runner's process ends. The outcome says more; these tell what AWS Batch shows by itself."""

    OK = 0
    """Every electron of the call returned."""
    RAISED = 1
    """An electron raised, or ended in a way that is its own doing."""
    BAD_CALL = 64
    """The call could not be read or is not understood: nothing ran, and there may be no outcome."""
    FETCH = 65
    """A blob could not be fetched, or its digest did not match."""
    VERSIONS = 66
    """Python, cloudpickle or format versions that cannot work together."""
    STORE = 67
    """The outcome could not be written."""
    HOST_GOING = 75
    """As `TERMINATED`, or the electron left by itself, after EC2's Spot notice: AWS Batch is told to start another
    attempt (``batch.build_submit``). Only for an electron that uses checkpoints does the runner look for the notice."""
    TERMINATED = 143
    """SIGTERM arrived: time limit, cancel, or the host is going (128 + 15)."""


class Kind:
    """Why an electron failed (`Failure.kind`)."""

    RAISED = "raised"
    """The electron's function raised."""
    HOOK = "hook"
    """``deps_bash``, ``deps_pip``, ``call_before`` or ``call_after`` failed."""
    EXITED = "exited"
    """The electron's process ended by itself (``os._exit``, ``sys.exit``) without a result."""
    KILLED = "killed"
    """The electron's process was killed by a signal: segfault, abort, SIGKILL by another."""
    OUT_OF_MEMORY = "out_of_memory"
    """Killed by SIGKILL while the container's own count of out-of-memory kills went up."""
    UNPICKLABLE = "unpicklable"
    """The result cannot be pickled."""
    MISSING_MODULE = "missing_module"
    """Unpickling the function or an input needs a module that the container lacks (`Failure.module`)."""
    UNREADABLE = "unreadable"
    """The function or an input cannot be unpickled, for another reason."""
    VERSIONS = "versions"
    """Python or cloudpickle here cannot read what the other side pickled."""
    FETCH = "fetch"
    """A blob is missing, cut short or changed."""
    TERMINATED = "terminated"
    """SIGTERM came before the electron was done."""
    NOT_RUN = "not_run"
    """An earlier electron of the same task group failed."""
    RUNNER = "runner"
    """The runner itself broke."""


KINDS = frozenset(value for name, value in vars(Kind).items() if name.isupper())


RUN_AGAIN = frozenset({Kind.TERMINATED, Kind.KILLED, Kind.OUT_OF_MEMORY, Kind.FETCH, Kind.RUNNER})
"""Kinds that another attempt may not meet again: AWS Batch starts one only where the job's retry strategy asks for
it, so it runs. After any other outcome a further attempt has nothing to do."""


class ProtocolError(ValueError):
    """A document that does not have the form of this file."""


class UnknownFormat(ProtocolError):
    """A document of another format version.

    Attributes:
        found: The version in the document; `FORMAT` is the one understood here.
    """

    def __init__(self, document: str, found: object) -> None:
        self.found = found
        newer = isinstance(found, int) and found > FORMAT
        side = "the side that reads it" if newer else "the side that wrote it"
        super().__init__(
            f"{document} has format {repr(found)[:80]}, this covalent-cirro understands format {FORMAT}: update {side} "
            "(the container's image and the Covalent server need the same covalent-cirro minor version)"
        )


# --- keys -------------------------------------------------------------------------------------------------------


class Location(NamedTuple):
    """Where one call lives: ``s3://bucket/prefix/jobs/<dispatch>/<node>/<call>/``.

    The last part is made anew for each call, so that two servers, or a call that is made again, never write
    over each other; dispatch and node come first, so that all calls of a node are found by listing.
    """

    bucket: str
    base: str

    @property
    def call_key(self) -> str:
        """Key of ``call.json``."""
        return self.base + "call.json"

    @property
    def outcome_key(self) -> str:
        """Key of ``outcome.json``."""
        return self.base + "outcome.json"

    @property
    def reused_key(self) -> str:
        """Key of ``reused.json``: no job of this call, but the results of an earlier one."""
        return self.base + "reused.json"

    def log_key(self, part: str) -> str:
        """Key of a part of the log, named by `log_parts.Part`."""
        return self.base + "log/" + part

    @property
    def node_base(self) -> str:
        """What all calls of the node share (`node_base`)."""
        return self.base[: -len(self.call_id) - 1]

    def sibling(self, call_id: str) -> Location:
        """The location of another call of the same node."""
        return Location(self.bucket, f"{self.node_base}{call_id}/")

    def checkpoint_key(self, node_id: int, part: str) -> str:
        """Key of a part of an electron's checkpoint: ``index.json``, or ``files/<name>``."""
        return f"{self.base}checkpoint/{node_id}/{part}"

    @property
    def prefix(self) -> str:
        """What stands before ``jobs/`` and ``blobs/``: empty, or ends with a slash."""
        return self.base[: self.base.rindex("jobs/")]

    @property
    def node_id(self) -> int:
        """The node that the call is listed under: the first of its task group."""
        return int(self.base.split("/")[-3])

    @property
    def dispatch_id(self) -> str:
        """The dispatch that the call is of."""
        return self.base.split("/")[-4]

    @property
    def made_at(self) -> float:
        """`call_made_at` of its id."""
        return call_made_at(self.call_id)

    @property
    def call_id(self) -> str:
        """The last part: what tells the calls of a node apart."""
        return self.base.rstrip("/").rsplit("/", 1)[1]

    @property
    def call_uri(self) -> str:
        """``s3://bucket/.../call.json``."""
        return f"s3://{self.bucket}/{self.call_key}"

    def attempt_key(self, mac_key: str, attempt: int) -> str:
        """Key of an attempt's outcome where ``outcome.json`` was there already: nothing is ever written over.

        Only who has the call's MAC key can tell the name, so no other job can write there first.
        """
        return f"{self.base}attempts/{mac(f'attempt {attempt}'.encode(), mac_key)[:32]}.json"

    def blob_key(self, sha256: str) -> str:
        """Key of the blob with this digest, shared by all calls under the prefix."""
        return blob_key(self.prefix, sha256)


def blob_key(prefix: str, sha256: str) -> str:
    """``<prefix>blobs/<sha256>``."""
    return f"{prefix}blobs/{sha256}"


def node_base(prefix: str, dispatch_id: str, node_id: int) -> str:
    """What all calls of a node share: ``<prefix>jobs/<dispatch>/<node>/``."""
    return f"{prefix}jobs/{dispatch_id}/{node_id}/"


# --- the job's argument, and who wrote an outcome ---------------------------------------------------------------


def call_argument(place: Location, mac_key: str) -> str:
    """The job's only argument: where its call is, and the key with which its outcome is authenticated.

    All jobs of a deployment may read and write the same bucket, and none may ask AWS Batch anything: what stands in the
    argument of a job is known to that job, and to those who may describe it.

    Args:
        place: The call's.
        mac_key: 128 random bits in hex.
    """
    return f"{place.call_uri}#{mac_key}"


def parse_call_argument(argument: str) -> tuple[Location, str]:
    """The call and the MAC key of a job; the key is empty in an argument without one.

    Raises:
        ProtocolError: Not the argument of a job.
    """
    uri, _, mac_key = argument.rpartition("#")
    return (parse_call_uri(uri), mac_key) if _MAC_KEY.fullmatch(mac_key) else (parse_call_uri(argument), "")


def mac(data: bytes, mac_key: str) -> str:
    """Message authentication code of some bytes: HMAC-SHA256 (RFC 2104), in hex."""
    import hmac  # loaded where it is needed: not before an electron runs

    return hmac.digest(mac_key.encode(), data, "sha256").hex()


def call_made_at(call_id: str) -> float:
    """Epoch seconds when a call was made: they are in its id. Of a further try, a millisecond after the try before."""
    return int(call_id[:12], 16) / 1000


def location(bucket: str, prefix: str, dispatch_id: str, node_id: int, call_id: str) -> Location:
    """The location of a call. ``prefix`` is empty or ends with a slash."""
    return Location(bucket, f"{node_base(prefix, dispatch_id, node_id)}{call_id}/")


CALL_ID = re.compile(r"[0-9a-f]{20}")
"""The id of a call: the time in ms and 32 bits more (`call_writer.new_call_id`, `further_tries.next_call_id`). No
folder that a job may write to has such a name, so nothing that a job wrote is taken for a call."""

_MAC_KEY = re.compile(r"[0-9a-f]{32}")
_CALL_URI = re.compile(rf"s3://([^/]+)/((?:.*/)?jobs/[^/]+/\d+/{CALL_ID.pattern}/)call\.json")
_OBJECT = re.compile(rf"(\d+/{CALL_ID.pattern}/)(.+)", re.DOTALL)


def calls_among(keys: Iterable[str], bucket: str, prefix: str, dispatch_id: str) -> dict[Location, set[str]]:
    """The calls of a dispatch that keys belong to, with the names of each one's objects below its own folder.

    A key that belongs to no call is left out.

    Args:
        keys: What was listed under the dispatch, or under one of its nodes.
        bucket: Where they are.
        prefix: Empty, or ends with a slash.
        dispatch_id: The whole id.

    Returns:
        In the order of the keys: of one node, the oldest call first.
    """
    base = f"{prefix}jobs/{dispatch_id}/"
    found: dict[Location, set[str]] = {}
    for key in sorted(keys):
        match = _OBJECT.fullmatch(key.removeprefix(base)) if key.startswith(base) else None
        if match is not None:
            found.setdefault(Location(bucket, base + match[1]), set()).add(match[2])
    return found


def parse_call_uri(uri: str) -> Location:
    """The location that a job was given.

    Raises:
        ProtocolError: Not the URI of a call.
    """
    match = _CALL_URI.fullmatch(uri)
    if match is None:
        raise ProtocolError(
            f"{uri!r} is not the URI of a call (s3://bucket/<prefix>/jobs/<dispatch>/<node>/<call>/call.json)"
        )
    return Location(match[1], match[2])


# --- references -------------------------------------------------------------------------------------------------


class Blob(NamedTuple):
    """Bytes in S3, named by their digest.

    Attributes:
        sha256: Digest of the stored bytes, hex.
        size: Length of the stored bytes.
        codec: ``"raw"``, or ``"zlib"`` where compressing helped.
        raw_size: Length after decoding.
    """

    sha256: str
    size: int
    codec: str
    raw_size: int


class Inline(NamedTuple):
    """Bytes that ride in the document itself."""

    data: bytes


class NodeOutput(NamedTuple):
    """The result of an earlier electron of the same call (task packing)."""

    node_id: int


Ref: TypeAlias = Blob | Inline
"""Where bytes are."""

Input: TypeAlias = Blob | Inline | NodeOutput
"""Where an argument's pickle is."""


# --- the call ---------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """One electron to run.

    Attributes:
        node_id: Its node in the dispatch.
        name: Its name, for messages.
        function: Pickle of the function (raw, not base64).
        hooks: Covalent's ``hooks.json`` as it is, or `None` where there are none.
        args: Pickles of the positional arguments.
        kwargs: Pickles of the keyword arguments.
    """

    node_id: int
    name: str
    function: Ref
    hooks: Ref | None
    args: tuple[Input, ...]
    kwargs: dict[str, Input]


class Package(NamedTuple):
    """A local package that travels with the call: a zip whose root goes on ``sys.path``.

    Attributes:
        name: Import name, for messages.
        archive: The zip.
    """

    name: str
    archive: Ref


class Tried(NamedTuple):
    """An earlier try: a call of the same electrons whose job came to nothing, and that was made again by us.

    Attributes:
        call_id: Its call. The checkpoint of all tries lies under the first one's.
        job_id: Its job.
        end: The class of its end (`ends.End`).
        attempts: How often AWS Batch started it.
        memory_mib: What it asked for.
        queue: Name of its queue.
        reached_bytes: Its largest use of memory; `None` where nobody measured.
        next_memory_mib: What the next try asks for.
        next_queue: Name of the next try's queue.
    """

    call_id: str
    job_id: str
    end: str
    attempts: int
    memory_mib: int
    queue: str
    reached_bytes: int | None
    next_memory_mib: int
    next_queue: str


class Call(NamedTuple):
    """What a job is asked to do.

    Attributes:
        call_id: Drawn at random; the outcome repeats it.
        dispatch_id: The dispatch.
        python: Version of the Python that pickled, ``"3.11.7"``.
        cloudpickle: Version of the cloudpickle that pickled.
        covalent: Version of Covalent on the server, for the remedy where an electron needs Covalent.
        tasks: The electrons, in the order to run them.
        packages: Local packages of the user.
        tried: Earlier tries, oldest first.
        image: The job's image, with its digest where ECR told it.
        lattice: Its lattice's name; empty where the server does not tell.
    """

    call_id: str
    dispatch_id: str
    python: str
    cloudpickle: str
    covalent: str
    tasks: tuple[Task, ...]
    packages: tuple[Package, ...] = ()
    tried: tuple[Tried, ...] = ()
    image: str = ""
    lattice: str = ""

    @property
    def attempts_before(self) -> int:
        """Attempts of all earlier tries."""
        return sum(each.attempts for each in self.tried)


class Reused(NamedTuple):
    """What stands in a call's place (``reused.json``) where the results of earlier work are taken instead of a job.

    Attributes:
        dispatch_id: The dispatch that takes them.
        lattice: Its lattice's name.
        origin: URI of the call whose job did the work: never another reuse.
        job_id: That job.
        at: Epoch seconds when they were taken.
        nodes: Node and name of each electron, and the node that it has in the origin.
    """

    dispatch_id: str
    lattice: str
    origin: str
    job_id: str
    at: float
    nodes: tuple[tuple[int, str, int], ...]


# --- the outcome ------------------------------------------------------------------------------------------------


class Output(NamedTuple):
    """A result.

    Attributes:
        pickle: The pickled value.
        string: ``str(value)`` in UTF-8: whole for a string, else cut at `STRING_BYTES`.
        name: ``value.__name__`` or empty, as Covalent's header wants it.
        doc: ``value.__doc__`` or empty.
    """

    pickle: Ref
    string: Ref
    name: str = ""
    doc: str = ""


class Log(NamedTuple):
    """What an electron wrote to stdout or stderr.

    Attributes:
        size: Bytes in all.
        parts: Names of the parts in S3 (`log_parts.Part`), in order; together they are the whole text. Empty when
            ``tail`` already is.
        tail: The end, decoded with replacement: `LOG_TAIL_BYTES`, or less of one of many electrons that returned.
    """

    size: int = 0
    parts: tuple[str, ...] = ()
    tail: str = ""


class Failure(NamedTuple):
    """Why an electron has no result.

    Attributes:
        kind: One of `Kind`.
        message: One line for a person.
        traceback: The electron's traceback without the runner's own frames; may be empty.
        module: The missing module, for `Kind.MISSING_MODULE`.
        exit_code: Exit status of the electron's process, if it ended by itself without a result.
        signal: Name of the signal that killed it, ``"SIGSEGV"``.
    """

    kind: str
    message: str
    traceback: str = ""
    module: str = ""
    exit_code: int | None = None
    signal: str = ""


class NodeResult(NamedTuple):
    """How one electron ended: exactly one of ``output`` and ``failure`` is set."""

    node_id: int
    output: Output | None
    failure: Failure | None
    stdout: Log
    stderr: Log


class Usage(NamedTuple):
    """What the job used, over all its electrons.

    Attributes:
        wall_s: Seconds from the runner's start to the outcome.
        cpu_s: CPU seconds, user and system, of the electrons' processes.
        peak_memory_bytes: Largest resident size of an electron's process, or the cgroup's peak where it can be read.
        memory_limit_bytes: The container's limit; `None` where there is none to read.
        gpus: One entry a GPU: ``{"name", "memory_bytes", "peak_memory_bytes", "utilization"}``; empty without one.
        oom_kills: Processes that the kernel killed in the container for want of memory while it ran; `None` where the
            kernel does not tell.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    gpus: tuple[dict[str, Any], ...] = ()
    oom_kills: int | None = None


class Outcome(NamedTuple):
    """How a call ended.

    Attributes:
        call_id: That of the call.
        attempt: AWS_BATCH_JOB_ATTEMPT, from 1.
        job_id: AWS_BATCH_JOB_ID; empty outside AWS Batch.
        results: One for each task of the call, in the same order.
        usage: What it used.
        python: Version of the runner's Python.
        cloudpickle: Version of the runner's cloudpickle.
        host: What is known of the machine: ``instance_type``, ``instance_id``, ``zone``, ``hostname``, and
            ``life_cycle`` (``"spot"`` or ``"on-demand"``, as EC2's metadata service has it).
        times: Epoch seconds by milestone: ``started``, ``fetched``, ``first_line``, ``ran``, ``stored``.
        mac: Its message authentication code, as it was read (`documents.parse_outcome`).
        digest: SHA-256 of what that code is of.
    """

    call_id: str
    attempt: int
    job_id: str
    results: tuple[NodeResult, ...]
    usage: Usage
    python: str
    cloudpickle: str
    host: dict[str, str]
    times: dict[str, float]
    mac: str = ""
    digest: bytes = b""

    def is_authentic(self, mac_key: str) -> bool:
        """Whether a job wrote it that has this key. A job that was submitted without a key authenticates nothing."""
        return not mac_key or mac(self.digest, mac_key) == self.mac

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
    """Whether a function that one version of Python pickled is read by the other: cloudpickle writes bytecode."""
    return one.split(".")[:2] == other.split(".")[:2]


def same_cloudpickle(one: str, other: str) -> bool:
    """Whether one version of cloudpickle reads what the other pickled (its README, "security and compatibility")."""
    return one.split(".")[:1] == other.split(".")[:1]


def version_conflict(pickled_by: Call, python: str, cloudpickle: str) -> str | None:
    """Why a pickle of the call's versions cannot be read here, or `None`.

    cloudpickle writes functions as the bytecode of its Python: only the same minor version reads them. Its own format
    is kept within a major version.
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
