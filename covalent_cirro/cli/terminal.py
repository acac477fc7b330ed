"""What a terminal gets to see of somebody else's text: characters and colours, and nothing that commands the terminal.

A control sequence can write to the clipboard, change the title, clear the screen, write over what stands above, and
have the terminal type an answer. Pipes and files get everything as it is. Knows texts and streams only.
"""

from __future__ import annotations

import codecs
import io
import re
import sys

LONGEST_SEQUENCE = 4096
"""Characters of a control sequence that are waited for; what is longer is shown as text, without its beginning."""

# A control string (ECMA-48, 5.6: OSC, DCS, SOS, PM, APC) begins with ESC and one of these, or with their C1 code; it
# ends with ST or BEL. What has another control or the end of a line in it is none.
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f\n\r]*"
_CSI = r"(?:\x1b\[|\x9b)"
_CONTROL = re.compile(
    rf"{_CSI}(?P<parameters>[0-?]*)(?P<end>[ -/]*[@-~])"
    rf"|{_STRING}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"  # C0 and C1 but for what moves within a line or to the next one
    r"|[\u202a-\u202e\u2066-\u2069]"  # what makes a text read in another order than it is written (UAX 9)
)
_UNFINISHED = re.compile(rf"(?:{_CSI}[0-?]*[ -/]*|{_STRING}\x1b?|\x1b[ -/]*)\Z")
_COLOURS = re.compile(r"[0-9;:]*")

RESET = "\x1b[0m"


def _kept(found: re.Match[str]) -> str:
    """A colour (SGR), or the erasing of a line (EL), which progress bars do; nothing of all else."""
    parameters, end = found["parameters"], found["end"]
    is_colour = end == "m" and _COLOURS.fullmatch(parameters) is not None
    return f"\x1b[{parameters}{end}" if is_colour or (end == "K" and parameters in ("", "0", "1", "2")) else ""


def harmless(text: str) -> str:
    """A text for a terminal: characters, tabs, lines and colours."""
    return _CONTROL.sub(_kept, text)


def plain(text: str) -> str:
    """A text for a cell of a table or the middle of a line: characters only."""
    if text.isprintable():
        return text
    # `harmless` leaves backspaces, for progress bars; here one would write over what stands before the cell.
    return " ".join(_CONTROL.sub("", text).replace("\b", "").split())


class HarmlessStream:
    """Text that comes in pieces: a control sequence may be torn between two of them."""

    def __init__(self) -> None:
        self._held = ""
        self._is_styled = False
        self._begins_a_line = True

    def feed(self, text: str) -> str:
        """A piece as a terminal gets it; the beginning of a sequence waits for the next piece."""
        text, self._held = self._held + text, ""
        unfinished = _UNFINISHED.search(text, max(0, len(text) - LONGEST_SEQUENCE))
        if unfinished is not None:
            text, self._held = text[: unfinished.start()], unfinished[0]
        return self._seen(harmless(text))

    def end(self) -> str:
        """What puts the terminal in order for other text: no colour, and the beginning of a line."""
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
"""What stands for our own signs where the terminal's encoding has none."""


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
    """Have stdout and stderr take every text, whatever encoding the locale or ``PYTHONIOENCODING`` gives them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="covalent_cirro.cli")
