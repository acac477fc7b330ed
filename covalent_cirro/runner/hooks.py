"""Carries out Covalent's hooks from ``hooks.json`` without Covalent: deps_bash, deps_pip, call_before, call_after.

Follows covalent 0.240 ``executor/utils/wrappers.py``. Bash and pip are done from their plain attributes, because their
pickled functions live in Covalent; calls are unpickled and called.
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

from covalent_cirro.contract.protocol import Kind
from covalent_cirro.runner.coroutines import finished
from covalent_cirro.runner.failures import HookFailed, Stage

_FILES_KEYWORD = "files"  # covalent/_workflow/depscall.py RESERVED_RETVAL_KEY__FILES


class Hook(NamedTuple):
    """One thing to do before or after the electron.

    Attributes:
        stage: For the message if it fails.
        run: Does it, and returns what Covalent would inject.
        retval_keyword: Keyword argument that gets the value; empty for none.
    """

    stage: Stage
    run: Callable[[], Any]
    retval_keyword: str = ""


def before(hooks: dict[str, Any]) -> Iterator[Hook]:
    """What comes before the electron, in Covalent's order: bash, pip, then the calls."""
    deps = hooks.get("deps") or {}
    if deps.get("bash"):
        yield Hook(Stage(Kind.HOOK, "deps_bash"), lambda: run_bash(deps["bash"]["attributes"]))
    if deps.get("pip"):
        yield Hook(Stage(Kind.HOOK, "deps_pip"), lambda: run_pip(deps["pip"]["attributes"]))
    yield from _calls(hooks.get("call_before") or [], "call_before")


def after(hooks: dict[str, Any]) -> Iterator[Hook]:
    """What comes after the electron. Its values are dropped, as Covalent does."""
    yield from _calls(hooks.get("call_after") or [], "call_after")


def _calls(entries: list[dict[str, Any]], where: str) -> Iterator[Hook]:
    for i, entry in enumerate(entries):
        # Covalent takes DepsModule out before a dispatch: the module travels inside the function.
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
        HookFailed: One ended with an error; those after it are not run.
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

    # pip falls back to the user's folder where it may not write to the main one; if it made that folder just now,
    # this interpreter does not look there yet.
    if site.ENABLE_USER_SITE:
        folder = site.getusersitepackages()
        if folder not in sys.path and os.path.isdir(folder):
            site.addsitedir(folder)
    importlib.invalidate_caches()


def _ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _flush() -> None:
    """So that what the electron wrote so far stands before what the subprocess writes."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def keyword_arguments(values: list[tuple[str, Any]]) -> dict[str, Any]:
    """The keyword arguments that call_before injects, from its (retval_keyword, value) pairs in order.

    A keyword that came once gives its value, one that came again gives the list of values; ``files`` is always a list.
    """
    gathered: dict[str, list[Any]] = {}
    for keyword, value in values:
        if keyword:
            gathered.setdefault(keyword, []).append(value)
    return {
        keyword: found[0] if len(found) == 1 and keyword != _FILES_KEYWORD else found
        for keyword, found in gathered.items()
    }
