"""What an electron printed, in Covalent's files: always UTF-8, and what is missing of it is told there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.aws import job_logs
from covalent_cirro.aws.sessions import Access
from covalent_cirro.aws.store import Store
from covalent_cirro.contract.limits import MAX_PART_BYTES
from covalent_cirro.contract.places import location
from covalent_cirro.contract.protocol import Log, NodeResult, Outcome, Output, Usage
from covalent_cirro.contract.references import Inline
from covalent_cirro.covalent_server.assets import Node
from covalent_cirro.electron import log_files, result_writer
from covalent_cirro.electron.result_writer import Received
from covalent_cirro.errors import AccessDenied, AwsError, NotFound, Unsigned
from covalent_cirro.jobs.ends import End
from covalent_cirro.jobs.explanations import Explanation
from covalent_cirro.jobs.log_text import LogText
from covalent_cirro.jobs.states import JobDetail

PLACE = location("bucket", "cirro/", "d1", 3, "call")
NAMES = tuple(f"01/stdout.{number:06d}" for number in range(3))


def refused(kind: type[AwsError], code: str, **how: bool) -> AwsError:
    """What AWS answered to a GetObject."""
    return kind(f"AWS said {code}", operation="s3:GetObject", code=code, **how)


class Bucket:
    """The parts of a log, or why they cannot be read; what was asked for."""

    async def list_keys(self, bucket: str, prefix: str) -> list[tuple[str, datetime]]:
        """As `Store.list_keys`."""
        return [(key, datetime.now(timezone.utc)) for key in sorted(self._parts) if key.startswith(prefix)]

    async def get_document(self, bucket: str, key: str, limit: int) -> bytes | None:
        """As `Store.get_document`."""
        found = self._parts[key]
        assert isinstance(found, bytes)
        return found

    def __init__(self, parts: Mapping[str, bytes | AwsError]) -> None:
        self._parts = {PLACE.log_key(name): data for name, data in parts.items()}
        self.asked: list[str] = []

    async def append_object(self, bucket: str, key: str, file: IO[bytes]) -> None:
        """As `Store.append_object`."""
        self.asked.append(key)
        found = self._parts.get(key, refused(NotFound, "NoSuchKey"))
        if isinstance(found, AwsError):
            raise found
        for begin in range(0, len(found), 1000):
            file.write(found[begin : begin + 1000])


def explain(*_: Any) -> Explanation:
    """Why an electron failed, of which there is none here."""
    raise AssertionError


async def received(folder: Path, bucket: Bucket, *, stdout: Log = Log(), stderr: Log = Log()) -> Received:  # noqa: B008
    """What becomes of an electron that returned, and whose outcome says this of its logs."""
    output = Output(Inline(b"pickle"), Inline(b"text"))
    result = NodeResult(3, output, None, stdout, stderr)
    outcome = Outcome("call", 1, "job", (result,), Usage(), "3.11.7", "3.1.2", {}, {})
    node = Node(0, 3, "electron", {name: str(folder / name) for name in ("output", "stdout", "stderr", "error")})
    (found,) = await result_writer.write_results(cast(Store, bucket), PLACE, outcome, {3: node}, explain)
    for name, file in found.files.items():
        data = (folder / name).read_bytes()
        assert (file.size, file.sha1) == (len(data), hashlib.sha1(data).hexdigest())
    return found


@given(st.lists(st.binary(max_size=6) | st.text(max_size=3).map(str.encode), max_size=8))
def test_any_bytes_in_any_pieces_are_the_text_that_they_could_be(pieces: list[bytes]) -> None:
    """As if they had been decoded in one piece."""
    text = LogText(Log(sum(map(len, pieces)), (), ""))
    bits = [bit for piece in pieces for bit in text.take("uri", piece)] + text.finish()
    assert "".join(bit.text for bit in bits) == b"".join(pieces).decode("utf-8", "replace")
    assert not any(bit.is_note for bit in bits)


async def test_one_byte_that_is_no_text_does_not_take_a_result_away(tmp_path: Path) -> None:
    """40 KiB and then 0xE9, which is é in Latin-1; and characters that are torn between parts stay whole."""
    parts = dict(zip(NAMES, (b"x" * 40_960 + b"\xe9\n", b"gr\xc3", b"\xbc\xdf\n"), strict=True))
    log = Log(sum(map(len, parts.values())), NAMES, "")
    found = await received(tmp_path, Bucket(parts), stdout=log, stderr=Log(3, (), "\ufffd\ufffd\n"))
    assert found.completed
    assert (tmp_path / "stdout").read_text("utf-8") == "x" * 40_960 + "\ufffd\ngrü\ufffd\n"
    assert (tmp_path / "stderr").read_text("utf-8") == "\ufffd\ufffd\n"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (refused(NotFound, "NoSuchKey"), "AWS said NoSuchKey"),
        (refused(AccessDenied, "AccessDenied"), "AWS said AccessDenied"),
        (bytes(MAX_PART_BYTES + 1), f"more than the {MAX_PART_BYTES} that a well-formed one has"),
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_part_that_cannot_be_read_costs_its_own_text_only(
    tmp_path: Path, missing: bytes | AwsError, said: str, stream: str
) -> None:
    """The electron completes; its log has the parts before and after, and says which part is missing, and why."""
    names = [name.replace("stdout", stream) for name in NAMES]
    log = Log(3000, tuple(names), "end\n")
    bucket = Bucket(dict(zip(names, (b"begin\n", missing, b"the end\n"), strict=True)))
    found = await received(tmp_path, bucket, **{stream: log})
    assert found.completed
    assert found.end is End.SUCCEEDED
    begin, note, end = (tmp_path / stream).read_text("utf-8").splitlines()
    assert (begin, end) == ("begin", "the end")
    assert note.startswith(f"[covalent-cirro: the part s3://bucket/{PLACE.log_key(names[1])} of this log is missing: ")
    assert said in note


async def test_where_s3_does_not_answer_the_next_part_is_not_waited_for(tmp_path: Path) -> None:
    """It was asked patiently already; the end, which is in the outcome, is shown."""
    bucket = Bucket(dict(zip(NAMES, (b"begin\n", refused(AwsError, "503", retryable=True), b"the end\n"), strict=True)))
    assert (await received(tmp_path, bucket, stdout=Log(3000, NAMES, "the end\n"))).completed
    begin, note, *end = (tmp_path / "stdout").read_text().splitlines()
    assert begin == "begin"
    assert note.endswith("AWS said 503; the 1 parts after it were not read]")
    assert end == ["[covalent-cirro: it ended with:]", "the end"]
    assert len(bucket.asked) == 2


async def test_refused_credentials_are_waited_for(tmp_path: Path) -> None:
    """The log is not lost for them: whoever waits for new ones begins again."""
    bucket = Bucket({NAMES[0]: refused(Unsigned, "ExpiredToken")})
    with pytest.raises(Unsigned):
        await received(tmp_path, bucket, stdout=Log(6, NAMES[:1], ""))


async def test_what_the_job_could_not_store_is_told(tmp_path: Path) -> None:
    """With the end of the text, which the outcome has in any case."""
    tail = "the middle, which is lost\nthe end\n"
    log = Log(2048, (NAMES[0],), tail)
    await received(tmp_path, Bucket({NAMES[0]: b"begin\n"}), stdout=log, stderr=Log(2048, (), tail))
    assert (tmp_path / "stdout").read_text().splitlines() == [
        "begin",
        "[covalent-cirro: 2042 of 2048 bytes are missing: they were not stored, or not kept]",
        "[covalent-cirro: it ended with:]",
        *tail.splitlines(),
    ]
    assert (tmp_path / "stderr").read_text().splitlines() == [
        f"[covalent-cirro: the first {2048 - len(tail)} of 2048 bytes are missing: they were not stored, or not kept]",
        *tail.splitlines(),
    ]


async def test_a_log_is_never_longer_than_what_was_printed(tmp_path: Path) -> None:
    """Objects that somebody made larger do not fill the server's disk."""
    bucket = Bucket(dict.fromkeys(NAMES, b"x" * 1000))
    await received(tmp_path, bucket, stdout=Log(1500, NAMES, "x"))
    text, note, *_ = (tmp_path / "stdout").read_text().splitlines()
    assert text == "x" * 1000
    assert "the log would have more than the 1500 bytes that were printed" in note
    assert len(bucket.asked) == 2


async def test_what_is_put_beside_a_log_does_not_hide_why_a_job_ended() -> None:
    """Objects that are no parts are not asked what they say; nor is an error made of their names."""
    only, beside = Bucket({"zz": b"evil"}), Bucket({NAMES[0]: b"the last words\n", "zz": b"evil", "02/zz.000000": b"x"})
    access = Access(None, None, None, None)
    found = []
    for bucket in (only, beside):
        store = cast(Store, bucket)
        parts = await job_logs.parts_of(store, PLACE)
        found.append((parts, await job_logs.of_job(store, None, access, PLACE, parts, JobDetail("job"), "")))
    assert found == [([], ""), ([NAMES[0]], "(of attempt 1)\nthe last words")]


def test_a_file_that_others_wrote_is_mended_where_it_has_to_be(tmp_path: Path) -> None:
    """A process writes its stdout as it likes; one that is UTF-8, or is not there, is left alone."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("größe\n", "utf-8")
    bad.write_bytes(b"x" * 2_000_000 + b"\xe9\n" + "größe".encode()[:3])
    before = good.stat()
    for path in (good, bad, tmp_path / "none"):
        log_files.make_valid(str(path))
    assert good.stat().st_ino == before.st_ino
    assert bad.read_text("utf-8") == "x" * 2_000_000 + "\ufffd\ngr\ufffd"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "good"]
