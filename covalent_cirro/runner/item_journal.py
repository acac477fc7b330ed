"""The results of items on the local disk: the electron's process writes them, the supervisor reads them meanwhile.

Two files: the body of the list of results (`nested`), and a journal with a line of JSON for each item that is done. A
line is written once its result is in the body, so that the lines are true even after the electron's process was killed.
"""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO, NamedTuple

from covalent_cirro.contract.failure_kinds import Failure

BODY, _JOURNAL = "results.body", "results.journal"


class Done(NamedTuple):
    """An item that is done; its result is in the body.

    Attributes:
        end: Length of the body with it.
        seconds: How long it took.
        failure: Why it failed; `None` if it returned.
    """

    end: int
    seconds: float
    failure: Failure | None


class ItemWriter:
    """Writes body and journal. Any method, and writing to the body, may raise `OSError`.

    Attributes:
        body: The body, at its end. It must be flushed before `done`.
    """

    def __init__(self, folder: str) -> None:
        self.body: BinaryIO = open(os.path.join(folder, BODY), "w+b")  # noqa: SIM115  (closed with the process)
        self._lines = os.open(os.path.join(folder, _JOURNAL), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def done(self, seconds: float, failure: Failure | None) -> None:
        """Note that the next item is done."""
        line: dict[str, Any] = {"end": self.body.tell(), "seconds": seconds}
        self._write(line if failure is None else {**line, "failure": failure._asdict()})

    def begun(self, item: int) -> None:
        """Note that an item has begun, where items before it have not ended."""
        self._write({"begun": item})

    def died(self, item: int) -> None:
        """Note that the process that computed an item died."""
        self._write({"died": item})

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._lines, json.dumps(line, separators=(",", ":")).encode() + b"\n")


class ItemReader:
    """Reads the journal of the process that runs.

    Attributes:
        begun: Items that are noted as begun so far; once a process of one of them died, that item alone.
    """

    def __init__(self, folder: str) -> None:
        self.begun: list[int] = []
        self._path = os.path.join(folder, _JOURNAL)
        self._at = 0

    def new(self) -> list[Done]:
        """Items that are done since the last call, in order."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return []  # the electron has not come so far
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        found = []
        for line in map(json.loads, whole.splitlines()):
            if "begun" in line:
                self.begun.append(line["begun"])
            elif "died" in line:
                self.begun = [line["died"]]
            else:
                failure = Failure(**line["failure"]) if "failure" in line else None
                found.append(Done(line["end"], line["seconds"], failure))
        return found
