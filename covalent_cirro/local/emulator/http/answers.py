"""Answers of the emulator's own routes."""

from __future__ import annotations

import json
from typing import Any

from covalent_cirro.local.emulator.batch.batch_api import Answer


def json_answer(value: Any, status: int = 200) -> Answer:
    """An answer of the emulator's own."""
    return Answer(status, [("Content-Type", "application/json")], json.dumps(value).encode())
