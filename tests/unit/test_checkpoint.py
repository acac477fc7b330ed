"""`covalent_cirro.checkpoint` outside of a job: the same function runs on a laptop. And the parts that are pure."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from covalent_cirro import checkpoint
from covalent_cirro.contract.protocol import CHECKPOINT_VARIABLE
from covalent_cirro.errors import CheckpointError
from covalent_cirro.runner.checkpoints import files, link, spot
from covalent_cirro.runner.checkpoints.index import File, Index, NotAnIndex, Owner, dump, parse
from tests.metadata_service import MetadataService


def in_a_process(code: str, **environ: str) -> str:
    """What a Python process prints."""
    command = [sys.executable, "-c", "from covalent_cirro import checkpoint\n" + code]
    return subprocess.run(
        command, env={**os.environ, **environ}, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_without_a_job_there_is_a_folder_until_the_process_ends() -> None:
    """A new one for each call, so that no training finds another's state; attempt 1; nobody goes; saving is no work."""
    said = in_a_process(
        "here = checkpoint.folder()\n"
        "(here / 'f').write_text('x')\n"
        "checkpoint.save()\n"
        "print(here, list(checkpoint.folder().iterdir()) == [], checkpoint.attempt(), checkpoint.host_is_going())",
        CIRRO_ATTEMPT="3",
    )
    path, *rest = said.split()
    assert rest == ["True", "1", "False"]
    assert not Path(path).exists()


def test_a_folder_that_is_named_is_kept(tmp_path: Path) -> None:
    """So a training on a laptop can be interrupted, and goes on."""
    named = str(tmp_path / "of" / "mine")
    code = "f = checkpoint.folder() / 'f'\nprint(f.exists(), f.is_absolute())\nf.touch()"
    assert in_a_process(code, CIRRO_CHECKPOINT_FOLDER=named) == "False True"
    assert in_a_process(code, CIRRO_CHECKPOINT_FOLDER=named) == "True True"


def test_it_needs_nothing_but_the_runner() -> None:
    """Neither Covalent nor boto3, nor anything else of ours than what the image has."""
    code = (
        "import sys; checkpoint.folder()\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('covalent', 'boto3', 'covalent_cirro')))"
    )
    loaded = in_a_process(code)
    ours = [each for each in ast.literal_eval(loaded) if not each.startswith("covalent_cirro.contract.")]
    assert ours == ["covalent_cirro", "covalent_cirro.checkpoint", "covalent_cirro.contract", "covalent_cirro.errors"]


def test_a_runner_that_is_gone_is_an_error_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a hang."""
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(tmp_path))
    monkeypatch.setattr("covalent_cirro.checkpoint._SUPERVISOR_S", 0.05)
    with pytest.raises(CheckpointError, match="the runner does not answer"):
        checkpoint.save()


def test_a_socket_in_a_folder_with_a_very_long_name(tmp_path: Path) -> None:
    """The kernel takes 107 characters of a socket's path; folders may have more."""
    if sys.platform != "linux":
        pytest.skip("Linux has the way around")
    folder = tmp_path / ("a" * 200)
    folder.mkdir()
    with link.listen(str(folder), "s") as listener, link.connect(str(folder), "s") as one:
        other, _ = listener.accept()
        with other:
            one.sendall(b"x")
            assert other.recv(1) == b"x"
    assert [path.name for path in folder.iterdir()] == ["s"]


FILE = File("0123456789abcdef", "a" * 64, 3, 0o644, 5)
INDEX = Index(Owner("job", 2, 1.5), {"a/b": FILE, "empty": FILE._replace(name="", size=0)}, {"l": "a/b"}, ("a",))


def test_an_index_comes_back_as_it_was() -> None:
    """Through its document."""
    assert parse(dump(INDEX)) == INDEX
    assert INDEX.names == {"0123456789abcdef"}
    assert INDEX.size == 3


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\0b"])
def test_no_path_leads_out_of_the_folder(path: str) -> None:
    """Whoever wrote it."""
    for index in (
        INDEX._replace(files={path: FILE}),
        INDEX._replace(links={path: "x"}),
        INDEX._replace(folders=(path,)),
    ):
        with pytest.raises(NotAnIndex, match="is not a path inside"):
            parse(dump(index))


@pytest.mark.parametrize(
    "file",
    [
        FILE._replace(name="../../call.json"),
        FILE._replace(name=""),
        FILE._replace(sha256="x"),
        FILE._replace(size=-1),
        FILE._replace(size=0),
        FILE._replace(size=10**400),
        FILE._replace(mtime_ns=2**63),
    ],
)
def test_an_entry_that_is_no_file_is_refused(file: File) -> None:
    """Names are hexadecimal, so that they stay below their prefix."""
    with pytest.raises(NotAnIndex):
        parse(dump(INDEX._replace(files={"a": file})))


def test_an_attempt_of_any_number_comes_back_as_it_was() -> None:
    """However long the number is that somebody wrote."""
    owner = Owner("job", 10**400, 1.0)
    assert parse(dump(INDEX._replace(owner=owner))).owner == owner


def test_an_attempt_that_is_no_number_is_no_fault_of_the_runner() -> None:
    """The index is refused as one, so that the electron begins without it."""
    owner = Owner("job", float("inf"), 1.0)  # type: ignore[arg-type]
    with pytest.raises(NotAnIndex, match="cannot convert float infinity"):
        parse(dump(INDEX._replace(owner=owner)))


def test_a_file_that_is_open_for_writing_is_seen(tmp_path: Path) -> None:
    """In this process or another; one that is read only is no hindrance."""
    if sys.platform != "linux":
        pytest.skip("/proc tells")
    path = tmp_path / "f"
    path.write_text("x")
    assert not files.is_written_to(str(tmp_path))
    with open(path):
        assert not files.is_written_to(str(tmp_path))
    with open(path, "a"):
        assert files.is_written_to(str(tmp_path))
        assert not files.is_written_to(str(tmp_path / "elsewhere"))


@pytest.fixture
def imds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A metadata service that is asked often."""
    monkeypatch.setattr(spot, "INTERVAL_S", 0.02)
    service = MetadataService()
    yield service
    service.close()


def until(condition: Any) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_notice_is_told_once(imds: MetadataService) -> None:
    """With a token, at the path that EC2 documents, and with its time; a token that has expired is renewed."""
    told: list[float] = []
    spot.SpotWatch(imds.environ, told.append)
    until(lambda: len(imds.asked) > 2)
    assert told == []
    imds.tokens += 1  # the one that it has is not good any more
    imds.goes_at = 1_900_000_000.0
    until(lambda: told)
    assert told == [1_900_000_000.0]
    assert set(imds.asked) == {"/at/latest/meta-data/spot/instance-action"}


def test_nobody_is_asked_where_the_metadata_service_is_switched_off(imds: MetadataService) -> None:
    """By the variable that AWS's SDKs heed."""
    imds.goes_at = 1_900_000_000.0
    told = threading.Event()
    spot.SpotWatch({**imds.environ, "AWS_EC2_METADATA_DISABLED": "true"}, lambda _: told.set())
    assert not told.wait(0.3)
    assert imds.asked == []


def test_outside_of_ec2_the_watch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: it gives up after three tries, and its thread ends."""
    monkeypatch.setattr(spot, "INTERVAL_S", 0.02)
    tries: list[threading.Thread] = []
    ask = spot.SpotWatch._ask

    def counted(watch: spot.SpotWatch) -> float | None:
        tries.append(threading.current_thread())
        return ask(watch)

    monkeypatch.setattr(spot.SpotWatch, "_ask", counted)
    told: list[float] = []
    spot.SpotWatch({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9"}, told.append)
    until(lambda: tries and not tries[0].is_alive())
    assert (len(tries), len(set(tries)), told) == (3, 1, [])


def test_a_notice_whose_time_cannot_be_read_is_of_two_minutes() -> None:
    """That is how long EC2 gives."""
    assert spot.goes_at(b'{"action": "terminate"}', 1000.0) == 1120.0
    assert spot.goes_at(b'{"action": "terminate", "time": "soon"}', 1000.0) == 1120.0
    assert spot.goes_at(b'["action"]', 1000.0) == 1120.0
