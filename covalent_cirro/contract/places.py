"""Places in S3: the keys and URIs of calls and of what belongs to them, and the argument of a job.

Executor and runner import this file. It does no I/O and needs the standard library only, like `protocol`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import mac

# --- keys -------------------------------------------------------------------------------------------------------


class Location(NamedTuple):
    """Location of a call in S3: ``s3://bucket/prefix/jobs/<dispatch>/<node>/<call>/``.

    The last part is new for each call, so that two servers, or two calls of an electron, do not overwrite each other's
    objects. Dispatch and node come first, so that a listing finds all calls of a node.
    """

    bucket: str
    base: str
    child_index: int | None = None
    compute_node: int | None = None
    node_attempt: int = 1

    def child(self, index: int) -> Location:
        """The location of a child of the call's array job: the same call, with an outcome and a log of its own."""
        return self._replace(child_index=index)

    def on_node(self, index: int, attempt: int) -> Location:
        """The location of a compute node, other than the main one, in an attempt of a multi-node job."""
        return self._replace(compute_node=index, node_attempt=attempt)

    @property
    def of_job(self) -> Location:
        """The location of the whole job, that of its main node or of the parent of an array."""
        return self._replace(child_index=None, compute_node=None, node_attempt=1)

    @property
    def own_base(self) -> str:
        """Beginning of the keys of what one job writes: ``base``.

        With ``array/<index>/`` for a child of an array, and with ``nodes/<attempt>/<index>/`` for a compute node that
        is not the main one.
        """
        if self.compute_node is not None:
            return f"{self.base}nodes/{self.node_attempt:02d}/{self.compute_node:05d}/"
        return self.base if self.child_index is None else f"{self.array_base}{self.child_index:05d}/"

    def meeting_key(self, job_id: str, attempt: int) -> str:
        """Key at which the main node of an attempt of a multi-node job says where the other nodes reach it."""
        return f"{self.base}nodes/{attempt:02d}/{job_id}.json"

    @property
    def array_base(self) -> str:
        """Beginning of the keys of what the children of the call's array job write."""
        return self.base + "array/"

    def chunk_key(self, name: str) -> str:
        """Key of a record of results that a mapped electron has so far, named by `chunk_records.ChunkName`."""
        return self.own_base + "items/" + name

    @property
    def call_key(self) -> str:
        """Key of ``call.json``."""
        return self.base + "call.json"

    @property
    def outcome_key(self) -> str:
        """Key of ``outcome.json``."""
        return self.own_base + "outcome.json"

    @property
    def reused_key(self) -> str:
        """Key of ``reused.json``: no job of this call, but the results of an earlier one."""
        return self.base + "reused.json"

    def log_key(self, part: str) -> str:
        """Key of a part of the log, named by `log_parts.Part`."""
        return self.own_base + "log/" + part

    @property
    def node_base(self) -> str:
        """Beginning of the keys of all calls of the node (`node_base`)."""
        return self.base[: -len(self.call_id) - 1]

    def sibling(self, call_id: str) -> Location:
        """The location of another call of the same node."""
        return self._replace(base=f"{self.node_base}{call_id}/")

    def checkpoint_key(self, node_id: int, part: str) -> str:
        """Key of a part of an electron's checkpoint: ``index.json``, or ``files/<name>``."""
        return f"{self.own_base}checkpoint/{node_id}/{part}"

    def item_checkpoint_key(self, node_id: int, item: int, part: str) -> str:
        """Key of a part of the checkpoint of an item of a mapped electron, whichever job runs the item."""
        return f"{self.base}checkpoint/{node_id}/items/{item:07d}/{part}"

    @property
    def prefix(self) -> str:
        """The part of the key before ``jobs/`` and ``blobs/``: empty, or ends with a slash."""
        return self.base[: self.base.rindex("jobs/")]

    @property
    def node_id(self) -> int:
        """The node that the call is listed under: the first of its task group."""
        return int(self.base.split("/")[-3])

    @property
    def dispatch_id(self) -> str:
        """Id of the dispatch of the call."""
        return self.base.split("/")[-4]

    @property
    def made_at(self) -> float:
        """`call_made_at` of its id."""
        return call_made_at(self.call_id)

    @property
    def call_id(self) -> str:
        """Id of the call: the last part of the location."""
        return self.base.rstrip("/").rsplit("/", 1)[1]

    @property
    def call_uri(self) -> str:
        """``s3://bucket/.../call.json``."""
        return f"s3://{self.bucket}/{self.call_key}"

    def attempt_key(self, mac_key: str, attempt: int) -> str:
        """Key of an attempt's outcome if ``outcome.json`` exists already, because no object is overwritten.

        The name follows from the call's MAC key, so that no other job can write there first.
        """
        return f"{self.own_base}attempts/{mac(f'attempt {attempt}'.encode(), mac_key)[:32]}.json"

    def blob_key(self, sha256: str) -> str:
        """Key of the blob with this digest, shared by all calls under the prefix."""
        return blob_key(self.prefix, sha256)


def blob_key(prefix: str, sha256: str) -> str:
    """``<prefix>blobs/<sha256>``."""
    return f"{prefix}blobs/{sha256}"


def node_base(prefix: str, dispatch_id: str, node_id: int) -> str:
    """Beginning of the keys of all calls of a node: ``<prefix>jobs/<dispatch>/<node>/``."""
    return f"{prefix}jobs/{dispatch_id}/{node_id}/"


# --- the job's argument, and who wrote an outcome ---------------------------------------------------------------


def call_argument(place: Location, mac_key: str) -> str:
    """The job's only argument: the URI of its call, and the key with which its outcome is authenticated.

    All jobs of a deployment may read and write the same bucket, and none may call AWS Batch: only the job itself, and
    those who may describe it, know its argument.

    Args:
        place: Location of the call.
        mac_key: 128 random bits in hex.
    """
    return f"{place.call_uri}#{mac_key}"


def parse_call_argument(argument: str) -> tuple[Location, str]:
    """The location of the call, and the MAC key of the job; the key is empty if the argument has none.

    Raises:
        ProtocolError: The text is not the argument of a job.
    """
    uri, _, mac_key = argument.rpartition("#")
    return (parse_call_uri(uri), mac_key) if _MAC_KEY.fullmatch(mac_key) else (parse_call_uri(argument), "")


def call_made_at(call_id: str) -> float:
    """Time in epoch seconds at which a call was made, from its id; for a further try, 1 ms after the try before."""
    return int(call_id[:12], 16) / 1000


def location(bucket: str, prefix: str, dispatch_id: str, node_id: int, call_id: str) -> Location:
    """The location of a call. ``prefix`` is empty or ends with a slash."""
    return Location(bucket, f"{node_base(prefix, dispatch_id, node_id)}{call_id}/")


CALL_ID = re.compile(r"[0-9a-f]{20}")
"""The id of a call: the time in ms and 32 more bits (`call_writer.new_call_id`, `further_tries.next_call_id`). No
folder that a job may write to has such a name, so that no object of a job is taken for a call."""

_MAC_KEY = re.compile(r"[0-9a-f]{32}")
_CALL_URI = re.compile(rf"s3://([^/]+)/((?:.*/)?jobs/[^/]+/\d+/{CALL_ID.pattern}/)call\.json")
_OBJECT = re.compile(rf"(\d+/{CALL_ID.pattern}/)(.+)", re.DOTALL)


def calls_among(keys: Iterable[str], bucket: str, prefix: str, dispatch_id: str) -> dict[Location, set[str]]:
    """The calls of a dispatch among listed keys, each with the names of its objects below its own folder.

    Keys that belong to no call are left out.

    Args:
        keys: Keys that were listed under the dispatch, or under one of its nodes.
        bucket: The bucket of the keys.
        prefix: Empty, or ends with a slash.
        dispatch_id: The whole id.

    Returns:
        Calls in the order of the keys: for each node, the oldest call first.
    """
    base = f"{prefix}jobs/{dispatch_id}/"
    found: dict[Location, set[str]] = {}
    for key in sorted(keys):
        match = _OBJECT.fullmatch(key.removeprefix(base)) if key.startswith(base) else None
        if match is not None:
            found.setdefault(Location(bucket, base + match[1]), set()).add(match[2])
    return found


def parse_call_uri(uri: str) -> Location:
    """The location of the call with this URI.

    Raises:
        ProtocolError: The text is not the URI of a call.
    """
    match = _CALL_URI.fullmatch(uri)
    if match is None:
        raise ProtocolError(
            f"{uri!r} is not the URI of a call (s3://bucket/<prefix>/jobs/<dispatch>/<node>/<call>/call.json)"
        )
    return Location(match[1], match[2])
