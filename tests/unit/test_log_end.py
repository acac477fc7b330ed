"""The end of a log that is quoted in an error: what the electron printed last, and not what installed its packages."""

from __future__ import annotations

import pytest

from covalent_cirro.jobs.log_end import LOG_LINE_CHARS, last_lines

PIP = """\
Looking in indexes: https://pypi.org/simple
Collecting tqdm==4.67.1
  Downloading tqdm-4.67.1-py3-none-any.whl.metadata (57 kB)
Collecting colorama (from tqdm==4.67.1)
Downloading tqdm-4.67.1-py3-none-any.whl (78 kB)
   \u2501\u2501\u2501\u2501\u2501\u2501\u2501\u2501\u2501\u2501 78.5/78.5 kB 3.1 MB/s eta 0:00:00
Using cached numpy-2.0.0-cp311-cp311-manylinux_2_17_x86_64.whl (19.3 MB)
Requirement already satisfied: cloudpickle in /usr/lib/python3/site-packages (3.1.0)
  Preparing metadata (setup.py): started
  Preparing metadata (setup.py): finished with status 'done'
Installing collected packages: tqdm, numpy
  Attempting uninstall: numpy
    Found existing installation: numpy 1.26.4
    Uninstalling numpy-1.26.4:
      Successfully uninstalled numpy-1.26.4
Successfully installed numpy-2.0.0 tqdm-4.67.1
WARNING: Running pip as the 'root' user can result in broken permissions and conflicting behaviour
[notice] A new release of pip is available: 24.0 -> 25.3
[notice] To update, run: pip install --upgrade pip
"""


def bar(percent: int) -> str:
    """A progress bar as tqdm writes it."""
    return f"train: {percent:3}%|{'#' * (percent // 10):10}| {percent}/100 [00:05<00:05,  1.00s/it]"


def test_the_end_of_a_log_is_short_and_shows_a_progress_bar_once() -> None:
    """The last lines, none endless, and of a line that was written over its last version."""
    text = (
        "\n".join(f"line {number}" for number in range(100))
        + "\n  1%\r 50%\r100%\r\n"
        + "x" * 2 * LOG_LINE_CHARS
        + "\n\n"
    )
    lines = last_lines(text, 4).split("\n")
    assert lines[:3] == ["line 98", "line 99", "100%"]
    assert len(lines[3]) == LOG_LINE_CHARS
    assert last_lines("\n\n") == ""


def test_pips_lines_are_left_out() -> None:
    """What the electron printed is there instead; also where it printed much less than pip."""
    assert last_lines(f"{PIP}epoch 1\nepoch 2\n") == "epoch 1\nepoch 2"
    assert last_lines(f"before\n{PIP}") == "before"


def test_what_pip_says_of_a_failure_stays() -> None:
    """It names the package."""
    failed = "ERROR: Could not find a version that satisfies the requirement nosuch (from versions: none)"
    assert last_lines(f"{PIP}Collecting nosuch\n{failed}\n") == failed


def test_where_pip_only_has_printed_its_last_line_is_left() -> None:
    """An electron that was killed while its packages were installed."""
    assert last_lines("Requirement already satisfied: a in b\nCollecting torch\n") == "Collecting torch"


@pytest.mark.parametrize("line", ["Collecting garbage", "Downloading the data set", "Processing batch 3"])
def test_an_electrons_own_words_are_not_taken_for_pips(line: str) -> None:
    """Without pip in the log, or where pip writes another line."""
    assert last_lines(f"{line}\nend") == f"{line}\nend"


@pytest.mark.parametrize("between", ["\r", "\n", "\r\n", "\x1b[A\r", "\r\x1b[K"])
def test_of_a_progress_bar_the_last_state_is_left(between: str) -> None:
    """Whether it overwrites its line, or its writer made lines of its states."""
    assert last_lines(f"begin\n{between.join(map(bar, range(0, 60, 5)))}\nend") == f"begin\n{bar(55)}\nend"
    assert last_lines(f"{bar(5)}\r{bar(10)}\r") == bar(10)


def test_the_stack_of_a_crash_begins_with_what_happened() -> None:
    """Frames of the runner, which come last in it, take no room from those of the electron."""
    stack = [
        "Fatal Python error: Segmentation fault",
        "",
        "Current thread 0x00007fb878444b80 (most recent call first):",
    ]
    own = [f'  File "/home/me/model.py", line {number} in layer' for number in range(8)]
    runners = [f'  File "/opt/lib/covalent_cirro/runner/tasks.py", line {number} in call' for number in range(12)]
    shown = last_lines("\n".join([*stack, *own, *runners, '  File "<frozen runpy>", line 88 in _run_code']))
    assert shown == "\n".join([*stack, *own])
