"""Names, logs and errors in any script, on terminals and pipes of any encoding."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import cloudpickle
from click.testing import CliRunner

from covalent_cirro.aws.sessions import Access
from covalent_cirro.cli import main
from covalent_cirro.history.account import open_account
from covalent_cirro.history.batch_jobs import describe
from tests.cli.history.conftest import Lab

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Document = Callable[..., Any]

NAMES = ["größe", "训练", "обучение", "<lambda>", "prévision 🌲 [red]x[0:100:2]"]


def speak() -> None:
    """Prints and raises what ASCII has not."""
    print("größer ≈ 训练 🌲")
    raise ValueError("größer als 训练 🌲")


def named(name: str) -> Callable[[], None]:
    """An electron of another name."""
    speak_out = cloudpickle.loads(cloudpickle.dumps(speak))
    speak_out.__name__ = name
    return speak_out  # type: ignore[no-any-return]


def test_an_electron_is_called_by_its_own_name_everywhere(lab: Lab, document: Document) -> None:
    """Also where AWS does not take it for a tag: the call has it, and is read once for it."""
    dispatch_id = str(uuid.uuid4())
    sent = [lab.send(named(name), node_id=node_id, dispatch_id=dispatch_id) for node_id, name in enumerate(NAMES)]
    for each in sent:
        lab.done(each)
    rows = {row["node_id"]: row["electron"] for row in document("jobs", "--dispatch", dispatch_id)["jobs"]}
    assert rows == dict(enumerate(NAMES))
    reported = {each["node_id"]: each["name"] for each in document("report", dispatch_id)["electrons"]}
    assert reported == rows
    assert [document("show", each.name)["electron"] for each in sent] == NAMES
    shown = CliRunner().invoke(main, ["jobs", "--dispatch", dispatch_id]).stdout
    assert all(name in shown for name in NAMES)
    with open_account(Access(None, None, None, None), "cirro") as account:
        ids = [each.job_id for each in sent]
        assert {record.electron for record in describe(account, ids)} == set(NAMES)
        calls = account.clients.calls
        assert {record.electron for record in describe(account, ids)} == set(NAMES)
        assert account.clients.calls == calls + 1


def test_no_encoding_ends_a_command(lab: Lab) -> None:
    """What it lacks is replaced, in every command that shows what somebody else wrote."""
    ended = lab.send(named("größe 🌲"), node_id=1)
    lab.done(ended)
    logs = {}
    for charset in ("ascii", "latin-1", "utf-8"):
        runner = CliRunner(charset=charset)
        for words in (
            ("jobs",),
            ("jobs", "--dispatch", ended.dispatch_id),
            ("show", ended.name),
            ("logs", ended.name),
            ("logs", ended.name, "--json"),
            ("report", ended.dispatch_id, "--output", os.devnull),
            ("stop", ended.name),
            ("status",),
            ("estimate", "--minutes", "1"),
            ("--help",),
        ):
            result = runner.invoke(main, words)
            assert not isinstance(result.exception, Exception), (charset, words, result.exception)
            assert result.exit_code == 0 or words == ("status",), result.output  # which has no credentials here
        logs[charset] = runner.invoke(main, ("logs", ended.name)).stdout
    assert logs == {"ascii": "gr??er ~ ?? ?\n", "latin-1": "größer ~ ?? ?\n", "utf-8": "größer ≈ 训练 🌲\n"}
    command = [sys.executable, "-c", "from covalent_cirro.cli import main; main()", "show", ended.name]
    for setting in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        ran = subprocess.run(command, env={**os.environ, **setting}, capture_output=True, timeout=120, check=False)
        assert ran.returncode == 0, ran.stderr
        assert b"gr??e ?" in ran.stdout
        assert ran.stderr == b""


def clip() -> None:
    """Prints what would write to the clipboard of whoever reads it on a terminal."""
    print("\x1b]52;c;ZXZpbA==\x07\x1b[31mred\x1b[0m")
    raise ValueError("\x1b]0;title\x07\x1b[2Jtoo bad")


def test_a_terminal_gets_no_command_and_a_pipe_gets_all(lab: Lab) -> None:
    """Of a log: on a terminal text and colours, in a pipe every byte."""
    sent = lab.send(clip)
    lab.done(sent)
    command = [sys.executable, "-c", "from covalent_cirro.cli import main; main()", "logs", sent.name]
    piped = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert piped.stdout == b"\x1b]52;c;ZXZpbA==\x07\x1b[31mred\x1b[0m\n"
    seen = on_a_terminal(command)
    assert b"\x1b[31mred\x1b[0m" in seen
    assert b"too bad" in seen
    assert b"52;c" not in seen
    assert b"\x1b]" not in seen
    assert b"\x1b[2J" not in seen


def on_a_terminal(command: list[str]) -> bytes:
    """What a program writes to a terminal that is its stdout and stderr; it must end well."""
    primary, secondary = os.openpty()
    with subprocess.Popen(command, stdout=secondary, stderr=secondary, env={**os.environ, "TERM": "xterm"}) as shown:
        os.close(secondary)
        seen = b""
        with contextlib.suppress(OSError), os.fdopen(primary, "rb", buffering=0) as terminal:  # EIO is its end
            while data := terminal.read(65_536):
                seen += data
    assert shown.returncode == 0, seen
    return seen
