"""The gateway to electrons' objects in S3, for commands: dispatches, their calls, outcomes and parts of logs.

S3 keeps these objects longer than AWS Batch keeps jobs. Nothing is written, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator
from typing import NamedTuple, TypeVar

from covalent_cirro.contract import log_parts
from covalent_cirro.contract.documents import parse_call, parse_reused
from covalent_cirro.contract.limits import MAX_DOCUMENT_BYTES, MAX_OUTCOME_BYTES
from covalent_cirro.contract.places import Location, calls_among, node_base
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.protocol import Call, Outcome, Reused
from covalent_cirro.errors import CallError, NotFound, OutcomeError, TooLarge
from covalent_cirro.history.account import Account
from covalent_cirro.jobs.authentic_outcomes import later_attempts, outcome_of
from covalent_cirro.jobs.states import JobDetail

T = TypeVar("T")

JOBS = "jobs/"


class StoredCall(NamedTuple):
    """One call in S3.

    Attributes:
        place: Location of the call.
        node_id: Id of the node in its key; of a task group, the first node.
        has_outcome: Whether there is an outcome.
        parts: Names of the parts of the log (`log_parts.Part`), in the order of the text.
    """

    place: Location
    node_id: int
    has_outcome: bool
    parts: tuple[str, ...]


def dispatches(account: Account, beginning: str) -> list[str]:
    """Ids of dispatches that begin with a text: one ListObjectsV2 for each 1,000 ids."""
    base = f"{account.settings.key_prefix}{JOBS}"
    found = []
    for page in _pages(account, f"{base}{beginning}", Delimiter="/"):
        found += [each["Prefix"].removeprefix(base).rstrip("/") for each in page.get("CommonPrefixes", ())]
    return found


def calls(account: Account, dispatch_id: str, node_id: int | None = None) -> list[StoredCall]:
    """Calls of a dispatch or of a node, oldest first for each node: a ListObjectsV2 for each 1,000 objects."""
    return [
        StoredCall(
            place=place,
            node_id=place.node_id,
            has_outcome="outcome.json" in names,
            parts=log_parts.ordered(name.removeprefix("log/") for name in names if name.startswith("log/")),
        )
        for place, names in _calls(account, dispatch_id, node_id).items()
        if "call.json" in names or "outcome.json" in names
    ]


def _calls(account: Account, dispatch_id: str, node_id: int | None) -> dict[Location, set[str]]:
    """Calls of a dispatch or of a node, with the names of their objects."""
    prefix = account.settings.key_prefix
    base = f"{prefix}{JOBS}{dispatch_id}/" if node_id is None else node_base(prefix, dispatch_id, node_id)
    keys = (each["Key"] for page in _pages(account, base) for each in page.get("Contents", ()))
    return calls_among(keys, account.settings.s3_bucket_name, prefix, dispatch_id)


def reuses(
    account: Account, dispatch_id: str, known: Container[Location] = ()
) -> list[tuple[Location, Reused | CallError]]:
    """Electrons of a dispatch that reuse the results of an earlier job, except those in ``known``.

    Takes a ListObjectsV2 for each 1,000 objects of the dispatch, and a GetObject for each such electron. For a document
    that cannot be read, the error is returned in its place.
    """
    calls = _calls(account, dispatch_id, None)
    new = [place for place, names in calls.items() if "reused.json" in names and place not in known]
    read_all = account.each(lambda place: _read_reused(account, place), new)
    return [(place, reused) for place, reused in zip(new, read_all, strict=True) if reused is not None]


def _read_reused(account: Account, place: Location) -> Reused | CallError | None:
    try:
        return _document(account, place.bucket, place.reused_key, parse_reused)
    except CallError as error:
        return error


def parts(account: Account, place: Location) -> tuple[str, ...]:
    """Names of the parts of a call's log that are in S3 now, in the order of the text."""
    base = place.log_key("")
    pages = _pages(account, base, bucket=place.bucket)
    return log_parts.ordered(each["Key"].removeprefix(base) for page in pages for each in page.get("Contents", ()))


def objects(account: Account, bucket: str, prefix: str, after: str = "") -> dict[str, tuple[int, float]]:
    """By key, bytes and epoch second of the writing of each object under a prefix; only of keys after ``after``."""
    pages = _pages(account, prefix, bucket=bucket, **({"StartAfter": after} if after else {}))
    every = (each for page in pages for each in page.get("Contents", ()))
    return {each["Key"]: (each["Size"], each["LastModified"].timestamp()) for each in every}


def read_call(account: Account, place: Location) -> Call | None:
    """A call; `None` where it has expired.

    Raises:
        CallError: It is malformed, too large, or of another format.
    """
    return _document(account, place.bucket, place.call_key, parse_call)


def _document(account: Account, bucket: str, key: str, parse: Callable[[bytes], T]) -> T | None:
    try:
        data = read(account, bucket, key, MAX_DOCUMENT_BYTES)
        return None if data is None else parse(data)
    except TooLarge as error:
        raise CallError(str(error)) from error
    except ProtocolError as error:
        raise CallError(f"s3://{bucket}/{key} cannot be used: {error}") from error


def read_outcome(account: Account, place: Location) -> Outcome | None:
    """The outcome of a call; `None` where there is none.

    Raises:
        OutcomeError: It is malformed, too large, of another format, or of another call.
    """
    try:
        data = read(account, place.bucket, place.outcome_key, MAX_OUTCOME_BYTES)
    except TooLarge as error:
        raise OutcomeError(f"The outcome of the job was refused: {error}") from error
    return None if data is None else outcome_of(data, place)


def outcome_of_job(account: Account, place: Location, detail: JobDetail, first: Outcome | None) -> Outcome | None:
    """The outcome that a job of the call wrote; `None` where it wrote none.

    Args:
        place: Location of the call.
        detail: What AWS Batch says of the job.
        first: The outcome in ``outcome.json``, from `read_outcome`.
    """
    mac_key = detail.mac_key_of(place)
    if mac_key is None or first is None:
        return None
    for attempt in later_attempts(first, mac_key, detail):
        with contextlib.suppress(OutcomeError, TooLarge):
            data = read(account, place.bucket, place.attempt_key(mac_key, attempt), MAX_OUTCOME_BYTES)
            outcome = None if data is None else outcome_of(data, place)
            if outcome is not None and outcome.is_authentic(mac_key):
                return outcome
    return first if first.is_authentic(mac_key) and first.job_id == detail.job_id else None


def read(account: Account, bucket: str, key: str, limit: int) -> bytes | None:
    """The bytes of an object; `None` where it does not exist.

    Raises:
        TooLarge: It has more than ``limit`` bytes.
    """
    s3 = account.clients("s3")

    def get() -> bytes:
        answer = s3.get_object(Bucket=bucket, Key=key)
        with answer["Body"] as body:
            if answer["ContentLength"] > limit:
                raise TooLarge(bucket, key, answer["ContentLength"], limit)
            data: bytes = body.read()
            return data

    try:
        return account.ask("s3:GetObject", get, of=f"s3_bucket_name={bucket!r}, key {key!r}")
    except NotFound as error:
        if error.code == "NoSuchKey":
            return None
        raise


def _pages(account: Account, prefix: str, bucket: str | None = None, **request: str) -> Iterator[dict]:  # type: ignore[type-arg]
    s3, bucket = account.clients("s3"), bucket or account.settings.s3_bucket_name
    token: dict[str, str] = {}
    while True:
        page = account.ask(
            "s3:ListBucket",
            lambda token=token: s3.list_objects_v2(Bucket=bucket, Prefix=prefix, **request, **token),  # type: ignore[misc]
            of=f"s3_bucket_name={bucket!r}, prefix {prefix!r}",
        )
        yield page
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}
