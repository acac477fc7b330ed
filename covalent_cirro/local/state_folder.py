"""The state folder of a local stack, and the state file in it that says what was started.

It must not know how processes are started, nor what else is in the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from covalent_cirro import private
from covalent_cirro.errors import EmulatorError
from covalent_cirro.local import processes
from covalent_cirro.local.processes import ProcessIdentity

FORMAT = 1
"""Version of the state file."""

STATE_FILE = "local.json"
LOCK = "lock"

REGION = "us-east-1"
"""Region of the emulated account, unless the emulator names another."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A process of the local stack.

    Attributes:
        pid: Process id, and id of its process group and session.
        started: Its start, seconds since the epoch; distinguishes it from a later process with the same pid.
        url: URL at which it answers; empty while it starts.
        log: File with its stdout and stderr.
    """

    pid: int
    started: float
    url: str
    log: str

    @property
    def identity(self) -> ProcessIdentity:
        """What identifies the process."""
        return ProcessIdentity(self.pid, self.started)

    @property
    def running(self) -> bool:
        """Whether it runs and has answered."""
        return self.url != "" and processes.is_alive(self.identity)


@dataclass(frozen=True, kw_only=True)
class State:
    """What was started for a state folder, as its state file says.

    Attributes:
        emulator: The emulated AWS.
        server: The Covalent server.
        settings: Settings of the executor for the deployment; empty before that is made.
        region: AWS region.
    """

    emulator: Service | None = None
    server: Service | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    region: str = REGION


class StateFolder:
    """One state folder.

    Args:
        path: The folder. It need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def in_use(self) -> bool:
        """Whether something was started for it and not ended by ``down``.

        Raises:
            NotPrivate: The folder is another user's.
        """
        try:
            private.owned(self.path)
        except FileNotFoundError:
            return False
        return (self.path / STATE_FILE).exists()

    def require_ours(self) -> None:
        """Check that the folder has no other files than those of a local stack.

        Raises:
            EmulatorError: It has.
            NotPrivate: The folder itself is another user's.
        """
        if not self.in_use and self.path.exists():
            others = [entry.name for entry in self.path.iterdir() if entry.name != LOCK]
            if others:
                raise EmulatorError(
                    f"{self.path} holds other files ({', '.join(sorted(others)[:3])}) and no local stack: "
                    "nothing was started. Name an empty or a new folder with --state-dir."
                )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the state meanwhile. Makes the folder, or takes it from all other users.

        Raises:
            NotPrivate: It is another user's.
        """
        private.own(self.path)
        with open(self.path / LOCK, "w", opener=private.opener) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> State:
        """The state file; an empty state where there is none.

        Raises:
            EmulatorError: It is damaged, or of another version.
            NotPrivate: The folder is another user's: that user would choose which server gets pickles, and which
                processes are ended.
        """
        with contextlib.suppress(FileNotFoundError):
            private.require_ours(self.path)
        try:
            document = json.loads((self.path / STATE_FILE).read_text())
            if document.pop("format") != FORMAT:
                raise ValueError("another version wrote it")
            services = {
                name: None if document[name] is None else Service(**document.pop(name))
                for name in ("emulator", "server")
            }
            return State(**{**document, **services})
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise EmulatorError(
                f"{self.path / STATE_FILE} cannot be read ({error}). End the processes it names, "
                f"then remove {self.path}."
            ) from error

    def write(self, state: State) -> State:
        """Write the state file in one step; returns the state."""
        private.write(self.path / STATE_FILE, json.dumps({"format": FORMAT, **asdict(state)}, indent=2))
        return state

    def clear(self) -> None:
        """Remove the state file and the lock."""
        for file in (STATE_FILE, LOCK):
            (self.path / file).unlink(missing_ok=True)
