"""The function of one item of a mapped electron, with the arguments that all items share: called, and its result kept.

In the electron's process, or in one that was forked from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from covalent_cirro.contract import nested
from covalent_cirro.contract.failed_pickle import NONE, pickle_of_failed
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.maps import ITEM_FUNCTION, ITEM_VARIABLE
from covalent_cirro.contract.protocol import CHECKPOINT_GOING, CHECKPOINT_SOCKET, ITEM_FOLDER
from covalent_cirro.runner import failures, results, tasks
from covalent_cirro.runner.coroutines import finished
from covalent_cirro.runner.failures import NoResult, Stage


class Share(NamedTuple):
    """The items that this process computes.

    Attributes:
        name: Name of the electron, for messages.
        covalent: Version of Covalent on the server, for messages.
        first: The first item, in the list that the call computes.
        stop: The item after the last.
        skip: Number of items of the files before the first.
        places: The items of the job, with those before the first, as ranges (first, stop) of the whole list.
        length: Number of items of the whole list.
        items: For each mapped argument the path of the pickle of the list of its items.
        parallel: Number of items to compute at a time, each in a process of its own.
        on_error: As `maps.Mapped.on_error`.
        folder: Folder for the results.
        control: Folder that is shared with the supervisor (`protocol.CHECKPOINT_VARIABLE`).
    """

    name: str
    covalent: str
    first: int
    stop: int
    skip: int
    places: list[list[int]]
    length: int
    items: dict[str, str]
    parallel: int
    on_error: str
    folder: str
    control: str


class Inputs:
    """Unpickles the items of each mapped argument, when they are asked for.

    Raises:
        NoResult: A list is malformed, or has too few items.
    """

    def __init__(self, share: Share) -> None:
        self._paths = share.items
        self._files: dict[str, BinaryIO] = {}
        self._lists: dict[str, list[nested.Value]] = {}
        self._first = share.first - share.skip
        for name, path in share.items.items():
            file = self._files[name] = open(path, "rb")  # noqa: SIM115  (closed with the process)
            value = nested.read(file)
            if not isinstance(value, list) or isinstance(value, nested.Pairs) or len(value) < share.stop - self._first:
                message = f"the items of the argument {name!r} of {share.name!r} are not a list of the items' number"
                raise NoResult(Failure(Kind.UNREADABLE, message))
            self._lists[name] = value

    def reopen(self) -> None:
        """Open the files anew."""
        self._files = {name: open(path, "rb") for name, path in self._paths.items()}  # noqa: SIM115

    def of(self, item: int, stage: Callable[[str], None]) -> dict[str, Any]:
        """The value of each mapped argument for an item; ``stage`` is told which one is being unpickled."""
        values = {}
        for name, file in self._files.items():
            stage(name)
            values[name] = nested.load(self._lists[name][item - self._first], lambda part: tasks.load_part(file, part))  # noqa: B023
        return values


class ItemFunction:
    """Calls the function of one item, and appends what it returns to a body.

    Args:
        share: The items.
        function: The function of the mapped electron.
        args: Positional arguments that all items share.
        kwargs: Keyword arguments that all items share.

    Raises:
        NoResult: The function is not that of a mapped electron, or the items cannot be read.
    """

    def __init__(self, share: Share, function: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
        self._share, self._args, self._kwargs = share, args, kwargs
        self._function: Any = getattr(function, ITEM_FUNCTION, None)
        if self._function is None:
            message = f"the function of {share.name!r} is not one of a mapped electron: it has no {ITEM_FUNCTION}"
            raise NoResult(Failure(Kind.UNREADABLE, message))
        self._inputs = Inputs(share)
        self._indexes = [index for first, stop in share.places for index in range(first, stop)]

    def reopen(self) -> None:
        """Open the items anew, in a process that was forked: a file that is open has one position for both."""
        self._inputs.reopen()

    def compute(self, item: int, body: BinaryIO) -> tuple[float, Failure | None]:
        """Compute an item. Whatever the function does, the body gets one result.

        Returns:
            How many seconds it took, and why it failed; `None` if it returned.

        Raises:
            NoResult: The disk is full, or the job is being stopped: the item has no result.
        """
        began = time.monotonic()
        index = self._indexes[item - self._share.first + self._share.skip]
        os.environ[ITEM_VARIABLE] = f"{index}/{self._share.length}"
        with results.writing():
            failure = self._try(item, index, body)
            if failure is not None and os.path.exists(os.path.join(self._share.control, CHECKPOINT_GOING)):
                raise NoResult(_stopped(index, failure))
            not_fetched = self._end_checkpoint(index)
            if failure is not None and not not_fetched:
                from covalent_cirro.runner import stored_blobs

                not_fetched = stored_blobs.failure_of(self._share.folder)
            if failure is not None and not_fetched:
                raise NoResult(Failure(Kind.FETCH, not_fetched))  # whatever it raised: another attempt may succeed
            if failure is not None:
                nested.append_item(body, lambda file: file.write(self._instead(index, failure)))
            body.flush()
        return round(time.monotonic() - began, 3), failure

    def _end_checkpoint(self, index: int) -> str:
        """Tell the supervisor that an item has ended, if the item has asked for its checkpoint.

        Returns:
            Why the checkpoint could not be fetched; empty otherwise.
        """
        control, answer = self._share.control, b""
        if os.path.exists(os.path.join(control, ITEM_FOLDER.format(index))):
            from covalent_cirro.runner.checkpoints import link

            with contextlib.suppress(OSError), link.connect(control, CHECKPOINT_SOCKET) as connection:
                connection.sendall(f"done {index}\n".encode())
                while data := connection.recv(1024):
                    answer += data
        found: str = json.loads(answer).get("fetch_failed", "") if answer else ""
        return found

    def _try(self, item: int, index: int, body: BinaryIO) -> Failure | None:
        share = self._share
        stage = Stage(Kind.UNREADABLE, "")

        def reading(name: str) -> None:
            nonlocal stage
            stage = Stage(Kind.UNREADABLE, f"unpickling item {index} of the argument {name!r} of {share.name!r}")

        try:
            values = self._inputs.of(item, reading)
            stage = Stage(Kind.RAISED, f"item {index} of {share.name!r}")
            value = self._call(values)
        except BaseException as error:
            return failures.explain(error, stage, share.covalent)
        try:
            nested.append_item(body, lambda file: results.dump(value, file))
        except NoResult as error:
            return error.failure
        return None

    def _call(self, values: dict[str, Any]) -> Any:
        me = os.getpid()
        try:
            return finished(self._function(*self._args, **self._kwargs, **values))
        finally:
            if os.getpid() != me:
                os._exit(0)  # the function forked, and its copy returned here too

    def _instead(self, index: int, failure: Failure) -> bytes:
        if self._share.on_error != "return":
            return NONE
        text = f"Item {index} of {self._share.name!r} failed: {failure.message}"
        return pickle_of_failed(f"{text}\n\n{failure.traceback}".strip())


def _stopped(index: int, failure: Failure) -> Failure:
    """The failure of a job that is being stopped: an item may fail for that reason, so the next attempt computes it."""
    message = f"item {index} ended while the job was being stopped, or its host was going: {failure.message}"
    return failure._replace(kind=Kind.TERMINATED, message=message)
