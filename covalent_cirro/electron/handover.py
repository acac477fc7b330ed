"""What `send` returns to `poll`, what `poll` returns to `receive`, and the job handle in Covalent's database.

An electron goes one of four ways, and each has its types here: a job that this server submitted (`OwnJob`), a job that
an earlier server submitted (`AdoptedJob`), results of earlier work (`ReusedResults`), and Covalent's own nodes on the
server's host (`HostNodes`). A job that this server submitted and an adopted one end in the same type (`EndedJob`).

Covalent takes and gives plain JSON, which `CirroBatchExecutor` makes and reads with the functions of this module.
Covalent 0.240 keeps the return values of `send` and `poll` in the memory of one server process
(``covalent_dispatcher/_core/runner_ng.py``) and stores neither: `poll` never gets what an older server wrote. `receive`
can get any JSON from anybody, by Covalent's route for job updates, which asks for no credentials: `load_polled` refuses
every other form. Covalent stores the job handle only: `load_handle` reads every form that any version has stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from covalent_cirro.contract.fields import Fields
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Tried
from covalent_cirro.electron.call_writer import ElectronSpec
from covalent_cirro.electron.result_writer import WrittenFile
from covalent_cirro.errors import OutcomeError
from covalent_cirro.jobs.states import JobDetail, dump_detail, load_detail

HANDLE_FORMAT = 1

_URI_CHARS = 4096
_TEXT_CHARS = 1_000_000


# --- from `send` to `poll` --------------------------------------------------------------------------------------------


class OwnJob(NamedTuple):
    """A job that this server submitted.

    Attributes:
        job_id: Batch job id.
        call: URI of the job's ``call.json``.
        keys: S3 keys that must not expire while the job waits: that of the call, and those of its blobs.
        tried: Earlier tries of the same electrons, oldest first.
    """

    job_id: str
    call: str
    keys: tuple[str, ...]
    tried: tuple[Tried, ...] = ()


class AdoptedJob(NamedTuple):
    """A job that an earlier server submitted.

    Attributes:
        job_id: Batch job id; `None`: the job ended so long ago that AWS Batch has forgotten it.
        call: URI of the job's ``call.json``.
        keys: S3 keys that must not expire while the job waits.
        tried: Earlier tries of the same electrons, oldest first.
    """

    job_id: str | None
    call: str
    keys: tuple[str, ...]
    tried: tuple[Tried, ...] = ()


class ReusedResults(NamedTuple):
    """Electrons that have the results of earlier work and no job. `poll` returns it as it is.

    Attributes:
        call: URI of the ``call.json`` that the electrons would have had; ``reused.json`` is beside it.
    """

    call: str


class HostNodes(NamedTuple):
    """Covalent's own nodes, which run on the server's host.

    Attributes:
        specs: The nodes in their order, with the nodes that are their arguments.
    """

    specs: tuple[ElectronSpec, ...]


class NoItems(NamedTuple):
    """A mapped electron whose list is empty: its result is an empty list, and there is no job.

    Attributes:
        node_id: The electron's node.
    """

    node_id: int


Sent: TypeAlias = OwnJob | AdoptedJob | ReusedResults | HostNodes | NoItems
"""What `send` returns."""


def dump_sent(sent: Sent) -> dict[str, Any]:
    """The JSON that Covalent hands from `send` to `poll`; `load_sent` reads it."""
    if isinstance(sent, HostNodes):
        return {"host": [[spec.node_id, list(spec.args), dict(spec.kwargs)] for spec in sent.specs]}
    if isinstance(sent, ReusedResults):
        return _dump_reused(sent)
    if isinstance(sent, NoItems):
        return {"no_items": sent.node_id}
    return {
        "job_id": sent.job_id,
        "call": sent.call,
        "keys": list(sent.keys),
        "tried": [list(each) for each in sent.tried],
        "adopted": isinstance(sent, AdoptedJob),
    }


def load_sent(data: Mapping[str, Any]) -> Sent:
    """Read what `dump_sent` made, in the same process."""
    if "host" in data:
        return HostNodes(tuple(ElectronSpec(*spec) for spec in data["host"]))
    if data.get("reused"):
        return ReusedResults(data["call"])
    if "no_items" in data:
        return NoItems(data["no_items"])
    kind = AdoptedJob if data["adopted"] else OwnJob
    return kind(data["job_id"], data["call"], tuple(data["keys"]), tuple(Tried(*each) for each in data["tried"]))


# --- from `poll` to `receive` -----------------------------------------------------------------------------------------


class EndedJob(NamedTuple):
    """A job that has ended.

    Attributes:
        call: URI of the job's ``call.json``.
        job_id: Batch job id; empty where nobody said it.
        detail: The job as DescribeJobs showed it after its end; `None` where nobody said it.
        tried: Number of earlier tries of the same electrons.
        forgotten: AWS Batch does not know the job any more.
        not_again: Why the electrons were not submitted again although they should have been; mostly empty.
    """

    call: str
    job_id: str = ""
    detail: JobDetail | None = None
    tried: int = 0
    forgotten: bool = False
    not_again: str = ""


class HostNodeEnd(NamedTuple):
    """How one of Covalent's own nodes ended on the server's host.

    Attributes:
        node_id: Node id.
        name: Covalent's name of the node.
        files: Files that were written, by asset: ``output`` (if the node completed), ``stdout``, ``stderr``, ``error``.
        why: Why the node has no output, in one line; empty if it completed.
        traceback: Traceback of what it raised; empty if it raised nothing.
    """

    node_id: int
    name: str
    files: Mapping[str, WrittenFile]
    why: str = ""
    traceback: str = ""

    @property
    def completed(self) -> bool:
        """Whether the node has an output."""
        return not self.why


class EndedHostNodes(NamedTuple):
    """Covalent's own nodes that have run on the server's host.

    Attributes:
        ends: The end of each node of the task group, in the order of the nodes.
    """

    ends: tuple[HostNodeEnd, ...]


Polled: TypeAlias = EndedJob | ReusedResults | EndedHostNodes
"""What `poll` returns."""


def dump_polled(polled: Polled) -> dict[str, Any]:
    """The JSON that Covalent hands from `poll` to `receive`; `load_polled` reads it."""
    if isinstance(polled, EndedHostNodes):
        return {"host": [{**each._asdict(), "files": _dump_files(each.files)} for each in polled.ends]}
    if isinstance(polled, ReusedResults):
        return _dump_reused(polled)
    return {
        "call": polled.call,
        "job_id": polled.job_id,
        "job": None if polled.detail is None else dump_detail(polled.detail),
        "tried": polled.tried,
        "gone": polled.forgotten,
        "not_again": polled.not_again,
    }


def load_polled(data: object) -> Polled:
    """Read what `dump_polled` made, or what somebody else sent to the Covalent server.

    Of a job, only ``call`` is required: `receive` asks AWS for what is missing.

    Raises:
        OutcomeError: The data has another form; the message names the member.
    """
    try:
        fields = Fields(data, "data")
        if fields.raw("host") is not None:
            return EndedHostNodes(tuple(_load_host_node(each) for each in fields.items("host")))
        call = fields.text("call", _URI_CHARS)
        if fields.raw("reused"):
            return ReusedResults(call)
        return EndedJob(
            call,
            fields.text("job_id") if fields.raw("job_id") is not None else "",
            load_detail(fields.raw("job")),
            fields.maybe_whole("tried") or 0,
            bool(fields.raw("gone")),
            fields.text("not_again", _TEXT_CHARS) if fields.raw("not_again") is not None else "",
        )
    except ProtocolError as error:
        raise OutcomeError(
            f"Covalent got the end of electrons in another form than this plugin's: {error}. It was refused."
        ) from error


def _load_host_node(value: object) -> HostNodeEnd:
    fields = Fields(value, "data.host")
    files = {}
    for key, file in fields.mapping("files").items():
        if not (isinstance(file, list) and len(file) == 2 and type(file[0]) is int and isinstance(file[1], str)):
            raise ProtocolError(f"data.host.files.{key} is not a list of a size and a SHA-1")
        files[key] = WrittenFile(*file)
    return HostNodeEnd(
        fields.whole("node_id"),
        fields.text("name", _TEXT_CHARS),
        files,
        fields.text("why", _TEXT_CHARS),
        fields.text("traceback", _TEXT_CHARS),
    )


def _dump_files(files: Mapping[str, WrittenFile]) -> dict[str, list[object]]:
    return {key: list(file) for key, file in files.items()}


def _dump_reused(reused: ReusedResults) -> dict[str, Any]:
    return {"call": reused.call, "reused": True}


# --- what Covalent stores ---------------------------------------------------------------------------------------------


class JobHandle(NamedTuple):
    """What Covalent stores of a job, gives to `cancel`, and has for the next server.

    Attributes:
        job_id: Batch job id.
        call: URI of the job's ``call.json``; empty where only the id is known.
        region: AWS region of the job; empty where only the id is known.
    """

    job_id: str
    call: str = ""
    region: str = ""


def dump_handle(handle: JobHandle) -> dict[str, Any]:
    """The JSON that Covalent stores; `load_handle` reads it."""
    return {"format": HANDLE_FORMAT, **handle._asdict()}


def load_handle(value: object) -> JobHandle | None:
    """Read the handle of a job: what `dump_handle` made, or the job id alone.

    Returns:
        The handle; `None` where the value is something else, or says no job id. A member of a wrong type is left out.
    """
    if isinstance(value, str):
        return JobHandle(value) if value else None
    if not isinstance(value, Mapping) or not isinstance(value.get("job_id"), str) or not value["job_id"]:
        return None
    texts = {name: value[name] for name in ("call", "region") if isinstance(value.get(name), str)}
    return JobHandle(value["job_id"], **texts)
