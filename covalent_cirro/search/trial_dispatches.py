"""The dispatches of a search's trials: lattices of one electron, on the Covalent server that the config names."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from covalent_cirro.contract.reports import Point
from covalent_cirro.covalent_server import client
from covalent_cirro.errors import CirroError, ElectronFailed, HostError
from covalent_cirro.history import report, reported
from covalent_cirro.history.account import Account
from covalent_cirro.search.core import DispatchEnd
from covalent_cirro.search.loop import Look

SILENT_SERVER_S = 120.0
"""Seconds for which the Covalent server may not answer: long enough to start it again. The jobs go on meanwhile."""

_STUDY_CHARS = 100

_ENDED = {client.COMPLETED: DispatchEnd.COMPLETED, client.CANCELLED: DispatchEnd.CANCELLED}


def lattice_name(study: str, number: int) -> str:
    """Name of the lattice of a trial, as the Covalent UI lists it: ``digits.00012``."""
    return f"{study[:_STUDY_CHARS]}.{number:05d}"


class TrialDispatches:
    """Implements `loop.Dispatches`.

    Args:
        account: Account, bucket and prefix of the electron's executor.
        study: Name of the study.
        electron: The electron.
        fixed: Its arguments that are the same for all trials.
        value: Takes the number from what the electron returned.
        note: Shows a line to the user.
    """

    def __init__(
        self,
        account: Account,
        study: str,
        electron: Callable[..., Any],
        fixed: Mapping[str, Any],
        value: Callable[[Any], Any],
        note: Callable[[str], object],
    ) -> None:
        self._account, self._study, self._electron = account, study, electron
        self._fixed, self._value, self._note = fixed, value, note
        self._noted = ""
        self._answered_at = time.monotonic()

    def register(self, number: int, parameters: Mapping[str, Any], earlier: str = "") -> str:
        """See `loop.Dispatches`."""
        import covalent as ct

        electron = self._electron

        def trial(**given: Any) -> Any:
            return electron(**given)

        trial.__name__ = lattice_name(self._study, number)
        return client.register(ct.lattice(trial), {**parameters, **self._fixed}, reuse_from=earlier or None)

    def start(self, dispatch_id: str) -> None:
        """See `loop.Dispatches`."""
        client.start_registered(dispatch_id)

    def look(self, dispatch_id: str) -> Look:
        """See `loop.Dispatches`.

        Raises:
            HostError: The server has not answered for `SILENT_SERVER_S`.
        """
        try:
            status = client.status_if_known(dispatch_id)
            runs = status == "RUNNING" and any(each == "RUNNING" for _, each in client.electron_states(dispatch_id))
        except HostError as error:
            if time.monotonic() > self._answered_at + SILENT_SERVER_S:
                raise HostError(
                    f"{error} The trials that run go on; the same script goes on with them when the server is back."
                ) from error
            self._say(f"{error} The trials go on meanwhile.")
            return Look()
        self._answered_at, self._noted = time.monotonic(), ""
        if status is None:
            return Look(known=False)
        ended = _ENDED.get(status, DispatchEnd.FAILED) if status in client.ENDED else None
        return Look(ended, started=status != "NEW_OBJECT", runs=runs)

    def result(self, dispatch_id: str) -> tuple[float | None, str]:
        """See `loop.Dispatches`."""
        try:
            found = client.result(dispatch_id)
        except HostError:
            raise
        except Exception as error:  # what the user's classes raise when they are unpickled
            return None, f"its result cannot be read: {type(error).__name__}: {error}"
        if isinstance(found, ElectronFailed):  # on_error="return"
            return None, str(found)
        try:
            return float(self._value(found)), ""
        except Exception as error:
            return None, f"the electron returned {_short(found)}, of which no number can be made: {error}"

    def why_failed(self, dispatch_id: str) -> str:
        """See `loop.Dispatches`."""
        return client.error(dispatch_id)

    def cancel(self, dispatch_id: str) -> None:
        """See `loop.Dispatches`."""
        try:
            client.cancel(dispatch_id)
        except HostError as error:  # it is asked again
            self._say(str(error))

    def reported(self, first: int) -> Mapping[str, Sequence[Point]]:
        """See `loop.Dispatches`."""
        try:
            curves = reported.of_lattices(
                self._account, f"{self._study[:_STUDY_CHARS]}.", lattice_name(self._study, first)
            )
        except CirroError as error:  # the next listing has them
            self._say(f"what the trials report cannot be listed: {error}")
            return {}
        return {curve.dispatch_id: [point for point in curve.points if point.item is None] for curve in curves}

    def cost(self, dispatch_id: str) -> float | None:
        """See `loop.Dispatches`."""
        try:
            return report.make(self._account, dispatch_id).total.usd
        except CirroError:  # no job yet, or AWS does not say it: the next estimate may know
            return None

    def _say(self, words: str) -> None:
        if words != self._noted:
            self._noted = words
            self._note(words)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
