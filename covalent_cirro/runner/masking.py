"""Replaces the values of an electron's secrets by ``***`` in texts that are stored or shown, as CI systems do.

What is found: a value of `LEAST_CHARS` characters or more; each line of a value of several lines; each string in a
value that is JSON; all of these as Python, JSON, HTML, shells and URLs write them, and in Base64. What was changed in
another way (reversed, encrypted, compressed, printed with a space between the characters) is not found. Pure.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MASKED = "***"
"""What is shown instead of a value."""

LEAST_CHARS = 4
"""Shorter values are not masked: they would be found in any text (as CircleCI has it)."""

_LEAST_BASE64 = 8
_NOT_SECRET = frozenset({"true", "false", "null", "none"})
"""Values of switches that a secret in JSON may have; any log has them."""


class Mask:
    """Finds the values of secrets.

    Args:
        values: The values.

    Attributes:
        patterns: All texts that stand for them, the longest first.
        longest: Bytes of the longest one.
    """

    def __init__(self, values: Iterable[str]) -> None:
        patterns = sorted({form for value in values for form in _forms(value)}, key=lambda each: (-len(each), each))
        self.patterns = patterns
        self.longest = len(patterns[0]) if patterns else 0
        # At each place the first alternative that fits is taken, so the longest one stands first.
        self._any = re.compile(_alternatives(patterns))
        heads = sorted({pattern[:LEAST_CHARS] for pattern in patterns})
        self._heads = re.compile(_alternatives(heads))
        self._begun = frozenset(pattern[:size] for pattern in heads for size in range(1, LEAST_CHARS))

    def text(self, text: str) -> str:
        """The text without the values."""
        data = _bytes(text)
        if self._any.search(data) is None:
            return text
        stream = MaskedStream(self)
        return (stream.feed(data) + stream.finish()).decode("utf-8", "replace")

    def stream(self) -> MaskedStream:
        """For text that comes in pieces."""
        return MaskedStream(self)

    def find(self, data: bytes, start: int) -> tuple[int, int] | None:
        """Begin and end of the next value; of several that begin at the same place, the longest one."""
        found = self._any.search(data, start)
        return None if found is None else found.span()

    def unfinished(self, data: bytes) -> int:
        """The first place from which all that is there is the beginning of a value; the length if there is none."""
        size = len(data)
        at = max(0, size - self.longest + 1)
        while (found := self._heads.search(data, at)) is not None:
            at = found.start()
            if self._begins(data[at:]):
                return at
            at += 1
        for at in range(max(0, size - LEAST_CHARS + 1), size):
            if data[at:] in self._begun:
                return at
        return size

    def _begins(self, rest: bytes) -> bool:
        return any(len(pattern) > len(rest) and pattern.startswith(rest) for pattern in self.patterns)


class MaskedStream:
    """Masks a stream that comes in pieces: what is returned does not depend on where the pieces end."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""
        self._covered = 0  # bytes of what is held that belong to a value for which *** was returned

    def feed(self, data: bytes) -> bytes:
        """The next piece, without the end of it that may be the beginning of a value."""
        data = self._held + data
        return self._take(data, self._mask.unfinished(data))

    def finish(self) -> bytes:
        """What is held: the stream has ended, or pauses."""
        return self._take(self._held, len(self._held))

    def _take(self, data: bytes, end: int) -> bytes:
        shown: list[bytes] = []
        covered = at = self._covered
        start = 0
        while (found := self._mask.find(data, start)) is not None and found[0] < end:
            begin, stop = found
            if begin >= covered:
                shown += data[at:begin], MASKED.encode()
            # Values may overlap: no byte of any of them is shown.
            covered = at = max(covered, stop)
            start = begin + 1
        shown.append(data[at:end])
        self._held = data[end:]
        self._covered = max(0, covered - end)
        return b"".join(shown)


def _alternatives(patterns: Iterable[bytes], depth: int = 2) -> bytes:
    """A regular expression of any of them; of those that fit at a place, the first one.

    It branches by their first bytes: at each place each of a thousand alternatives would be tried, which is slower than
    an electron prints.
    """
    by_first: dict[bytes, list[bytes]] = {}
    for pattern in patterns:
        by_first.setdefault(pattern[:1], []).append(pattern[1:])
    branches = []
    for first, rests in by_first.items():
        rest = _alternatives(rests, depth - 1) if depth > 1 else b"|".join(map(re.escape, rests))
        branches.append(re.escape(first) + b"(?:" + rest + b")")
    return b"|".join(branches) or b"(?!)"


# --- forms of a value -------------------------------------------------------------------------------------------------


def _forms(value: str) -> Iterator[bytes]:
    """Each text that stands for a value."""
    lines = [line.strip() for line in value.splitlines()]
    whole = {value, value.strip(), *_strings_in(value)}
    for part in whole:
        if _is_told(part):
            yield from _as_text(part)
            yield from _as_base64(_bytes(part))
    for line in lines if len(lines) > 1 else ():
        if _is_told(line):
            yield from _as_text(line)


def _is_told(part: str) -> bool:
    return len(part.strip()) >= LEAST_CHARS and part.strip().lower() not in _NOT_SECRET


def _strings_in(value: str) -> Iterator[str]:
    """The strings in a value that is JSON, such as the user's name and password of a database."""
    if not value.lstrip().startswith(("{", "[")):
        return
    try:
        parts = [json.loads(value)]
    except (ValueError, RecursionError):
        return
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _as_text(part: str) -> Iterator[bytes]:
    data = _bytes(part)
    quoted = {repr(part)[1:-1], ascii(part)[1:-1], repr(data)[2:-1]}
    # Inside of a longer text that has the other quotation mark, Python escapes this one.
    quoted |= {text.replace("'", r"\'") for text in quoted if r"\'" not in text}
    for in_ascii in (True, False):
        written = json.dumps(part, ensure_ascii=in_ascii)[1:-1]
        quoted |= {written, json.dumps(written, ensure_ascii=in_ascii)[1:-1]}  # a log in JSON has JSON in its messages
    # What shells (`set -x`) and shlex.quote make of a quotation mark.
    quoted |= {part.replace("'", "'\\''"), part.replace("'", "'\"'\"'")}
    quoted |= {html.escape(part), html.escape(part, quote=False)}
    for text in (part, *quoted):
        yield _bytes(text)
    for text in (quote(data, safe=""), quote(data), quote_plus(data)):
        yield text.encode()


def _as_base64(data: bytes) -> Iterator[bytes]:
    """The value in Base64, by itself and, in each of three places, inside of something longer (``user:password``)."""
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        found = [encode(data)]
        for before in range(3):
            whole, rest = divmod(before + len(data), 3)
            # The first and last character have bits of what stands before and after the value.
            found.append(encode(b"\0" * before + data)[(0, 2, 3)[before] : whole * 4 + rest])
        yield from (each for each in found if len(each) >= _LEAST_BASE64)


def _bytes(text: str) -> bytes:
    """The text as a process writes it: bytes of a variable that are not UTF-8 are what they were (PEP 383)."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair of surrogates
        return text.encode("utf-8", "backslashreplace")
