"""Variables and secrets in a job: which process sees what, and which stored texts do not have a secret's value."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import cloudpickle

from covalent_cirro.contract import documents
from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.packed_variables import ENVIRONMENT_VARIABLE, SECRET_PREFIX, dump_environment
from covalent_cirro.contract.protocol import ExitCode
from tests.runner.conftest import Runs
from tests.runner.mapped_calls import make_task, values_of

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SECRET = "hunter2-correct-horse"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----"


def container(environment: dict[str, str], **secrets: str) -> dict[str, str]:
    """Variables of the container for an electron's variables and secrets."""
    packed = {f"{SECRET_PREFIX}{name}": value for name, value in secrets.items()}
    return {ENVIRONMENT_VARIABLE: dump_environment(environment), **packed}


def nowhere(runs: Runs, ran: Any, *values: str) -> None:
    """No value is in what the container printed, nor in any object that the job stored (its pickles aside)."""
    stored = b"".join(runs.get(runs.prefix + key) for key in runs.stored() if "/blobs/" not in key)
    for text in (ran.stdout, ran.stderr, stored.decode("utf-8", "replace")):
        for value in values:
            assert value not in text


def test_the_electron_has_its_variables_and_the_runner_does_not(runs: Runs) -> None:
    """Variables that would break the runner reach the electron, its subprocesses, and its imports."""

    def electron() -> Any:
        import os
        import subprocess
        import time

        with open(f"/proc/{os.getppid()}/environ", "rb") as file:
            runner = [each.split(b"=")[0].decode() for each in file.read().split(b"\0")]
        names = ["OMP_NUM_THREADS", "HTTPS_PROXY", "KEY", "EMPTY"]
        child = subprocess.run("echo $OMP_NUM_THREADS/$KEY", shell=True, capture_output=True, text=True).stdout
        packed = [name for name in os.environ if name in ("CIRRO_ENVIRONMENT", "CIRRO_SECRET_KEY")]
        here = [os.environ.get(name) for name in names]
        return here, [name for name in names if name in runner], packed, len(child), time.localtime(0).tm_hour

    broken = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1", "TMPDIR": "/nowhere"}
    variables = {"OMP_NUM_THREADS": "3", "EMPTY": "", "TZ": "Asia/Tokyo", **broken}
    ran = runs(runs.task(electron), env=container(variables, KEY=SECRET))
    here, in_runner, packed, length, hour = runs.value(ran)
    assert here == ["3", "http://127.0.0.1:1", SECRET, ""]
    assert in_runner == []
    assert packed == []
    assert length == len(f"3/{SECRET}\n")
    assert hour == 9


def test_a_variable_is_there_before_anything_is_imported(runs: Runs) -> None:
    """Libraries such as NumPy read theirs when they are imported: no module of the electron is, until they are set."""

    def electron() -> Any:
        import sys

        return [name for name in ("numpy", "covalent", "torch") if name in sys.modules]

    task = runs.task(electron)
    ran = runs(task, env=container({"PYTHONWARNINGS": "error"}))
    assert runs.value(ran) == []


def test_printed_secrets_are_masked_in_what_is_stored_and_forwarded(runs: Runs) -> None:
    """Both streams, a value in two writes, a value of several lines, Base64, and what a subprocess prints."""

    def electron() -> str:
        import base64
        import os
        import subprocess
        import sys

        value, key = os.environ["KEY"], os.environ["PEM"]
        print("token", value, "of", {"key": key})
        print(key)
        print("warned", value, file=sys.stderr)
        sys.stdout.write("in two " + value[:9])
        sys.stdout.flush()
        os.stat(".")
        sys.stdout.write(value[9:] + " writes\n")
        subprocess.run("echo from a subprocess $KEY", shell=True)
        print(base64.b64encode(f"ada:{value}".encode()).decode())
        return value

    ran = runs(runs.task(electron), env=container({}, KEY=SECRET, PEM=KEY))
    assert ran.code == ExitCode.OK
    assert runs.value(ran) == SECRET  # what it returns is its own affair
    assert "in two *** writes\n" in ran.stdout
    assert "from a subprocess ***\n" in ran.stdout
    assert ran.result.stdout.tail == ran.stdout
    assert ran.result.stderr.tail == "warned ***\n"
    assert ran.result.output is not None
    assert runs.bytes_of(ran.result.output.string) == b"***"
    outcome = documents.dump_outcome(ran.outcome._replace(results=(ran.result._replace(output=None),)), "0" * 32)  # type: ignore[union-attr]
    for value in (SECRET, "BADANBgkq", base64.b64encode(f"ada:{SECRET}".encode()).decode()[5:-4]):
        assert value not in ran.stdout + ran.stderr + outcome.decode()


def test_the_parts_of_a_long_log_are_masked(runs: Runs) -> None:
    """A value at each place of a log of megabytes, cut by pipes, reads and parts as it happens."""

    def electron() -> None:
        import os

        for i in range(60_000):
            print("x" * (i % 97), os.environ["KEY"])

    ran = runs(runs.task(electron), env=container({}, KEY=SECRET))
    text = runs.text(ran.result.stdout).decode()
    assert ran.result.stdout.parts
    assert text == "".join(f"{'x' * (i % 97)} ***\n" for i in range(60_000))
    nowhere(runs, ran, SECRET)


def test_the_text_after_a_value_is_not_lost(runs: Runs) -> None:
    """An end that begins like a value is stored once the electron has ended."""

    def electron() -> None:
        print("it ends with hunter2-corr", end="")

    ran = runs(runs.task(electron), env=container({}, KEY=SECRET))
    assert ran.result.stdout.tail == ran.stdout == "it ends with hunter2-corr"


def test_errors_are_masked(runs: Runs) -> None:
    """Message and traceback, with the values of its causes, also of a value that the message is cut in."""

    def electron() -> None:
        import os

        try:
            raise KeyError(os.environ["PEM"])
        except KeyError as error:
            raise ValueError("x" * 1990 + os.environ["KEY"]) from error

    ran = runs(runs.task(electron), env=container({}, KEY=SECRET, PEM=KEY))
    failure = ran.result.failure
    assert failure is not None
    assert failure.kind == Kind.RAISED
    assert "***" in failure.traceback
    assert "hunter2" not in failure.message + failure.traceback
    nowhere(runs, ran, SECRET, "hunter2", "BADANBgkq")


def test_names_in_errors_are_masked(runs: Runs) -> None:
    """Those of classes and of modules, which an electron may make of anything."""

    def names_a_class() -> None:
        import os

        raise type(f"E_{os.environ['KEY']}", (Exception,), {})("failed")

    def imports() -> None:
        import importlib
        import os

        importlib.import_module(os.environ["KEY"])

    def returns() -> object:
        import os
        import threading

        return {os.environ["KEY"]: threading.Lock()}

    for electron in (names_a_class, imports, returns):
        ran = runs(runs.task(electron), env=container({}, KEY=SECRET))
        assert ran.result.failure is not None
        assert "***" in ran.result.failure.message
        nowhere(runs, ran, SECRET, "hunter2")
        runs.s3.delete_object(Bucket="runner-tests", Key=runs.location.outcome_key)


def test_the_shown_text_of_a_large_result_is_masked_before_it_is_cut(runs: Runs) -> None:
    """No half of a value at the end of what is shown of a long text."""

    def electron() -> list[object]:
        import os

        text = "x" * 990 + os.environ["KEY"] + "y" * 6_000_000
        return [text, text.encode()]

    ran = runs(runs.task(electron), env=container({}, KEY=SECRET))
    assert ran.result.output is not None
    shown = runs.bytes_of(ran.result.output.string)
    assert shown.count(b"***") == 2
    assert b"hunter2" not in shown


def test_hooks_have_them_and_their_errors_are_masked(runs: Runs) -> None:
    """pip and shell commands read variables such as PIP_INDEX_URL."""
    commands = ["echo $A $KEY", f"exit 3 # {SECRET}"]
    hooks = {"deps": {"bash": {"attributes": {"commands": commands}}}}
    ran = runs(runs.task(lambda: None, hooks=hooks), env=container({"A": "first"}, KEY=SECRET))
    assert ran.stdout.startswith("first ***\n")
    assert ran.result.failure is not None
    assert ran.result.failure.kind == Kind.HOOK
    assert "***" in ran.result.failure.message
    nowhere(runs, ran, SECRET)


def test_items_have_them_and_their_errors_are_masked(runs: Runs) -> None:
    """In processes of their own, too; an error that is a result has no value either."""

    def of_item(x: int) -> str:
        import os

        print("item", os.environ["KEY"])
        if x == 1:
            raise ValueError(os.environ["KEY"])
        return os.environ["A"]

    for parallel in (1, 2):
        task = make_task(runs, of_item, {"x": range(3)}, on_error="return", parallel=parallel)
        runs.make_call(task)
        ran = runs.finish(runs.start(container({"A": "seen"}, KEY=SECRET)))
        values = values_of(runs, ran.result.items)
        assert [values[0], values[2]] == ["seen", "seen"]
        assert "***" in str(values[1])
        assert SECRET not in str(values[1])
        assert ran.stdout == "item ***\n" * 3
        assert ran.result.items is not None
        assert SECRET not in json.dumps([each.failure._asdict() for each in ran.result.items.failures])
        runs.s3.delete_object(Bucket="runner-tests", Key=runs.location.outcome_key)
