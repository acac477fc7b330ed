"""The runner's pure parts: how logs are cut, blobs coded, cgroups and answers read, addresses made."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
import zlib
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covalent_cirro.contract import log_parts
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.limits import LOG_TAIL_BYTES, MAX_PARTS, STRING_BYTES
from covalent_cirro.contract.protocol import ExitCode, Log, NodeResult
from covalent_cirro.contract.references import Blob
from covalent_cirro.runner import exits, failures, logs, results, usage
from covalent_cirro.runner.process import Ended
from covalent_cirro.runner.s3 import blob_transfer
from covalent_cirro.runner.s3.answers import Endpoint
from covalent_cirro.runner.times import TIMES_VARIABLE, Times, times_of

# --- logs -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=9) | st.text(max_size=5).map(str.encode), st.booleans()), max_size=30))
def test_parts_of_a_log_are_its_whole_text(writes: list[tuple[bytes, bool]]) -> None:
    """However it is written and cut: parts joined are the text, the tail its end, and a short log needs no part."""
    stream, parts, text = logs.Stream(10, 0), [], b""
    for data, cut in writes:
        stream.feed(data)
        text += data
        if cut and (part := stream.cut(1)):
            parts.append(part)
            stream.stored(f"01/stdout.{len(parts):06d}")
    if part := stream.finish():
        parts.append(part)
        stream.stored(f"01/stdout.{len(parts):06d}")

    log = stream.log()
    assert log.size == len(text)
    assert log.tail == text.decode("utf-8", "replace")
    assert len(log.parts) == len(parts)
    if parts:
        assert b"".join(parts) == text


@given(st.text(min_size=1), st.integers(min_value=0))
def test_cut_never_tears_a_character(text: str, at: int) -> None:
    """Any beginning of a text in UTF-8 is cut at the end of a character, at most three bytes back."""
    data = text.encode()[: at % (len(text.encode()) + 1)]

    end = logs.cut_text(data)

    assert len(data) - end <= 3
    assert text.startswith(data[:end].decode())


@given(st.binary(max_size=20))
def test_cut_holds_back_little_of_what_is_not_text(data: bytes) -> None:
    """Arbitrary bytes flow on: never more than three wait."""
    assert len(data) - 3 <= logs.cut_text(data) <= len(data)


def test_tail_begins_with_a_whole_character() -> None:
    """The tail of a long text in UTF-8 has no half characters."""
    stream = logs.Stream(10, 0)
    stream.feed("🌲".encode() * LOG_TAIL_BYTES + b"x")

    tail = stream.log().tail

    assert set(tail) == {"🌲", "x"}
    assert LOG_TAIL_BYTES - 4 <= len(tail.encode()) <= LOG_TAIL_BYTES


def test_parts_become_rarer_with_time() -> None:
    """Ten seconds at first, a minute after an hour; a full part is due at once, nothing new never."""
    assert [logs.interval_s(10, running_s) for running_s in (0, 600, 1800, 3600, 86_400)] == [10, 10, 30, 60, 60]
    stream = logs.Stream(10, 100)
    assert stream.due_at() is None
    stream.feed(b"x")
    assert stream.due_at() == 110
    stream.feed(bytes(logs.PART_BYTES))
    assert stream.due_at() == 100


def test_parts_are_as_many_as_an_outcome_tells_of() -> None:
    """In the order of the text, over all electrons of a job; what comes after has no name."""
    names = logs.PartNames(2, "stderr")
    given = [names.next() for _ in range(MAX_PARTS + 2)]
    assert given[:2] == ["02/stderr.000000", "02/stderr.000001"]
    assert given[MAX_PARTS:] == [None, None]
    assert log_parts.ordered(each for each in given if each) == tuple(given[:MAX_PARTS])


# --- blobs ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000) | st.binary(min_size=1, max_size=20).map(lambda data: data * 20_000))
def test_blobs_come_back_as_they_went(tmp_path: Path, data: bytes) -> None:
    """Whatever the codec: decoded bytes are the encoded ones, and the digest is that of the stored bytes."""
    path = tmp_path / "data"
    path.write_bytes(data)

    blob, stored = blob_transfer.encode(str(path))

    content = Path(stored).read_bytes()
    assert blob == Blob(hashlib.sha256(content).hexdigest(), len(content), blob.codec, len(data))
    copy = tmp_path / "stored"
    copy.write_bytes(content)
    assert Path(blob_transfer.decode(blob, str(copy), str(tmp_path / "decoded"))).read_bytes() == data


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(min_size=1, max_size=300),
    packed=st.booleans(),
    change=st.sampled_from(["flip", "cut", "add", "raw_size"]),
    at=st.integers(min_value=0),
)
def test_any_change_of_a_blob_is_refused(tmp_path: Path, data: bytes, packed: bool, change: str, at: int) -> None:
    """A flipped bit, a byte less or more, another size than it says."""
    content = zlib.compress(data) if packed else data
    codec, size = ("zlib" if packed else "raw"), len(content)
    blob = Blob(hashlib.sha256(content).hexdigest(), size, codec, len(data) + (change == "raw_size"))
    if change == "flip":
        content = content[: at % size] + bytes([content[at % size] ^ 1]) + content[at % size + 1 :]
    content = content[:-1] if change == "cut" else content + b"x" if change == "add" else content
    (tmp_path / "stored").write_bytes(content)

    with pytest.raises(blob_transfer.BlobError, match=blob.sha256):
        blob_transfer.decode(blob, str(tmp_path / "stored"), str(tmp_path / "decoded"))


def test_decoding_stops_at_the_size_that_it_says(tmp_path: Path) -> None:
    """A bomb of 200 MB in 200 kB never fills the disk."""
    bomb = zlib.compress(bytes(200_000_000), 9)
    blob = Blob(hashlib.sha256(bomb).hexdigest(), len(bomb), "zlib", 1000)
    (tmp_path / "stored").write_bytes(bomb)

    with pytest.raises(blob_transfer.BlobError, match="more than its 1000 bytes"):
        blob_transfer.decode(blob, str(tmp_path / "stored"), str(tmp_path / "decoded"))

    assert (tmp_path / "decoded").stat().st_size <= 1000


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "bucket", "expected"),
    [
        ({"AWS_REGION": "eu-west-1"}, "data", ("data.s3.eu-west-1.amazonaws.com", "/a%20b/c%2Bd")),
        ({"AWS_DEFAULT_REGION": "cn-north-1"}, "data", ("data.s3.cn-north-1.amazonaws.com.cn", "/a%20b/c%2Bd")),
        ({}, "my.data", ("s3.us-east-1.amazonaws.com", "/my.data/a%20b/c%2Bd")),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:5000"}, "data", ("127.0.0.1:5000", "/data/a%20b/c%2Bd")),
        (
            {"AWS_ENDPOINT_URL": "http://other:1", "AWS_ENDPOINT_URL_S3": "http://minio:9000/s3/"},
            "data",
            ("minio:9000", "/s3/data/a%20b/c%2Bd"),
        ),
    ],
)
def test_addresses(environ: dict[str, str], bucket: str, expected: tuple[str, str]) -> None:
    """By virtual host on AWS, by path for buckets with dots and at other endpoints."""
    assert Endpoint(environ).address(bucket, "a b/c+d") == expected


# --- memory ---------------------------------------------------------------------------------------------------------


def cgroup_files(folder: Path, **files: str) -> None:
    """Files of a cgroup; ``_`` in a name stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_cgroup_v2_of_a_container(tmp_path: Path) -> None:
    """In a container the files are at the root, whatever the kernel's path is."""
    (tmp_path / "self").write_text("0::/../docker/abc\n")
    cgroup_files(
        tmp_path / "root",
        memory__max="1073741824\n",
        memory__peak="900000000\n",
        memory__events="low 0\noom 3\noom_kill 2\noom_group_kill 0\n",
        cgroup__procs="1\n7\n",
    )

    cgroup = usage.find_cgroup(str(tmp_path / "root"), str(tmp_path / "self"))

    assert (cgroup.limit_bytes(), cgroup.peak_bytes(), cgroup.oom_kills()) == (1 << 30, 900_000_000, 2)
    assert cgroup.is_ours({1, 7, 8})
    assert not cgroup.is_ours({7, 8})


def test_cgroup_v1_without_limit(tmp_path: Path) -> None:
    """Version 1 has other names and a very large number for no limit."""
    (tmp_path / "self").write_text("5:cpu,cpuacct:/x\n4:memory:/box\n0::/\n")
    cgroup_files(
        tmp_path / "root" / "memory" / "box",
        memory__limit_in_bytes="9223372036854771712\n",
        memory__max_usage_in_bytes="5000\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    )

    cgroup = usage.find_cgroup(str(tmp_path / "root"), str(tmp_path / "self"))

    assert (cgroup.limit_bytes(), cgroup.peak_bytes(), cgroup.oom_kills()) == (None, 5000, 1)


def test_no_cgroup_tells_nothing(tmp_path: Path) -> None:
    """As on macOS."""
    cgroup = usage.find_cgroup(str(tmp_path), str(tmp_path / "none"))

    assert (cgroup.limit_bytes(), cgroup.peak_bytes(), cgroup.oom_kills(), cgroup.is_ours({1})) == (
        None,
        None,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("before", "now", "max_rss", "limit", "expected"),
    [(0, 1, 10, None, True), (1, 1, 100, 100, False), (None, None, 95, 100, True), (None, None, 50, 100, False)],
)
def test_out_of_memory_evidence(before: Any, now: Any, max_rss: int, limit: Any, expected: bool) -> None:
    """The kernel's count decides; without one, how near the limit the process was."""
    assert usage.out_of_memory(before, now, max_rss, limit) is expected


@pytest.mark.parametrize(("now", "max_rss", "expected"), [(1, 95, True), (1, 50, False), (2, 50, True)])
def test_count_of_others_is_no_evidence_against(now: int, max_rss: int, expected: bool) -> None:
    """A cgroup with other processes in it does not count what is over the job's own limit, as on a local stack."""
    assert usage.out_of_memory(1, now, max_rss, 100, own=False) is expected


def test_out_of_memory_says_how_much_there_was() -> None:
    """The limit, the largest process, and the option to raise."""
    failure = exits.died(Ended(None, "SIGKILL", 1.0, 3 * 2**30), "train", True, 4 * 2**30)

    assert failure.kind == Kind.OUT_OF_MEMORY
    assert all(words in failure.message for words in ("'train'", "4.00 GiB", "3.00 GiB", "memory="))


def test_ecs_metadata_gives_zone_and_limit(eventually: Any) -> None:
    """From the endpoint that ECS names, in the background."""

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers = {"/v4/x": {"Limits": {"Memory": 512}}, "/v4/x/task": {"AvailabilityZone": "eu-west-1b"}}
            body = json.dumps(answers[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    host = usage.HostFacts({"ECS_CONTAINER_METADATA_URI_V4": f"http://127.0.0.1:{server.server_port}/v4/x"})

    eventually(lambda: host.facts().get("zone") == "eu-west-1b")
    assert host.memory_limit_bytes() == 512 * 2**20
    server.shutdown()
    server.server_close()


def test_the_metadata_service_says_whether_it_is_spot(eventually: Any) -> None:
    """With a token (IMDSv2); what ECS has told is not asked for again."""
    asked: list[str] = []

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.answer("token" if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else None)

        def do_GET(self) -> None:
            if self.path.startswith("/v4/"):
                self.answer('{"AvailabilityZone": "eu-west-1b"}' if self.path.endswith("/task") else "{}")
                return
            asked.append(self.path)
            facts = {"instance-life-cycle": "spot", "instance-type": "g5.xlarge", "instance-id": "i-0abc"}
            signed = self.headers["X-aws-ec2-metadata-token"] == "token"
            self.answer(facts.get(self.path.removeprefix("/imds/latest/meta-data/")) if signed else None)

        def answer(self, text: str | None) -> None:
            body = (text or "").encode()
            self.send_response(404 if text is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    host = usage.HostFacts(
        {"ECS_CONTAINER_METADATA_URI_V4": f"{address}/v4/x", "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{address}/imds"}
    )

    eventually(lambda: host.facts().get("life_cycle") == "spot")
    assert host.facts() == {
        **{"hostname": os.uname().nodename, "zone": "eu-west-1b", "life_cycle": "spot"},
        **{"instance_type": "g5.xlarge", "instance_id": "i-0abc"},
    }
    assert not [path for path in asked if "availability-zone" in path]
    server.shutdown()
    server.server_close()


def test_ec2_facts_come_from_the_firmware(tmp_path: Path) -> None:
    """No network is needed for them; elsewhere there is only the name of the host."""
    for name, text in {"sys_vendor": "Amazon EC2", "product_name": "g5.xlarge", "board_asset_tag": "i-0abc"}.items():
        (tmp_path / name).write_text(text + "\n")
    name = os.uname().nodename

    expected = {"hostname": name, "instance_type": "g5.xlarge", "instance_id": "i-0abc"}
    assert usage.HostFacts({}, str(tmp_path)).facts() == expected
    assert usage.HostFacts({}, str(tmp_path / "none")).facts() == {"hostname": name}


# --- outcomes, results, failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ([None, None], ExitCode.OK),
        ([None, Kind.RAISED, Kind.NOT_RUN], ExitCode.RAISED),
        ([Kind.FETCH], ExitCode.FETCH),
        ([Kind.TERMINATED, Kind.NOT_RUN], ExitCode.TERMINATED),
        ([Kind.VERSIONS], ExitCode.VERSIONS),
        ([Kind.OUT_OF_MEMORY], ExitCode.RAISED),
    ],
)
def test_exit_codes(kinds: list[str | None], code: int) -> None:
    """The first failure decides."""
    found = [NodeResult(0, None, None if kind is None else Failure(kind, ""), Log(), Log()) for kind in kinds]

    assert exits.exit_code(found) == code


@given(st.recursive(st.integers() | st.text() | st.binary(), lambda inner: st.lists(inner) | st.tuples(inner)))
def test_display_is_str_of_small_values(value: Any) -> None:
    """Text and pickle are Covalent's for all that is not large."""
    text = str(value).encode("utf-8", "backslashreplace")
    expected = text if isinstance(value, str) else text[:STRING_BYTES]

    assert results.display(value, len(cloudpickle.dumps(value))) == expected.decode("utf-8", "ignore").encode()


def test_display_of_large_containers_is_short_and_quick() -> None:
    """Nested bytes and strings are abbreviated, too."""
    text = results.display({"a": [b"x" * 50_000_000], "b": "y" * 50_000_000}, 100_000_000)

    assert text.startswith(b"{'a': [b'xxx")
    assert len(text) < 5_000


def test_a_missing_module_is_told_with_the_way_to_ship_it() -> None:
    """Another one for Covalent, and for this package, of which an image has the runner's part."""
    told = {name: failures.missing_module(name, "it", "0.240.0") for name in ("a.b", "covalent.x", "covalent_cirro.x")}
    assert "deps_pip=['a']" in told["a.b"]
    assert "covalent==0.240.0" in told["covalent.x"]
    assert "cirro image build" in told["covalent_cirro.x"]


def test_failures_describe_the_class_by_its_full_name() -> None:
    """As the last line of a traceback would, but in one line."""
    assert failures.describe(json.JSONDecodeError("bad\nthing", "x", 0)).startswith("json.decoder.JSONDecodeError: bad")
    assert failures.describe(ValueError()) == "ValueError"
    assert len(failures.describe(ValueError("x" * 100_000))) <= 2_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", Times()), ("grace=1 stop=2.5", Times(grace=1, stop=2.5)), ("log_interval=0.2", Times(log_interval=0.2))],
)
def test_one_variable_says_how_long_the_runner_waits(text: str, expected: Times) -> None:
    """What it does not name stays."""
    assert times_of({TIMES_VARIABLE: text}) == expected
    assert times_of({}) == Times()


@pytest.mark.parametrize("text", ["patience=1", "grace", "grace=soon"])
def test_a_time_that_does_not_exist_is_refused(text: str) -> None:
    """A test that names one would otherwise wait for the default."""
    with pytest.raises(ValueError, match=r"patience|could not convert"):
        times_of({TIMES_VARIABLE: text})
