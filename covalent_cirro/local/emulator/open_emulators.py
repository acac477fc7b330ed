"""The emulators that are open in this process, by account. Code that moto calls knows the account only."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from covalent_cirro.errors import EmulatorError

if TYPE_CHECKING:
    from covalent_cirro.local.emulator.account import Account
    from covalent_cirro.local.emulator.batch.service import Batch
    from covalent_cirro.local.emulator.ecr.images import Images
    from covalent_cirro.local.emulator.ecr.registry import Tokens
    from covalent_cirro.local.emulator.serving.serving import Serving

FIRST_ACCOUNT = 123456789012
"""Account of the first emulator of a process; each further one that is open at the same time has the next number."""

_lock = threading.Lock()
_emulators: dict[str, OpenEmulator] = {}


class OpenEmulator(Protocol):
    """What is used of an emulator that was found by its account (`emulator.Emulator`)."""

    endpoint_url: str
    images: Images
    tokens: Tokens
    account_settings: Account

    def batch(self, region: str) -> Batch:
        """The AWS Batch of a region."""

    def serving_in(self, region: str) -> Serving:
        """ECS services and load balancers of a region."""

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client."""


def add(emulator: OpenEmulator) -> str:
    """Give an emulator the first account that is free."""
    with _lock:
        number = FIRST_ACCOUNT
        while str(number) in _emulators:
            number += 1
        _emulators[str(number)] = emulator
    return str(number)


def remove(account: str) -> None:
    """Free the account of an emulator that closes."""
    with _lock:
        _emulators.pop(account, None)


def find(account: str) -> OpenEmulator | None:
    """The open emulator that has this account; `None` where there is none."""
    return _emulators.get(account)


def get(account: str) -> OpenEmulator:
    """The open emulator that has this account.

    Raises:
        EmulatorError: There is none: it was closed during the call.
    """
    emulator = find(account)
    if emulator is None:
        raise EmulatorError(f"no emulator has account {account}: it was closed. Call an emulator that is open.")
    return emulator


def account_of(account: str) -> Account | None:
    """Quotas and instance types of the open emulator that has this account."""
    emulator = find(account)
    return None if emulator is None else emulator.account_settings
