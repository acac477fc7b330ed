"""Removes control sequences from texts of others before a terminal shows them; colours are kept.

A control sequence can write to the clipboard, change the title, clear the screen, overwrite earlier lines, and make the
terminal type an answer. Pipes and files get texts unchanged. Knows texts and streams only.
"""

from __future__ import annotations

import codecs
import io
import re
import sys

LONGEST_SEQUENCE = 4096
"""Longest control sequence that is recognised across pieces; a longer one is shown as text without its beginning."""

# A control string (ECMA-48, 5.6: OSC, DCS, SOS, PM, APC) begins with ESC and one of these, or with their C1 code; it
# ends with ST or BEL. A text with another control or the end of a line in it is no control string.
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f\n\r]*"
_CSI = r"(?:\x1b\[|\x9b)"
_CONTROL = re.compile(
    rf"{_CSI}(?P<parameters>[0-?]*)(?P<end>[ -/]*[@-~])"
    rf"|{_STRING}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"  # C0 and C1, except those that move the cursor
    r"|[\u202a-\u202e\u2066-\u2069]"  # characters that change the order in which a text is shown (UAX 9)
)
_UNFINISHED = re.compile(rf"(?:{_CSI}[0-?]*[ -/]*|{_STRING}\x1b?|\x1b[ -/]*)\Z")
_COLOURS = re.compile(r"[0-9;:]*")

RESET = "\x1b[0m"


def _kept(found: re.Match[str]) -> str:
    """The sequence if it is a colour (SGR), or erases a line (EL) as progress bars do; else nothing."""
    parameters, end = found["parameters"], found["end"]
    is_colour = end == "m" and _COLOURS.fullmatch(parameters) is not None
    return f"\x1b[{parameters}{end}" if is_colour or (end == "K" and parameters in ("", "0", "1", "2")) else ""


def harmless(text: str) -> str:
    """A text for a terminal, with characters, tabs, lines and colours only."""
    return _CONTROL.sub(_kept, text)


def plain(text: str) -> str:
    """A text for a cell of a table or the middle of a line, with characters only."""
    if text.isprintable():
        return text
    # `harmless` keeps backspaces, for progress bars; here a backspace would overwrite the text before the cell.
    return " ".join(_CONTROL.sub("", text).replace("\b", "").split())


class HarmlessStream:
    """Makes a text harmless that comes in pieces: a control sequence may be split between two pieces."""

    def __init__(self) -> None:
        self._held = ""
        self._is_styled = False
        self._begins_a_line = True

    def feed(self, text: str) -> str:
        """A piece as the terminal gets it; the beginning of a sequence is kept for the next piece."""
        text, self._held = self._held + text, ""
        unfinished = _UNFINISHED.search(text, max(0, len(text) - LONGEST_SEQUENCE))
        if unfinished is not None:
            text, self._held = text[: unfinished.start()], unfinished[0]
        return self._seen(harmless(text))

    def end(self) -> str:
        """The rest of the text, and what resets the terminal's colour and begins a new line."""
        rest = self._seen(harmless(self._held))
        self._held = ""
        closing = (RESET if self._is_styled else "") + ("" if self._begins_a_line else "\n")
        self._is_styled, self._begins_a_line = False, True
        return rest + closing

    def _seen(self, text: str) -> str:
        if text:
            self._is_styled = self._is_styled or "\x1b[" in text
            self._begins_a_line = text.endswith("\n")
        return text


_INSTEAD = {"✓": "ok", "✗": "x", "≈": "~", "…": "...", "—": "-", "━": "-", "╸": "-", "╺": "-"}
"""Replacements of signs that the terminal's encoding does not have."""


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_INSTEAD.get(each, "?") for each in error.object[error.start : error.end]), error.end


codecs.register_error("covalent_cirro.cli", _replace)


def takes(text: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def prepare() -> None:
    """Make stdout and stderr accept every text, in any encoding of the locale or ``PYTHONIOENCODING``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="covalent_cirro.cli")
