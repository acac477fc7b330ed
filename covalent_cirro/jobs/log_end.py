"""The end of an electron's log, short enough to be quoted in an error: without pip and the runner's frames. Pure."""

from __future__ import annotations

import re

LOG_LINES = 15
"""Lines of a log's end in an explanation."""

LOG_LINE_CHARS = 1000
"""Characters after which a line is cut. AWS's message about a permission, with two ARNs, has about 600."""

_FILE = r"\S+\.(?:whl|whl\.metadata|tar\.gz|zip)\b"
_PIP = re.compile(
    r"Requirement already satisfied: |Installing collected packages: |Successfully (?:installed|uninstalled|built) \S+"
    rf"|(?:Downloading|Using cached|Processing) {_FILE}|Looking in (?:indexes|links): |Defaulting to user installation"
    r"|Preparing metadata \(|Getting requirements to build wheel|Installing (?:build|backend) dependencies"
    r"|Building wheels? for |Created wheel for |Stored in directory: "
    r"|Attempting uninstall: |Found existing installation: |Uninstalling \S+:$"
    r"|\[notice\] |WARNING: (?:Running pip as the 'root' user|You are using pip version|Target directory \S+ already)"
)
"""Beginnings of lines that only pip prints. Its errors are no such lines."""

_PIP_TOO = re.compile(
    r"Collecting \S+(?: \(from .*\))?$|Downloading \S+ \([\d.]+ [kMG]?B\)|[━╸╺-]{8,} [\d.]+/[\d.]+ [kMG]?B"
)
"""Further lines of pip, which an electron might print as well: they count as pip's where others of pip are there."""

_BAR = re.compile(r"[^|]*\d+%\|[^|]*\|")
"""A line of tqdm: ``train:  50%|#####     | 5/10 [00:05<00:05,  1.00s/it]``."""

_RUNNERS_FRAME = re.compile(r'  File "(?:.*/covalent_cirro/runner/\w+\.py|<frozen runpy>)", line \d+ in ')
"""Frames of the runner in a stack that Python's faulthandler prints, the most recent call first: those of the electron
and the line that says what happened come before them, and would have no room."""

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Colours and movements of the cursor, which bars are drawn with (ECMA-48, 5.4)."""


def last_lines(text: str, lines: int = LOG_LINES) -> str:
    """The end of a log, short enough to read.

    Of a line that was overwritten, and of a progress bar, the last state is left. Lines of pip, which installs an
    electron's packages, and the runner's frames in the stack of a crash are left out; where there are no others, the
    last line shows how far it came.
    """
    shown = [_last_state(line) for line in text.rstrip().split("\n")]
    is_pips = any(_PIP.match(line.lstrip()) for line in shown)
    own = [line for line in shown if not _is_pips(line, is_pips) and not _RUNNERS_FRAME.match(line)]
    if not any(own):
        own = shown[-1:]
    bars = [_BAR.match(line) is not None for line in own]
    kept = [line for line, *goes_on in zip(own, bars, [*bars[1:], False], strict=True) if not all(goes_on)]
    return "\n".join(kept[-lines:]).strip("\n")


def _last_state(line: str) -> str:
    states = [state for state in _CONTROL.sub("", line).split("\r") if state.strip()]
    last = states[-1].rstrip() if states else ""
    return last if len(last) <= LOG_LINE_CHARS else last[: LOG_LINE_CHARS - 1] + "…"


def _is_pips(line: str, with_others: bool) -> bool:
    line = line.lstrip()
    return _PIP.match(line) is not None or (with_others and _PIP_TOO.match(line) is not None)
