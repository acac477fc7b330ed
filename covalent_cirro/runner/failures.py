"""Turns an exception of an electron into a `Failure`: kind, one line, traceback without the runner's frames.

Pure: no I/O beyond the source lines that the traceback module looks up. Nothing here may raise, whatever
the methods of the exception do.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from covalent_cirro.contract import texts
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.limits import MESSAGE_CHARS, TRACEBACK_CHARS
from covalent_cirro.runner import shown_texts

_OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_ASYNCIO = os.path.join(os.path.dirname(os.__file__), "asyncio") + os.sep
"""Modules whose frames lie between the runner's and those of an ``async`` electron."""


class Stage(NamedTuple):
    """The step in which an exception was raised.

    Attributes:
        kind: `Kind` of the failure, unless the exception itself has a more specific one.
        what: Name of the step for the message, ``"unpickling argument 2"``.
    """

    kind: str
    what: str


class NoResult(Exception):
    """The electron has no result; ``failure`` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class HookFailed(Exception):
    """A shell command or pip ended with an error. Its output is in the log; a traceback would add nothing."""


def explain(error: BaseException, stage: Stage, covalent: str) -> Failure:
    """Make the failure of an exception.

    Args:
        error: The exception.
        stage: The step in which it was raised.
        covalent: Version of Covalent on the server, for the remedy where Covalent itself is missing.
    """
    traceback = "" if isinstance(error, HookFailed) else format_traceback(error)
    if isinstance(error, HookFailed):
        return Failure(Kind.HOOK, _one_line(_text(error)))
    if isinstance(error, SystemExit):
        return _explain_exit(error, stage, traceback)
    # Only the import system sets the name: an electron that raises the class by itself means something else.
    if isinstance(error, ModuleNotFoundError) and isinstance(error.name, str) and error.name:
        module = shown_texts.shown(error.name)
        message = missing_module(module, stage.what, covalent)
        return Failure(Kind.MISSING_MODULE, message, traceback, module=module)
    line = describe(error)
    if stage.kind == Kind.RAISED:
        return Failure(Kind.RAISED, line, traceback)
    return Failure(stage.kind, f"{stage.what} failed: {line}", traceback)


def _explain_exit(error: SystemExit, stage: Stage, traceback: str) -> Failure:
    code = error.code
    # As in the interpreter: None is success, a number is the exit code, anything else is printed and means 1.
    number = 0 if code is None else code if isinstance(code, int) else 1
    # The system keeps eight bits of the code; the interpreter passes -1 for a number that does not fit a C long.
    exit_code = (number if abs(number) < 2**63 else -1) & 0xFF
    said = "" if code is None or isinstance(code, int) else f" ({_text(code)})"
    where = "the electron" if stage.kind == Kind.RAISED else stage.what
    message = _one_line(f"{where} called sys.exit with exit code {exit_code}{said} instead of returning a result")
    return Failure(Kind.EXITED, message, traceback, exit_code=exit_code)


def missing_module(module: str, what: str, covalent: str) -> str:
    """One line that names a missing module and the ways to bring it into the container."""
    top = module.split(".")[0]
    if top == "covalent":
        return (
            f"{what} needs Covalent itself ({module}), and the container's image has none: install "
            f"covalent=={covalent} in the image, the version of the server"
        )
    if top == "covalent_cirro":
        return (
            f"{what} needs the module {module!r}, and the covalent-cirro of the container's image has none: it is an "
            "older version, or the runner's part. Build the image again (cirro image build, cirro image push), or "
            "install covalent-cirro in the image"
        )
    return (
        f"{what} needs the module {module!r}, which the container does not have. Three ways to ship it: "
        f"deps_pip=[{top!r}] on the electron (if it is on PyPI; the package may be named otherwise); "
        f"local_packages=[{top!r}] on CirroBatchExecutor (if it is your own); or an image that has it"
    )


def describe(error: BaseException) -> str:
    """``module.Class: first line of the message``, whatever ``str(error)`` does."""
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    text = _text(error)
    return _one_line(f"{name}: {text}" if text else name)


def format_traceback(error: BaseException) -> str:
    """The traceback with its chained causes, beginning at the first frame that is not the runner's.

    Of a very long text, which a message of megabytes makes, only the beginning and the end.
    """
    import traceback

    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        frames = link.__traceback__
        while frames is not None and _is_own(frames.tb_frame.f_code.co_filename):
            frames = frames.tb_next
        link.__traceback__ = frames
        chain += [link.__cause__, link.__context__]
    try:
        whole = "".join(traceback.TracebackException.from_exception(error).format())
        return texts.cut(shown_texts.shown(whole), TRACEBACK_CHARS)
    except BaseException as broken:
        return f"{describe(error)}\n(the traceback could not be formatted: {describe(broken)})\n"


def _is_own(path: str) -> bool:
    return path.startswith((_OWN_FOLDER, _ASYNCIO))


def _text(value: object) -> str:
    try:
        return shown_texts.shown(str(value))
    except BaseException as broken:
        return f"<its __str__ raised {type(broken).__qualname__}>"


def _one_line(text: str) -> str:
    # Again, as a whole: names of classes may have a value, too.
    lines = [line.strip() for line in shown_texts.shown(text).splitlines() if line.strip()]
    line = lines[0] if lines else ""
    # A string may contain lone surrogates; a document has to be valid UTF-8.
    return texts.cut(line.encode("utf-8", "backslashreplace").decode(), MESSAGE_CHARS)
