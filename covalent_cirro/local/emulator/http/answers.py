"""An HTTP answer, and the forms that the emulator's answers have."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """An HTTP answer: status, headers and body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def json_answer(value: Any, status: int = 200) -> Answer:
    """An answer of the emulator's own routes."""
    return Answer(status, [("Content-Type", "application/json")], json.dumps(value).encode())


def aws_json_answer(value: Any, status: int = 200) -> Answer:
    """An answer of a service of AWS that speaks JSON."""
    return Answer(status, [("Content-Type", "application/x-amz-json-1.1")], json.dumps(value).encode())


def xml_answer(body: str, status: int = 200) -> Answer:
    """An answer of a service of AWS that speaks XML."""
    return Answer(status, [("Content-Type", "text/xml")], body.encode())
