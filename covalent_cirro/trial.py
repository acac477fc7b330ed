"""Values that an electron reports while it runs: its learning curve, seen live, by which a search may end it early.

User functions import this module in the container and on a laptop, so it needs the runner's files only: no Covalent, no
boto3. The runner's supervisor, another process, sends what is reported.
"""

from __future__ import annotations

import os
import time
from typing import SupportsFloat, SupportsIndex

from covalent_cirro.contract import reports
from covalent_cirro.contract.limits import MAX_STEP
from covalent_cirro.contract.maps import ITEM_VARIABLE
from covalent_cirro.contract.protocol import CHECKPOINT_VARIABLE, RANK_VARIABLE, REPORTS_FILE
from covalent_cirro.errors import SettingsError

_SUPERVISOR_S = 30.0
"""Seconds to wait for the runner's folder, which exists a fraction of a second after the electron's start."""


def report(step: SupportsIndex, value: SupportsFloat) -> None:
    """Report a value, such as the accuracy after an epoch. Takes some microseconds, and makes no request.

    The runner sends what is new every 2 s, less often later on, and all of it at the end. A step that is reported
    again, by a later attempt for example, has the later value. Any process of the electron can report. Each item of a
    mapped electron has steps of its own. Of a distributed electron, the values of rank 0 count, and those of other
    processes are dropped. Does nothing outside of a job.

    In a search (`covalent_cirro.search`) the study is told the values, and its pruner may end the trial: then the
    electron gets SIGTERM as from a host that goes away, and `checkpoint.host_is_going` is true.

    Args:
        step: What you count, such as epochs: a whole number from 0.
        value: A number, or what ``float`` makes one of, such as a tensor with one element.

    Raises:
        SettingsError: ``step`` is no whole number from 0, or ``value`` no number.

    Example:
        >>> from covalent_cirro import trial
        >>> for epoch in range(30):
        ...     trial.report(epoch, train_one_epoch())
    """
    point = reports.Point(_step(step), _value(value), _item())
    folder = os.environ.get(CHECKPOINT_VARIABLE)
    if folder is None or os.environ.get(RANK_VARIABLE, "0") != "0":
        return
    path = os.path.join(folder, REPORTS_FILE)
    until = time.monotonic() + _SUPERVISOR_S
    while True:
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            break
        except FileNotFoundError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.005)
    try:
        os.write(file, reports.record(point))  # a few bytes: written whole, between those of other processes
    finally:
        os.close(file)


def _step(step: SupportsIndex) -> int:
    try:
        found = step.__index__()
    except (AttributeError, TypeError):
        found = -1
    if not 0 <= found <= MAX_STEP:
        raise SettingsError(f"trial.report(step, value) counts steps in whole numbers from 0 to 2**53; got {step!r}.")
    return found


def _value(value: SupportsFloat) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor with several elements
        raise SettingsError(f"trial.report(step, value) takes one number as value; got {value!r}.") from error


def _item() -> int | None:
    index = os.environ.get(ITEM_VARIABLE, "").partition("/")[0]
    return int(index) if index.isdecimal() else None
