"""Runs Covalent's hooks from ``hooks.json`` without Covalent: deps_bash, deps_pip, call_before, call_after.

Follows covalent 0.240 ``executor/utils/wrappers.py``. Bash and pip hooks are run from their plain attributes, because
their pickled functions need Covalent; calls are unpickled and called.
"""

from __future__ import annotations

import base64
import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.runner.coroutines import finished
from covalent_cirro.runner.failures import HookFailed, Stage

_FILES_KEYWORD = "files"  # covalent/_workflow/depscall.py RESERVED_RETVAL_KEY__FILES


class Hook(NamedTuple):
    """A hook to run before or after the electron.

    Attributes:
        stage: Name of the step for the message if the hook fails.
        run: Runs the hook; returns the value that Covalent would inject.
        retval_keyword: Keyword argument that gets the value; empty for none.
    """

    stage: Stage
    run: Callable[[], Any]
    retval_keyword: str = ""


def before(hooks: dict[str, Any]) -> Iterator[Hook]:
    """Hooks before the electron, in Covalent's order: bash, pip, then the calls."""
    deps = hooks.get("deps") or {}
    if deps.get("bash"):
        yield Hook(Stage(Kind.HOOK, "deps_bash"), lambda: run_bash(deps["bash"]["attributes"]))
    if deps.get("pip"):
        yield Hook(Stage(Kind.HOOK, "deps_pip"), lambda: run_pip(deps["pip"]["attributes"]))
    yield from _calls(hooks.get("call_before") or [], "call_before")


def after(hooks: dict[str, Any]) -> Iterator[Hook]:
    """Hooks after the electron. Their values are dropped, as Covalent does."""
    yield from _calls(hooks.get("call_after") or [], "call_after")


def _calls(entries: list[dict[str, Any]], where: str) -> Iterator[Hook]:
    for i, entry in enumerate(entries):
        # Covalent removes DepsModule before a dispatch: the module is pickled with the function.
        if entry.get("short_name") == "depsmodule":
            continue
        attributes = entry["attributes"]
        yield Hook(
            Stage(Kind.HOOK, f"{where}[{i}]"),
            lambda attributes=attributes: _call(attributes),  # type: ignore[misc]
            attributes.get("retval_keyword") or "",
        )


def _call(attributes: dict[str, Any]) -> Any:
    function = _unpickle(attributes["apply_fn"])
    args = _unpickle(attributes["apply_args"])
    kwargs = _unpickle(attributes["apply_kwargs"])
    return finished(function(*args, **kwargs))


def _unpickle(transportable: dict[str, Any]) -> Any:
    """The object in a TransportableObject that was written as JSON."""
    return pickle.loads(base64.b64decode(transportable["attributes"]["_object"]))


def run_bash(attributes: dict[str, Any]) -> None:
    """Run shell commands one after another; their output goes to the electron's streams.

    Raises:
        HookFailed: A command ended with an error; the commands after it are not run.
    """
    commands = attributes.get("commands") or []
    for command in [commands] if isinstance(commands, str) else commands:
        _flush()
        code = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL).returncode  # noqa: S602  (it is the user's)
        if code != 0:
            raise HookFailed(f"deps_bash: the command {command!r} {_ended(code)}; stdout and stderr have its output")


def run_pip(attributes: dict[str, Any]) -> None:
    """Install packages with the pip of this Python; its output goes to the electron's streams.

    Raises:
        HookFailed: pip is missing or failed.
    """
    packages = attributes.get("packages") or []
    requirements = attributes.get("requirements_content") or ""
    command = [sys.executable, "-m", "pip", "install", "--no-input"]
    path = ""
    if requirements:
        import tempfile

        with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
            file.write(requirements)
        path = file.name
        command += ["-r", path]
        what = "the requirements file"
    else:
        # Split like Covalent does, so that "torch --index-url https://..." is one entry of three words.
        words = " ".join([packages] if isinstance(packages, str) else packages).split()
        if not words:
            return
        command += words
        what = " ".join(words)
    environment = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", **os.environ}
    _flush()
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment).returncode
    finally:
        if path:
            os.unlink(path)
    if code != 0:
        raise HookFailed(f"deps_pip: pip install of {what} {_ended(code)}; stdout and stderr have its output")
    _find_new_packages()


def _find_new_packages() -> None:
    import site

    # pip installs into the user's folder if it may not write to the main one. If pip made that folder just now,
    # this interpreter does not search it yet.
    if site.ENABLE_USER_SITE:
        folder = site.getusersitepackages()
        if folder not in sys.path and os.path.isdir(folder):
            site.addsitedir(folder)
    importlib.invalidate_caches()


def _ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _flush() -> None:
    """Flush stdout and stderr, so that the subprocess writes after what the electron wrote."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def keyword_arguments(values: list[tuple[str, Any]]) -> dict[str, Any]:
    """The keyword arguments that call_before injects, from its (retval_keyword, value) pairs in order.

    A keyword that occurs once has its value, one that occurs again a list of values; ``files`` is always a list.
    """
    gathered: dict[str, list[Any]] = {}
    for keyword, value in values:
        if keyword:
            gathered.setdefault(keyword, []).append(value)
    return {
        keyword: found[0] if len(found) == 1 and keyword != _FILES_KEYWORD else found
        for keyword, found in gathered.items()
    }
