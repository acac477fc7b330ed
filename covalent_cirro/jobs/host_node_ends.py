"""What a user reads about one of Covalent's own nodes that failed on the server's host. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from covalent_cirro.contract.failure_kinds import Failure, Kind

IN_AN_ELECTRON = (
    "Do in an electron what needs it: electrons are jobs, which have their image, local_packages and deps_pip; or "
    "install it where the Covalent server runs."
)

SHUT_IN = (
    "Covalent's own nodes run shut in on the server's host: without network, without the files of its user, in 3/4 of "
    "its memory. Do in an electron what needs more."
)

_REFUSED = re.compile(r"PermissionError|\[Errno 13\]|MemoryError")
"""Errors that the sandbox causes by refusing access, or by its limit of memory."""

_NOT_OPENED = "covalent_cirro.runner.placeholders.NotOpened: "


class NodeExplanation(NamedTuple):
    """What a user reads.

    Attributes:
        line: What happened and what to do, in one line.
        text: The whole text, with the traceback.
    """

    line: str
    text: str


def explain(failure: Failure, name: str, node_id: int) -> NodeExplanation:
    """Explain why a node has no output."""
    what, next_step = _what(failure, f"{name!r} (node {node_id})")
    what = what.strip().rstrip(".") + "."
    sections = [f"{what}\nTo do: {next_step}" if next_step else what, failure.traceback.rstrip()]
    return NodeExplanation(f"{what} {next_step}".strip(), "\n\n".join(each for each in sections if each) + "\n")


def _what(failure: Failure, node: str) -> tuple[str, str]:
    message = failure.message
    if failure.kind == Kind.MISSING_MODULE:
        return f"{node} needs the module {failure.module!r}, which the Covalent server's host has not", IN_AN_ELECTRON
    if failure.kind == Kind.UNREADABLE:
        return f"{node} was not started: {message}", ""
    if failure.kind == Kind.UNPICKLABLE:
        return f"{node} gave what cannot be handed on: {message}", ""
    if failure.kind == Kind.NOT_RUN:
        return f"{node} was not run: {message}", "See the node that failed first."
    if failure.kind == Kind.KILLED:
        return f"{node} has no result: {message}", SHUT_IN
    if message.startswith(_NOT_OPENED):
        return f"{node} failed: {message.removeprefix(_NOT_OPENED)}", ""
    if _REFUSED.search(f"{message}\n{failure.traceback}"):
        return f"{node} raised {message}", SHUT_IN
    return f"{node} raised {message}" if failure.kind == Kind.RAISED else f"{node} has no result: {message}", ""
