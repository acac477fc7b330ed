"""Which account a command says that it acts on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from covalent_cirro.cli import account
from covalent_cirro.errors import AccessDenied


class FakeClients:
    """The part of `Clients` that is used."""

    region = "eu-west-1"

    def __init__(self, endpoint_url: str, account_id: str | None) -> None:
        self.endpoint_url = endpoint_url
        self._id = account_id

    @contextlib.contextmanager
    def asking(self, operation: str) -> Iterator[Any]:
        assert operation == "sts:GetCallerIdentity"
        if self._id is None:
            raise AccessDenied("no", operation=operation, code="AccessDenied")
        yield SimpleNamespace(get_caller_identity=lambda: {"Account": self._id})


AWS = "https://sts.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("endpoint", "account_id", "local_stack", "profile", "words"),
    [
        (AWS, "123456789012", None, None, "AWS account 123456789012, eu-west-1"),
        (AWS, "123456789012", None, "lab", "AWS account 123456789012, eu-west-1, profile 'lab'"),
        (AWS, None, None, None, "AWS account (unknown), eu-west-1"),
        ("http://127.0.0.1:4566", "1", None, None, "account 1 at http://127.0.0.1:4566"),
        ("http://127.0.0.1:1", "1", "/lab/.cirro", None, "the local stack in /lab/.cirro (emulated, no costs)"),
    ],
)
def test_an_account_in_words(
    endpoint: str, account_id: str | None, local_stack: str | None, profile: str | None, words: str
) -> None:
    """Nobody takes an emulated one for a real one, or the other way round."""
    clients: Any = FakeClients(endpoint, account_id)
    assert account.in_words(clients, Path(local_stack) if local_stack else None, profile) == words
