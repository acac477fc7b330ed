"""Makes texts valid Unicode, and cuts them to a length. Pure."""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def valid(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, which UTF-8 cannot encode."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def fitted(text: str, most: int) -> str:
    """The text for a document: valid, and cut to at most so many characters (`cut`)."""
    return valid(cut(text, most))


def cut(text: str, most: int) -> str:
    """The text in at most so many characters: its beginning, how many characters were left out, and its end."""
    if len(text) <= most:
        return text
    bracket, end = ("\n[... ", " ...]\n") if "\n" in text else (" [... ", " ...] ")
    room = most - len(f"{bracket}{len(text)} characters left out{end}")
    if room < 2:
        return text[:most]
    tail = room // 2
    left_out = f"{bracket}{len(text) - room} characters left out{end}"
    return f"{text[: room - tail]}{left_out}{text[-tail:]}"
