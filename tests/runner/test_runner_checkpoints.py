"""Checkpoints, by the real runner against S3: what is stored when, what the next attempt finds, and what is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import STOP_GRACE_S, ExitCode

cloudpickle.register_pickle_by_value(sys.modules[__name__])

INDEX = "checkpoint/0/index.json"
FAST = {"CIRRO_RUNNER_SECONDS": "checkpoint_interval=0.2"}


def base(runs: Any) -> str:
    """Where the call lies, without the test's prefix."""
    return str(runs.location.base[len(runs.prefix) :])


def stored(runs: Any) -> list[str]:
    """What lies in S3 of the checkpoint of node 0."""
    return [key[len(base(runs)) :] for key in runs.stored() if "/checkpoint/" in key]


def index(runs: Any) -> Any:
    """The index, or `None`."""
    return json.loads(runs.get(runs.location.base + INDEX)) if INDEX in stored(runs) else None


def files(runs: Any) -> dict[str, bytes]:
    """The files of the checkpoint in S3, by path."""
    found = (index(runs) or {"files": {}})["files"]
    return {
        path: runs.get(f"{runs.location.base}checkpoint/0/files/{entry[0]}") if entry[0] else b""
        for path, entry in found.items()
    }


def kill(process: subprocess.Popen[bytes]) -> None:
    """As a host that is lost: the runner and its electron, at once."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait(90)


def touch_and_wait(path: Path) -> Any:
    """For an electron: says that it has come so far, and goes no further."""
    import time

    path.touch()
    while True:
        time.sleep(0.05)


# --- from one attempt to the next -----------------------------------------------------------------------------------


def test_the_next_attempt_finds_what_was_saved(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """Bytes, folders, links, modes and times; and its own number. Once the call has succeeded, nothing is left."""
    there = tmp_path / "there"

    def electron() -> Any:
        import os

        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        if checkpoint.attempt() == 2:
            found = {str(path.relative_to(here)): path.read_bytes() for path in here.rglob("*") if path.is_file()}
            link, mode = os.readlink(here / "last"), (here / "deep/er/tool").stat().st_mode & 0o777
            return found, link, mode, int((here / "weights").stat().st_mtime), (here / "nothing-in-it").is_dir()
        (here / "weights").write_bytes(b"w" * 100_000)
        os.utime(here / "weights", (1_600_000_000, 1_600_000_000))
        (here / "deep" / "er").mkdir(parents=True)
        (here / "deep" / "er" / "tool").write_bytes(b"#!")
        (here / "deep" / "er" / "tool").chmod(0o750)
        (here / "empty").touch()
        (here / "nothing-in-it").mkdir()
        (here / "last").symlink_to("weights")
        checkpoint.save()
        (here / "weights").write_bytes(b"not saved")
        touch_and_wait(there)

    runs.make_call(runs.task(electron))
    first = runs.start()
    eventually(there.exists)
    kill(first)

    second = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))

    found, link, mode, changed, folder = runs.value(second)
    assert found == {
        "weights": b"w" * 100_000,
        "deep/er/tool": b"#!",
        "empty": b"",
        "last": b"w" * 100_000,
    }
    assert (link, mode, changed, folder) == ("weights", 0o750, 1_600_000_000, True)
    assert "fetched the checkpoint of attempt 1: 3 files, 0.1 MiB" in second.stderr
    assert stored(runs) == []


def test_the_runner_takes_the_folder_by_itself(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """Without a call of save: what has been quiet for a while is stored, and what is written later too."""
    go = tmp_path / "go"

    def electron() -> None:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        (here / "one").write_text("1")
        while not go.exists():
            time.sleep(0.02)
        (here / "two").write_text("2")
        touch_and_wait(tmp_path / "there")

    runs.make_call(runs.task(electron))
    process = runs.start(FAST)
    eventually(lambda: files(runs) == {"one": b"1"})
    go.touch()
    eventually(lambda: files(runs) == {"one": b"1", "two": b"2"})
    kill(process)


def test_a_file_that_is_being_written_is_not_taken(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """However long the writer pauses: as long as the file is open, the last whole checkpoint stands."""
    half, go = tmp_path / "half", tmp_path / "go"

    def electron() -> None:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        (here / "model").write_text("old")
        while not go.exists():
            time.sleep(0.02)
        with open(here / "model", "w") as file:
            file.write("ne")
            file.flush()
            touch_and_wait(half)

    runs.make_call(runs.task(electron))
    process = runs.start(FAST)
    eventually(lambda: files(runs) == {"model": b"old"})
    go.touch()
    eventually(half.exists)
    time.sleep(1.5)
    assert files(runs) == {"model": b"old"}
    kill(process)


def test_after_the_first_save_nothing_is_stored_but_by_save(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """The electron says when its files belong together."""
    there = tmp_path / "there"

    def electron() -> None:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        (here / "model").write_text("1")
        checkpoint.save()
        (here / "model").write_text("2")
        touch_and_wait(there)

    runs.make_call(runs.task(electron))
    process = runs.start(FAST)
    eventually(there.exists)
    time.sleep(1.2)
    assert files(runs) == {"model": b"1"}
    kill(process)


def test_only_what_changed_is_sent_and_what_it_replaces_is_deleted(runs: Any) -> None:
    """A file that is the same, or was renamed, or has the bytes of another, is not sent again."""

    def electron() -> None:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        (here / "large").write_bytes(b"l" * 1000)
        (here / "model").write_bytes(b"1")
        checkpoint.save()
        print("saved", flush=True)
        (here / "model").write_bytes(b"2")
        (here / "large").rename(here / "renamed")
        (here / "twin").write_bytes(b"l" * 1000)
        checkpoint.save()
        checkpoint.save()
        raise ValueError("so that it stays")

    runs.make_call(runs.task(electron))
    ran = runs.finish(runs.start())

    assert ran.failure.kind == Kind.RAISED
    sent = [path for path in runs.proxy.of("PUT") if "/checkpoint/0/files/" in path]
    written = [path for path in runs.proxy.of("PUT") if path.endswith(INDEX)]
    deleted = runs.proxy.of("DELETE")
    assert (len(sent), len(written), len(deleted)) == (3, 2, 1)
    assert files(runs) == {"renamed": b"l" * 1000, "model": b"2", "twin": b"l" * 1000}
    assert len(stored(runs)) == 3


def test_a_large_file_goes_in_parts(runs: Any) -> None:
    """And comes back whole."""

    def electron() -> Any:
        import hashlib

        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        if checkpoint.attempt() == 1:
            (here / "large").write_bytes(bytes(range(256)) * 80_000)
            checkpoint.save()
            os.kill(os.getppid(), 9)
        return hashlib.sha256((here / "large").read_bytes()).hexdigest()

    runs.make_call(runs.task(electron))
    runs.start().wait(120)
    assert any("uploads" in path for path in runs.proxy.of("POST"))
    import hashlib

    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    assert runs.value(ran) == hashlib.sha256(bytes(range(256)) * 80_000).hexdigest()


def test_a_kill_in_the_middle_leaves_the_last_whole_one(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """New files are there already, the index is not: the next attempt finds the old state, and only that."""
    second = tmp_path / "second"

    def electron() -> Any:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        if checkpoint.attempt() == 2:
            return sorted((path.name, path.read_text()) for path in here.iterdir())
        (here / "a").write_text("a1")
        (here / "b").write_text("b1")
        checkpoint.save()
        (here / "a").write_text("a2")
        (here / "b").write_text("b2")
        (here / "c").write_text("c2")
        second.touch()
        checkpoint.save()

    runs.make_call(runs.task(electron))
    sent: list[str] = []

    def hold_the_index(request: Any) -> Any:
        if second.exists() and request.method == "PUT" and request.path.endswith(INDEX):
            sent.append(request.path)
            time.sleep(30)
        return None

    runs.proxy.intercept = hold_the_index
    process = runs.start()
    eventually(lambda: sent)
    kill(process)
    runs.proxy.intercept = lambda _: None

    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    assert runs.value(ran) == [("a", "a1"), ("b", "b1")]


# --- being told -----------------------------------------------------------------------------------------------------


def test_sigterm_raises_the_flag_and_leaves_time_to_save(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """The signal reaches the electron only when its grace is over, and all has ended long before SIGKILL."""
    there = tmp_path / "there"

    def electron() -> None:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        there.touch()
        while not checkpoint.host_is_going():
            time.sleep(0.02)
        time.sleep(0.3)
        (here / "model").write_text("in time")
        checkpoint.save()
        print("saved", flush=True)
        touch_and_wait(there)

    runs.make_call(runs.task(electron))
    process = runs.start({"CIRRO_RUNNER_SECONDS": "grace=5 stop=8"})
    eventually(there.exists)
    began = time.monotonic()
    process.terminate()
    ran = runs.finish(process)

    assert 5 <= time.monotonic() - began < STOP_GRACE_S
    assert (ran.code, ran.failure.kind) == (ExitCode.TERMINATED, Kind.TERMINATED)
    assert ran.result.stdout.tail == "saved\n"
    assert files(runs) == {"model": b"in time"}


def test_sigterm_stores_what_is_whole_without_save(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """An electron that ends when it is told to: its folder is stored once more, however lately it was written."""
    there = tmp_path / "there"

    def electron() -> None:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        there.touch()
        while not checkpoint.host_is_going():
            time.sleep(0.02)
        (here / "model").write_text("last")
        sys.exit("the host is going")

    runs.make_call(runs.task(electron))
    process = runs.start()
    eventually(there.exists)
    process.terminate()
    ran = runs.finish(process)

    assert (ran.code, ran.failure.kind) == (ExitCode.TERMINATED, Kind.TERMINATED)
    assert files(runs) == {"model": b"last"}


def test_a_sync_that_takes_too_long_does_not_cost_the_outcome(
    runs: Any, eventually: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 hangs while the job is being stopped: the checkpoint is given up, the outcome is written before SIGKILL."""
    there, grace_s = tmp_path / "there", 14
    with (runs.tmp_path / "site" / "sitecustomize.py").open("a") as file:
        file.write(
            f"import covalent_cirro.contract.protocol\ncovalent_cirro.contract.protocol.STOP_GRACE_S = {grace_s}\n"
        )

    def electron() -> None:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        (here / "model").write_text("late")
        there.touch()
        checkpoint.save()

    runs.make_call(runs.task(electron))
    runs.proxy.intercept = lambda request: time.sleep(60) if "/checkpoint/0/files/" in request.path else None
    process = runs.start({"CIRRO_RUNNER_SECONDS": "grace=1 stop=2"})
    eventually(there.exists)
    began = time.monotonic()
    process.terminate()
    ran = runs.finish(process)

    assert time.monotonic() - began < grace_s
    assert ran.failure.kind == Kind.TERMINATED
    assert files(runs) == {}


# --- bad days -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_was_changed_is_refused(runs: Any) -> None:
    """By its digest, in words; the electron does not start over in silence, and another attempt may."""

    def electron() -> Any:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        (here / "model").write_text("1234")
        checkpoint.save()
        raise ValueError("first")

    runs.make_call(runs.task(electron))
    runs.finish(runs.start())
    (entry,) = index(runs)["files"].values()
    runs.put(f"{runs.location.base}checkpoint/0/files/{entry[0]}", b"1235")
    runs.s3.delete_object(Bucket="runner-tests", Key=runs.location.outcome_key)
    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))

    assert ran.failure.kind == Kind.FETCH
    assert ran.code == ExitCode.FETCH
    assert "the file 'model' of the checkpoint, was changed or cut short" in ran.failure.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body | {"format": 99}, "has format 99, this runner understands 1"),
        (lambda body: body | {"files": {"../out": next(iter(body["files"].values()))}}, "'../out' is not a path"),
        (lambda body: body | {"links": {"l": "/etc"}, "folders": ["l/x"]}, "has files below the link 'l'"),
        (lambda body: {}, "cannot be read"),
    ],
)
def test_an_index_that_is_none_is_refused(runs: Any, change: Any, words: str) -> None:
    """Nothing is written outside of the folder."""

    def electron() -> Any:
        from covalent_cirro import checkpoint

        (checkpoint.folder() / "model").write_text("1234")
        checkpoint.save()
        raise ValueError("first")

    runs.make_call(runs.task(electron))
    runs.finish(runs.start())
    runs.put(runs.location.base + INDEX, json.dumps(change(index(runs))).encode())
    runs.s3.delete_object(Bucket="runner-tests", Key=runs.location.outcome_key)
    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    assert ran.failure.kind == Kind.FETCH
    assert words in ran.failure.message


def test_a_save_that_is_refused_raises_with_awss_words(runs: Any) -> None:
    """The role of a deployment that was made before there were checkpoints: which action, on what."""
    denied = b"<Error><Code>AccessDenied</Code><Message>not authorized to perform: s3:PutObject</Message></Error>"
    runs.proxy.intercept = lambda request: (
        (403, {}, denied) if request.method == "PUT" and "/checkpoint/" in request.path else None
    )

    def electron() -> None:
        from covalent_cirro import checkpoint

        (checkpoint.folder() / "model").write_text("1")
        checkpoint.save()

    ran = runs(runs.task(electron))
    assert ran.failure.kind == Kind.RAISED
    assert "CheckpointError: the checkpoint could not be stored: S3 PutObject" in ran.failure.traceback
    assert "not authorized to perform: s3:PutObject" in ran.failure.traceback


def test_of_two_attempts_at_once_the_later_one_wins(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """A host that AWS took for dead comes back: it stores nothing over what its successor has stored."""
    go, told, saved = tmp_path / "go", tmp_path / "told", tmp_path / "saved"

    def electron() -> Any:
        from covalent_cirro import checkpoint
        from covalent_cirro.errors import CheckpointError

        here = checkpoint.folder()
        number = checkpoint.attempt()
        if number == 1:
            (here / "model").write_text("1")
            checkpoint.save()
            saved.touch()
            while not go.exists():
                time.sleep(0.02)
            (here / "model").write_text("1 again")
            try:
                checkpoint.save()
            except CheckpointError as error:
                told.write_text(str(error))
            touch_and_wait(told)
        (here / "model").write_text("2")
        checkpoint.save()
        go.touch()
        while not told.exists():
            time.sleep(0.02)
        (here / "model").write_text("2 again")
        checkpoint.save()
        raise ValueError("so that it stays")

    runs.make_call(runs.task(electron))
    zombie = runs.start()
    eventually(saved.exists)
    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    kill(zombie)

    assert ran.failure.kind == Kind.RAISED, ran.failure.traceback
    assert "is no longer this attempt's to write: attempt 2 of job job-1 has begun" in told.read_text()
    assert files(runs) == {"model": b"2 again"}
    assert len(stored(runs)) == 2


def test_an_earlier_attempt_that_still_writes_is_overtaken(runs: Any, eventually: Any, tmp_path: Path) -> None:
    """What it stored and deleted meanwhile is noticed: everything that the new checkpoint needs is sent again."""
    go, written = tmp_path / "go", tmp_path / "written"

    def electron() -> Any:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        if checkpoint.attempt() == 1:
            (here / "kept").write_text("kept")
            (here / "model").write_text("1")
            checkpoint.save()
            written.touch()
            while not go.exists():
                time.sleep(0.02)
            (here / "kept").unlink()
            checkpoint.save()
            (here / "model").write_text("not 2")
            checkpoint.save()
            go.unlink()
            touch_and_wait(written)
        go.touch()
        while go.exists():
            time.sleep(0.02)
        checkpoint.save()
        (here / "model").write_text("2")
        checkpoint.save()
        raise ValueError("so that it stays")

    runs.make_call(runs.task(electron))
    zombie = runs.start()
    eventually(written.exists)
    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    kill(zombie)

    assert ran.failure.kind == Kind.RAISED
    assert "so that it stays" in ran.failure.message, ran.failure.traceback
    assert files(runs) == {"kept": b"kept", "model": b"2"}


# --- who asks, and who does not -------------------------------------------------------------------------------------


def test_an_electron_that_does_not_ask_costs_nothing(runs: Any) -> None:
    """Not a request more, in a later attempt neither, and no code of checkpoints is loaded in its process."""

    def electron() -> Any:
        return [name for name in sys.modules if "checkpoint" in name]

    runs.make_call(runs.task(electron))
    ran = runs.finish(runs.start({"AWS_BATCH_JOB_ATTEMPT": "2"}))
    assert runs.value(ran) == []
    assert not [request.path for request in runs.proxy.requests if "checkpoint" in request.path]


def test_subprocesses_of_the_electron_have_the_same_folder(runs: Any) -> None:
    """As ranks of a training, which are started by its launcher."""

    def electron() -> Any:
        from covalent_cirro import checkpoint

        (checkpoint.folder() / "shared").write_text("by the electron")
        code = "from covalent_cirro import checkpoint as c; print((c.folder() / 'shared').read_text(), c.attempt())"
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert runs.value(runs(runs.task(electron))) == "by the electron 1\n"


def test_electrons_of_one_call_have_folders_of_their_own(runs: Any) -> None:
    """And each its own checkpoint in S3."""

    def electron(text: str) -> Any:
        from covalent_cirro import checkpoint

        here = checkpoint.folder()
        before = sorted(path.name for path in here.iterdir())
        (here / text).write_text(text)
        checkpoint.save()
        if text == "two":
            raise ValueError("so that it stays")
        return before

    ran = runs(runs.task(electron, "one", node_id=0), runs.task(electron, "two", node_id=1))
    assert runs.value(ran, 0) == []
    assert sorted(re.sub("files/.*", "files/", key) for key in stored(runs)) == [
        "checkpoint/0/files/",
        "checkpoint/0/index.json",
        "checkpoint/1/files/",
        "checkpoint/1/index.json",
    ]
