"""Hooks: Covalent's own ``hooks.json``, carried out in Covalent's order without Covalent."""

from __future__ import annotations

import base64
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
import covalent as ct
import pytest
from covalent._workflow.transportable_object import TransportableObject
from covalent.executor.utils.wrappers import wrapper_fn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import ExitCode, Package
from covalent_cirro.contract.references import Inline
from covalent_cirro.runner import hooks
from tests.tiny_wheel import wheel

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def note(path: str, text: str) -> str:
    """Write a line to a file, to see the order of things."""
    with open(path, "a") as file:
        file.write(text + "\n")
    return text


class NotesUnpickling:
    """Writes a line when it is unpickled."""

    def __init__(self, path: str, text: str) -> None:
        self._what = (path, text)

    def __reduce__(self) -> Any:
        return note, self._what


def test_order_is_bash_pip_calls_function_arguments_run_calls(runs: Any, tmp_path: Path) -> None:
    """What deps_pip brings is there when call_before, the function and the arguments are unpickled."""
    log, target = tmp_path / "order.txt", tmp_path / "installed"
    target.mkdir()
    built = wheel(tmp_path, "tinydep")

    def electron(argument: str, found: int = 0) -> int:
        import tinydep  # type: ignore[import-not-found]

        note(str(log), "run")
        return int(tinydep.VALUE + found)

    def probe() -> int:
        import tinydep

        note(str(log), "call_before")
        return int(tinydep.VALUE)

    entries = {
        "deps": {
            "pip": ct.DepsPip(packages=[f"--no-index --target {target}", str(built)]).to_dict(),
            "bash": ct.DepsBash([f"echo bash >> {log}", f"test ! -e {target}/tinydep.py"]).to_dict(),
        },
        "call_before": [ct.DepsCall(probe, retval_keyword="found").to_dict()],
        "call_after": [ct.DepsCall(note, [str(log), "call_after"]).to_dict()],
    }
    task = runs.task(electron, NotesUnpickling(str(log), "argument"), hooks=entries)
    # The function needs the new module already to be unpickled.
    needs = Inline(b"ctinydep\nVALUE\n0" + task.function.data[2:])

    ran = runs(task._replace(function=needs), env={"PYTHONPATH": f"{runs.env['PYTHONPATH']}:{target}"})

    assert ran.code == ExitCode.OK, ran.outcome
    assert runs.value(ran) == 10
    assert log.read_text().split() == ["bash", "call_before", "argument", "run", "call_after"]
    assert "Successfully installed tinydep" in ran.result.stdout.tail
    assert not runs.blocked.exists()


def test_requirements_file_is_installed_from_its_content(runs: Any, tmp_path: Path) -> None:
    """``reqs_path`` is the client's; its content travels."""
    target = tmp_path / "installed"
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"--no-index\n{wheel(tmp_path, 'tinydep')}\n")
    deps = ct.DepsPip(reqs_path=str(requirements)).to_dict()
    requirements.unlink()

    def electron() -> int:
        import tinydep

        return int(tinydep.VALUE)

    ran = runs(
        runs.task(electron, hooks={"deps": {"pip": deps}}),
        env={"PYTHONPATH": f"{runs.env['PYTHONPATH']}:{target}", "PIP_TARGET": str(target)},
    )

    assert runs.value(ran) == 5


def test_failing_bash_command_names_itself(runs: Any) -> None:
    """The command, its exit code, and its output in the log; the commands after it are not run."""
    entries = {"deps": {"bash": ct.DepsBash(["echo one", "echo two >&2; exit 7", "echo three"]).to_dict()}}

    ran = runs(runs.task(lambda: print("ran"), hooks=entries))

    assert ran.code == ExitCode.RAISED
    assert ran.failure.kind == Kind.HOOK
    assert "'echo two >&2; exit 7' ended with exit code 7" in ran.failure.message
    assert (ran.result.stdout.tail, ran.result.stderr.tail) == ("one\n", "two\n")


def test_failing_pip_leaves_what_it_said(runs: Any) -> None:
    """The packages asked for, and pip's own words in the log."""
    entries = {"deps": {"pip": ct.DepsPip(packages=["--no-index", "no-such-package-here"]).to_dict()}}

    ran = runs(runs.task(lambda: None, hooks=entries))

    assert ran.failure.kind == Kind.HOOK
    assert "no-such-package-here ended with exit code 1" in ran.failure.message
    assert "No matching distribution" in ran.result.stderr.tail


def test_failing_call_has_its_traceback(runs: Any) -> None:
    """The hook and its place are named, the traceback begins in it."""

    def prepare() -> None:
        raise OSError("no data")

    entries = {"call_before": [ct.DepsCall(print, ["first"]).to_dict(), ct.DepsCall(prepare).to_dict()]}

    failure = runs(runs.task(lambda: None, hooks=entries)).failure

    assert (failure.kind, failure.message) == (Kind.HOOK, "call_before[1] failed: OSError: no data")
    assert "in prepare" in failure.traceback
    assert "covalent_cirro" not in failure.traceback


def test_failing_call_after_fails_the_electron(runs: Any) -> None:
    """As with Covalent: an electron is done when its call_after is."""

    def clean_up() -> None:
        raise OSError("still in use")

    ran = runs(runs.task(lambda: 1, hooks={"call_after": [ct.DepsCall(clean_up).to_dict()]}))

    assert ran.failure.message == "call_after[0] failed: OSError: still in use"


def test_file_transfers_and_module_hooks_are_carried_out(runs: Any) -> None:
    """The two calls that Covalent makes of a file transfer, and a DepsModule, which is only for the client."""
    entries = {
        "call_before": [
            {"type": "DepsCall", "short_name": "depsmodule", "attributes": {}},
            ct.DepsCall(lambda: ("/a", "/b"), retval_keyword="files", override_reserved_retval_keys=True).to_dict(),
            ct.DepsCall(lambda: None).to_dict(),
        ]
    }

    ran = runs(runs.task(lambda files=None: files, hooks=entries))

    assert runs.value(ran) == [("/a", "/b")]


@pytest.mark.parametrize("content", [b"{}", b"", b'{"deps": {}}', b"null"])
def test_empty_hooks_are_none(runs: Any, content: bytes) -> None:
    """Covalent writes an empty object where there are no hooks."""
    ran = runs(runs.task(lambda: 1)._replace(hooks=Inline(content)))

    assert runs.value(ran) == 1


def test_local_packages_come_first(runs: Any) -> None:
    """A zipped package shadows what the container has, and subprocesses of the electron find it too."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("my_models/__init__.py", "from my_models.cnn import build\n")
        file.writestr("my_models/cnn.py", "def build(): return 'built'\n")
        file.writestr("calendar.py", "MINE = True\n")

    def electron(build: Any) -> list[Any]:
        import calendar
        import subprocess
        import sys

        command = [sys.executable, "-c", "import my_models; print(my_models.build())"]
        return [build(), calendar.MINE, subprocess.check_output(command, text=True)]  # type: ignore[attr-defined]

    by_reference = Inline(b"cmy_models.cnn\nbuild\n.")
    packages = (Package("my_models", Inline(archive.getvalue())),)

    ran = runs(runs.task(electron, by_reference), packages=packages)

    assert runs.value(ran) == ["built", True, "built\n"]


def test_modules_of_a_folder_that_is_no_package_are_found_by_their_own_names(runs: Any) -> None:
    """As beside a script; those of libraries keep theirs."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("my-project/steps.py", "def first(): return 1\n")
        file.writestr("my-project/random.py", "raise ImportError('the wrong one')\n")

    def electron() -> int:
        import random

        import steps  # type: ignore[import-not-found]

        return int(steps.first() + random.randint(1, 1))

    ran = runs(runs.task(electron), packages=(Package("my-project", Inline(archive.getvalue())),))

    assert runs.value(ran) == 2


def test_package_that_is_no_zip_is_told(runs: Any) -> None:
    """The package is named."""
    failure = runs(runs.task(lambda: 1), packages=(Package("mine", Inline(b"no zip")),)).failure

    assert failure.kind == Kind.UNREADABLE
    assert "local package 'mine'" in failure.message


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "files"]), st.integers()), max_size=6),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["a", "k"]), st.integers()),
)
def test_injected_arguments_are_covalents(
    values: list[tuple[str, int]], args: list[int], kwargs: dict[str, int]
) -> None:
    """What call_before returns reaches the electron just as Covalent's own wrapper passes it."""

    def electron(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    calls = [ct.DepsCall(abs, [0]) for _ in values]
    for call, (keyword, value) in zip(calls, values, strict=True):
        call.apply_fn, call.apply_args = TransportableObject(int), TransportableObject([value])
        call.retval_keyword = keyword
    theirs = wrapper_fn(
        TransportableObject(electron),
        [call.apply() for call in calls],
        [],
        *map(TransportableObject, args),
        **{key: TransportableObject(value) for key, value in kwargs.items()},
    ).get_deserialized()

    document = json.loads(json.dumps({"call_before": [call.to_dict() for call in calls]}))
    returned = [(hook.retval_keyword, hook.run()) for hook in hooks.before(document)]
    ours = electron(*args, **{**kwargs, **hooks.keyword_arguments(returned)})

    assert ours == theirs


def test_pickles_of_hooks_are_base64_in_json() -> None:
    """The form that `hooks` relies on is the one that this version of Covalent writes."""
    entry = json.loads(json.dumps(ct.DepsCall(len, [[1, 2]]).to_dict()))

    encoded = entry["attributes"]["apply_fn"]["attributes"]["_object"]
    assert cloudpickle.loads(base64.b64decode(encoded)) is len
