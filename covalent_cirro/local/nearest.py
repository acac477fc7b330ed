"""Finds the local stack that commands use: the one that runs in this folder, or in a folder above.

Where there is no state folder, it only looks for one, and imports nothing that starts or reads processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from covalent_cirro import private
from covalent_cirro.errors import CirroError, EmulatorError

if TYPE_CHECKING:
    from covalent_cirro.local.local_stack import LocalStack

STATE_DIR = ".cirro"
"""Name of the state folder, unless the user names another one."""

VARIABLE = "CIRRO_STATE_DIR"
"""Environment variable with the path of the state folder; where it is set, no other folder is looked at."""

PAST_IT = "With --aws, commands use your own AWS."


class Nearest(NamedTuple):
    """What was found.

    Attributes:
        running: The local stack that runs; `None` where none does.
        ended: The nearest state folder of a local stack that was started and does not run; `None` where there is none.
    """

    running: LocalStack | None
    ended: Path | None


def find(environment: Mapping[str, str] = os.environ) -> Nearest:
    """Find the nearest local stack of this user. A folder of another user is as good as none.

    Raises:
        EmulatorError: A state file that is nearer cannot be read, so that it is not known whether its local stack runs.
    """
    ended: Path | None = None
    for place in _places(environment):
        if not _is_ours(place):
            continue
        from covalent_cirro.local.local_stack import LocalStack

        found = LocalStack(place)
        try:
            emulator = found.read().emulator
        except CirroError as error:
            raise EmulatorError(f"{error} {PAST_IT}") from error
        if emulator is not None and emulator.running:
            return Nearest(found, ended)
        ended = ended or (None if emulator is None else place)
    return Nearest(None, ended)


def _places(environment: Mapping[str, str]) -> Iterator[Path]:
    """Paths at which a state folder may be, the nearest first."""
    named = environment.get(VARIABLE)
    if named:
        yield Path(named).absolute()
        return
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the folder was deleted
        return
    yield from (folder / STATE_DIR for folder in (here, *here.parents))


def _is_ours(place: Path) -> bool:
    """Whether it is a folder of this user's. A link is none: no local stack starts there (`private.owned`)."""
    try:
        private.owned(place)
    except (OSError, private.NotPrivate):
        return False
    return True
