"""The access key of an emulator: each state folder has its own, in a file that only its user can read.

The file is a credentials file of AWS's, so that every SDK finds the key by ``AWS_SHARED_CREDENTIALS_FILE``. This module
must not know requests.
"""

from __future__ import annotations

import base64
import configparser
import secrets
from pathlib import Path
from typing import NamedTuple

from covalent_cirro import private
from covalent_cirro.errors import EmulatorError

FILE = "credentials"
"""Name of the file in the state folder."""

OWN_ID = "CIRROEMULATOR0000000"
"""Access key id of the emulator's calls to itself, with the secret of its key: not counted, not hit by faults."""

_SECTION = "default"


class Key(NamedTuple):
    """An access key.

    Attributes:
        id: Access key id: 20 characters, as AWS's have. Every request has it: it is no secret.
        secret: Secret access key, which signs requests; no request has it.
    """

    id: str
    secret: str

    @property
    def ids(self) -> frozenset[str]:
        """Ids that are used with its secret: its own, and that of the emulator's calls to itself."""
        return frozenset((self.id, OWN_ID))

    @property
    def basic(self) -> str:
        """The header ``Authorization`` for routes that are no AWS calls."""
        return "Basic " + base64.b64encode(f"{self.id}:{self.secret}".encode()).decode()


def key_of(folder: Path) -> Key:
    """The key of a state folder; a new one where the folder has none.

    Raises:
        EmulatorError: The file of that name holds no key.
    """
    path = folder / FILE
    if path.exists():
        return read(path)
    # 75 and 240 random bits.
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    key = Key("CIRRO" + "".join(secrets.choice(letters) for _ in range(15)), secrets.token_urlsafe(30))
    private.write(path, f"[{_SECTION}]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n")
    return key


def read(path: Path) -> Key:
    """The key in a file.

    Raises:
        EmulatorError: The file cannot be read, or holds no key.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text("utf-8"))
        return Key(parser[_SECTION]["aws_access_key_id"], parser[_SECTION]["aws_secret_access_key"])
    except (OSError, ValueError, KeyError, configparser.Error) as error:
        raise EmulatorError(
            f"{path} does not hold the key of an emulator ({type(error).__name__}). Remove it, and start the emulator "
            "again (`cirro local down` and `up`): it makes a new one."
        ) from error
