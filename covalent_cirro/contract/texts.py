"""Text that everybody can take: valid Unicode, and no longer than its place. Pure."""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def valid(text: str) -> str:
    """The text with U+FFFD for each lone surrogate: UTF-8, and so a file, a database or a page, has none."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def fitted(text: str, most: int) -> str:
    """The text as a document may have it: valid, and in at most so many characters (`cut`)."""
    return valid(cut(text, most))


def cut(text: str, most: int) -> str:
    """The text in at most so many characters: its beginning and its end, and how much was left out between them."""
    if len(text) <= most:
        return text
    bracket, end = ("\n[... ", " ...]\n") if "\n" in text else (" [... ", " ...] ")
    room = most - len(f"{bracket}{len(text)} characters left out{end}")
    if room < 2:
        return text[:most]
    tail = room // 2
    left_out = f"{bracket}{len(text) - room} characters left out{end}"
    return f"{text[: room - tail]}{left_out}{text[-tail:]}"
