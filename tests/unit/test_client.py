"""A lattice from a file, with arguments as they were typed."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import covalent as ct
import pytest
import requests
from click.testing import CliRunner
from covalent._dispatcher_plugins.local import LocalDispatcher
from covalent._results_manager import results_manager

from covalent_cirro.cli import main
from covalent_cirro.cli import run as run_command
from covalent_cirro.covalent_server import client
from covalent_cirro.errors import HostError, SettingsError
from covalent_cirro.history import account, board, find

FILE = """
import covalent as ct
from beside import FACTOR

@ct.electron
def times(x):
    return x * FACTOR

@ct.lattice
def flow(x, repeat=1):
    return [times(x) for _ in range(repeat)]

if __name__ == "__main__":
    raise SystemExit("this is not for those who import it")
"""
SECOND = "\n@ct.lattice\ndef other():\n    return times(1)\n"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with one lattice, and a module beside it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    path = tmp_path / "workflow_of_mine.py"
    path.write_text(FILE)
    yield path
    for name in ("beside", path.stem):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["", ":flow"])
def test_a_lattice_is_found_in_its_file(file: Path, name: str) -> None:
    """By its name, or alone; modules beside the file are found as well."""
    assert client.load(f"{file}{name}").__name__ == "flow"


def test_a_lattice_that_is_not_there_is_answered_with_those_that_are(file: Path) -> None:
    """And so is a file with several, a file that is missing, and one without."""
    with pytest.raises(SettingsError, match=r"no lattice 'sweep': there is .*:flow"):
        client.load(f"{file}:sweep")
    file.write_text(FILE + SECOND)
    with pytest.raises(SettingsError, match=r"which lattice of .*:flow, .*:other"):
        client.load(str(file))
    with pytest.raises(SettingsError, match="there is no file"):
        client.load("nowhere.py:flow")
    file.write_text("x = 1")
    with pytest.raises(SettingsError, match="there is none"):
        client.load(f"{file}:flow")


def test_the_arguments_of_a_lattice_are_listed(file: Path) -> None:
    """With their defaults."""
    assert client.described(client.load(str(file))) == [("--x", "needed"), ("--repeat", "unset: 1")]


@pytest.mark.parametrize(
    ("typed", "asks"),
    [(["--help"], True), (["-h"], True), (["--x", "1", "--help"], True), (["--x", "-h"], False), ([], False)],
)
def test_help_is_no_argument(typed: list[str], asks: bool) -> None:
    """But a text that is a value is one."""
    assert client.asks_for_help(typed) == asks


def test_help_after_a_lattice_is_that_of_the_command_and_of_the_lattice(file: Path, tmp_path: Path) -> None:
    """Where the file cannot be loaded, it says why; nothing is dispatched."""
    shown = CliRunner().invoke(main, ["run", f"{file}:flow", "--help"])
    assert shown.exit_code == 0, shown.output
    assert "FILE:LATTICE [--ARG VALUE]..." in shown.stdout
    assert re.search(r"--repeat +unset: 1", shown.stdout)
    (tmp_path / "broken.py").write_text("import nothing_of_the_kind")
    for wrong in ("nowhere.py", str(tmp_path / "broken.py")):
        shown = CliRunner().invoke(main, ["run", wrong, "--help"])
        assert shown.exit_code == 0, shown.output
        assert "FILE:LATTICE [--ARG VALUE]..." in shown.stdout
        assert re.search("there is no file 'nowhere.py'|No module named 'nothing_of_the_kind'", shown.stdout)


def test_ctrl_c_cancels_as_soon_as_the_dispatch_is_under_way(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the account is opened; then the command waits for the end."""
    opened: list[str] = []
    cancelled: list[str] = []

    @contextlib.contextmanager
    def open_account(*_: object) -> Iterator[None]:
        opened.append("")
        if len(opened) == 1:
            raise KeyboardInterrupt
        yield

    monkeypatch.setattr(client, "register", lambda *_, **__: "d0")
    monkeypatch.setattr(client, "start", lambda *_: None)
    monkeypatch.setattr(client, "cancel", cancelled.append)
    monkeypatch.setattr(client, "status", lambda dispatch_id: "CANCELLED")
    monkeypatch.setattr(account, "open_account", open_account)
    monkeypatch.setattr(board, "Board", lambda *_, **__: SimpleNamespace(look=list))
    result = CliRunner().invoke(main, ["run", "--json", f"{file}:flow", "--x", "1"])
    assert result.exit_code == run_command.INTERRUPTED, result.output
    assert cancelled == ["d0"]
    assert json.loads(result.stdout)["status"] == "CANCELLED"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Covalent server that does what it is told; what it is told."""
    told: list[str] = []
    monkeypatch.setattr(client, "register", lambda *_, **__: told.append("register") or "d0")
    monkeypatch.setattr(client, "start", lambda _, dispatch_id: told.append(f"start {dispatch_id}"))
    monkeypatch.setattr(client, "cancel", lambda dispatch_id: told.append(f"cancel {dispatch_id}"))
    monkeypatch.setattr(client, "status", lambda dispatch_id: "CANCELLED")
    monkeypatch.setattr(account, "open_account", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(board, "Board", lambda *_, **__: SimpleNamespace(look=list))
    # As in a terminal: whoever runs the tests in the background has a shell that ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield told
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("options", [[], ["--detach"]])
def test_ctrl_c_while_the_server_starts_the_dispatch_cancels_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, server: list[str], options: list[str]
) -> None:
    """The request is not broken off: what the server may have begun would go on, and nobody would know its id."""

    def start(_: object, dispatch_id: str) -> None:
        signal.raise_signal(signal.SIGINT)
        server.append(f"start {dispatch_id}")

    monkeypatch.setattr(client, "start", start)
    result = CliRunner().invoke(main, ["run", *options, "--json", f"{file}:flow", "--x", "1"])
    assert result.exit_code == run_command.INTERRUPTED, result.output
    assert server == ["register", "start d0", "cancel d0"]
    assert json.loads(result.stdout)["status"] == "CANCELLED"


def test_ctrl_c_during_the_first_look_waits_for_its_end(
    file: Path, monkeypatch: pytest.MonkeyPatch, server: list[str]
) -> None:
    """It imports much; an import that is broken off can leave a module that fails when it is used next."""

    class Looking:
        problem, pause_s, hosts = "", 1.0, None

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def look(self) -> list[object]:
            server.append("looks")
            if server.count("looks") == 1:
                signal.raise_signal(signal.SIGINT)
            server.append("looked")
            return []

    monkeypatch.setattr(board, "Board", Looking)
    monkeypatch.setattr(run_command, "_cost", lambda *_: "")
    monkeypatch.setattr(client, "error", lambda _: "")
    result = CliRunner().invoke(main, ["run", f"{file}:flow", "--x", "1"])
    assert result.exit_code == run_command.INTERRUPTED, result.output
    assert server[:5] == ["register", "start d0", "looks", "looked", "cancel d0"]


def test_a_dispatch_without_a_job_has_no_cost(file: Path, monkeypatch: pytest.MonkeyPatch, server: list[str]) -> None:
    """AWS Batch does not know it, which is no error: all its results were there, or a map had no items."""
    monkeypatch.setattr(client, "status", lambda dispatch_id: "COMPLETED")
    monkeypatch.setattr(client, "result_text", lambda dispatch_id: "[]")
    looks = SimpleNamespace(look=list, problem="", pause_s=1.0, hosts=None)
    monkeypatch.setattr(board, "Board", lambda *_, **__: looks)
    result = CliRunner().invoke(main, ["run", f"{file}:flow", "--x", "1"])
    assert result.exit_code == 0, result.output
    assert server == ["register", "start d0"]
    assert re.search(r"^result +\[\]", result.output, re.MULTILINE)
    assert not re.search("^(cost|next)", result.output, re.MULTILINE)


def test_a_command_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    """As one that a script starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with run_command._ctrl_c_later():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_before_the_server_starts_anything_ends_the_command(
    file: Path, monkeypatch: pytest.MonkeyPatch, server: list[str]
) -> None:
    """There is nothing to cancel."""

    def register(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "register", register)
    result = CliRunner().invoke(main, ["run", f"{file}:flow", "--x", "1"])
    assert result.exit_code == run_command.INTERRUPTED
    assert "nothing was started" in result.stderr
    assert server == []


def test_a_second_ctrl_c_says_which_dispatch_may_go_on(
    file: Path, monkeypatch: pytest.MonkeyPatch, server: list[str]
) -> None:
    """And the commands that show and end its jobs."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "start", interrupted)
    monkeypatch.setattr(client, "cancel", interrupted)
    result = CliRunner().invoke(main, ["run", f"{file}:flow", "--x", "1"])
    assert result.exit_code == run_command.INTERRUPTED
    assert (
        "dispatch d0 may go on: `cirro jobs --dispatch d0` shows its jobs, `cirro stop d0` ends them" in result.stderr
    )


def test_a_dispatch_that_is_not_waited_for_says_where_its_reasons_are_shown(
    file: Path, monkeypatch: pytest.MonkeyPatch, server: list[str]
) -> None:
    """They are known only once the server has looked."""
    monkeypatch.setattr(find, "dispatch_named", lambda *_: "e1")
    result = CliRunner().invoke(main, ["run", "--reuse", "e1", "--detach", f"{file}:flow", "--x", "1"])
    assert (result.exit_code, result.stdout) == (0, "d0\n")
    assert "`cirro jobs --dispatch d0` shows what is reused from e1, and why the rest is not" in result.stderr
    assert server == ["register", "start d0"]


def test_a_dispatch_whose_start_was_not_answered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have started."""

    def broken(*_: object) -> None:
        raise requests.ConnectionError

    monkeypatch.setattr(LocalDispatcher, "start", broken)
    with pytest.raises(HostError, match=r"no Covalent server answers.*Dispatch d0 may have started.*`cirro stop d0`"):
        client.start(SimpleNamespace(metadata={}), "d0")


@pytest.mark.parametrize("content", [b"", b"no result", bytes(64), None])
def test_a_result_that_cannot_be_read_is_no_traceback(monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    """The dispatch has completed all the same; its id and what to do are said."""

    class Manager:
        def __init__(self, _: str, folder: str) -> None:
            self._path = Path(results_manager.get_result_asset_path(folder, "result"))

        def download_result_asset(self, _: str) -> None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                self._path.write_bytes(content)

    monkeypatch.setattr(results_manager, "get_result_manager", Manager)
    with pytest.raises(HostError, match=r"the result of dispatch d0.*cannot be read.*`cirro run --reuse d0`"):
        client.result_text("d0")
    assert run_command._result("d0").startswith("not shown: the result of dispatch d0")


PICKLES_AT_ONCE = """
import covalent as ct

def prepare(x):
    return x + 1

@ct.electron
def twice(x):
    return 2 * x

@ct.electron
@ct.lattice
def inner(x):
    return twice(x)

@ct.electron(call_before=[ct.DepsCall(prepare, args=[1])])
def main(x):
    return x

@ct.lattice
def flow(x):
    return main(inner(x))
"""


NAMES = ("flow.py", "my.sweep-2 v1.py", "2 é.py", "class.py", "random.py", "no_suffix")

BUILD = """
import os, random, sys
from covalent._dispatcher_plugins.local import LocalDispatcher
from covalent_cirro.cli import run as run_command
from covalent_cirro.covalent_server import client
before = random
for name in os.listdir("files"):
    flow = client.load("files/" + name)
    flow.build_graph(1)
    os.makedirs("staged/" + name)
    LocalDispatcher.prepare_manifest(flow, "staged/" + name)
import random
assert random is before
"""

READ = """
import glob, json
from covalent._workflow.transportable_object import TransportableObject
for path in glob.glob("staged/**/*.tobj", recursive=True):
    TransportableObject.deserialize(open(path, "rb").read()).get_deserialized()
for path in glob.glob("staged/**/hooks.json", recursive=True):
    for hook in json.load(open(path)).get("call_before", []):
        function = TransportableObject.from_dict(hook["attributes"]["apply_fn"])
        print(function.get_deserialized()(1))
"""


def test_what_a_file_pickles_while_it_is_run_can_be_read_where_the_file_is_not(tmp_path: Path) -> None:
    """A sublattice and ``ct.DepsCall`` of functions of the file, whatever its name; other modules keep theirs."""
    (tmp_path / "files").mkdir()
    for name in NAMES:
        (tmp_path / "files" / name).write_text(PICKLES_AT_ONCE)
    for code in (BUILD, READ):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "2\n" * len(NAMES)


def lattice() -> Any:
    """One argument that is needed, and two that are not."""
    return ct.lattice(lambda data, learning_rate=0.1, *, tags=(): None)


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        (["--data", "s3://bucket/key"], {"data": "s3://bucket/key"}),
        (["--data=1", "--learning-rate", "1e-3"], {"data": 1, "learning_rate": 0.001}),
        (["--data", "[1, 2]", "--tags=('a',)"], {"data": [1, 2], "tags": ("a",)}),
        (["--data", "'1'"], {"data": "1"}),
        (["--data", "-1"], {"data": -1}),
        (["--data", ""], {"data": ""}),
        (["--data="], {"data": ""}),
        (["--data={{}}"], {"data": "{{}}"}),
        (["--data", "{a: 1"], {"data": "{a: 1"}),
        (["--data", "[[1], {[]: 2}]"], {"data": "[[1], {[]: 2}]"}),
        (["--data", '{"a": true, "b": [null]}'], {"data": {"a": True, "b": [None]}}),
        (["--data", "true"], {"data": "true"}),
        (["--data", "(" * 5000], {"data": "(" * 5000}),
        (["--data", "~" * 5000 + "1"], {"data": "~" * 5000 + "1"}),
        (["--data", "\0"], {"data": "\0"}),
        (["--data", "9" * 5000], {"data": "9" * 5000}),
        (["--data", r"'\d'"], {"data": r"\d"}),
        (["--data=--learning-rate"], {"data": "--learning-rate"}),
    ],
)
def test_arguments_are_read_as_python_reads_them(typed: list[str], given: dict[str, Any]) -> None:
    """Or as JSON, and what is neither is the text itself; nothing that was typed is a traceback, or a warning."""
    assert client.arguments(lattice(), typed) == given


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([], r"needs --data\. It takes: --data, --learning_rate \(0\.1\), --tags \(\(\)\)"),
        (["--data", "1", "--rate", "2"], "has no argument rate"),
        (["1"], "'1' is not understood"),
        (["--data"], "--data has no value"),
        (
            ["--data", "--learning-rate", "1"],
            "--data has no value: --learning-rate after it .* write --data=--learning",
        ),
        (["--learning-rate", "1", "--data", "--"], "--data has no value"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(typed: list[str], words: str) -> None:
    """Before anything is dispatched, with those that there are."""
    with pytest.raises(SettingsError, match=words):
        client.arguments(lattice(), typed)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that takes connections only, as one whose process hangs."""
    monkeypatch.setattr(client, "STATUS_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(client, "_server", lambda: f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield


@pytest.mark.usefixtures("silent")
def test_a_server_that_does_not_answer_is_an_error_after_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Covalent's own client would wait for ever."""
    with pytest.raises(HostError, match=r"takes connections, but does not answer at .*`cirro local up --server`"):
        client.status("d0")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("silent")
def test_covalents_own_calls_have_an_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling is one."""
    port = client._server().rpartition(":")[2]
    monkeypatch.setattr(client, "ANSWER_S", 0.1)
    monkeypatch.setattr(
        "covalent._results_manager.results_manager.format_server_url", lambda: f"http://127.0.0.1:{port}"
    )
    with pytest.raises(HostError, match="does not answer"):
        client.cancel("d0")


@pytest.mark.usefixtures("silent")
def test_who_follows_a_dispatch_says_once_that_the_server_is_silent_and_waits_for_an_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last status is shown meanwhile."""
    asked = run_command._Status("d0")
    assert asked.now() == "status unknown"
    assert asked.problem == "the Covalent server does not answer"
    asked.now()
    assert capsys.readouterr().err.count("the jobs go on") == 1
    monkeypatch.setattr(run_command, "SILENT_SERVER_S", 0.0)
    with pytest.raises(HostError, match="`cirro jobs --dispatch d0` shows them"):
        asked.now()
