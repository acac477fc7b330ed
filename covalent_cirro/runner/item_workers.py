"""Computes several items of a mapped electron at a time, each in a process that is forked from the electron's.

Items begin in their order. Each result is a file of its own until those of all items before it are in the list. A
worker that dies ends the job, in the way in which it died itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import sys
from typing import Any, BinaryIO, NamedTuple, NoReturn

from covalent_cirro.contract.failure_kinds import Failure
from covalent_cirro.runner import forked, results
from covalent_cirro.runner.failures import NoResult
from covalent_cirro.runner.item_function import ItemFunction, Share
from covalent_cirro.runner.item_journal import ItemWriter

_LOOK_S = 1.0
_LINE_BYTES = 256 * 1024
_COPY_BYTES = 1024 * 1024


class _Worker:
    """A forked process that computes one item after another, as it is told."""

    def __init__(self, share: Share, call: ItemFunction, others: list[_Worker]) -> None:
        self.item = -1
        self._unread = b""
        self.socket, theirs = socket.socketpair()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self.socket.close()
            for other in others:
                other.socket.close()  # so that each worker sees when the electron's process has ended
            _serve(share, call, theirs, parent)
        theirs.close()

    def begin(self, item: int) -> None:
        """Have it compute an item. Where it has died, `read` says so."""
        self.item = item
        with contextlib.suppress(OSError):
            self.socket.sendall(f"{item}\n".encode())

    def read(self) -> dict[str, Any] | None:
        """Its answer, if that is complete.

        Raises:
            EOFError: It has died.
        """
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self.socket.recv(_LINE_BYTES)
        if not data:
            raise EOFError
        self._unread += data
        if not self._unread.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(self._unread)
        self._unread = b""
        return answer


class _Computed(NamedTuple):
    """How an item ended, whose result is in a file of its own."""

    seconds: float
    failure: Failure | None


def compute_in_parallel(share: Share, call: ItemFunction, journal: ItemWriter) -> bool:
    """Compute the items of a share, some at a time.

    Returns:
        Whether an item failed. With ``on_error="stop"`` no item begins after that.

    Raises:
        NoResult: The job ends without the results of all items.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    workers: list[_Worker] = []
    try:
        for _ in range(min(share.parallel, share.stop - share.first)):
            workers.append(_Worker(share, call, workers))
        return _Coordinator(share, journal, workers).run()
    finally:
        for worker in workers:
            worker.socket.close()
            forked.kill(worker.pid)


class _Coordinator:
    """Hands items to workers, and puts their results into the items' order."""

    def __init__(self, share: Share, journal: ItemWriter, workers: list[_Worker]) -> None:
        self._share, self._journal, self._workers = share, journal, workers
        self._begins = share.first  # the next item to begin
        self._waits_for = share.first  # the next item of the list
        self._computed: dict[int, _Computed] = {}
        self._failed = False

    def run(self) -> bool:
        """Compute all items; whether one failed."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.socket, selectors.EVENT_READ, worker)
                self._begin(worker)
            running = len(self._workers)
            while running:
                ready_now = selector.select(_LOOK_S)
                if not ready_now:
                    self._find_dead()
                for key, _ in ready_now:
                    ready: _Worker = key.data
                    try:
                        answer = ready.read()
                    except EOFError:
                        self._die_like(ready, os.wait4(ready.pid, 0)[1])
                    if answer is None:
                        continue
                    self._take(ready.item, answer)
                    if not self._begin(ready):
                        selector.unregister(ready.socket)
                        running -= 1
        return self._failed

    def _begin(self, worker: _Worker) -> bool:
        """Give a worker the next item; false if there is none."""
        if self._begins == self._share.stop or (self._failed and self._share.on_error == "stop"):
            return False
        item, self._begins = self._begins, self._begins + 1
        with results.writing():
            self._journal.begun(item)
        worker.begin(item)
        return True

    def _take(self, item: int, answer: dict[str, Any]) -> None:
        failure = None if answer["failure"] is None else Failure(**answer["failure"])
        if answer["stopped"]:
            assert failure is not None
            raise NoResult(failure)
        self._failed = self._failed or failure is not None
        self._computed[item] = _Computed(answer["seconds"], failure)
        while (found := self._computed.pop(self._waits_for, None)) is not None:
            path = _path(self._share, self._waits_for)
            with results.writing():
                with open(path, "rb") as file:
                    shutil.copyfileobj(file, self._journal.body, _COPY_BYTES)
                self._journal.body.flush()
                self._journal.done(found.seconds, found.failure)
                os.unlink(path)
            self._waits_for += 1

    def _find_dead(self) -> None:
        """Look for a worker that died and left a process that keeps the connection open."""
        for worker in self._workers:
            pid, status, _ = os.wait4(worker.pid, os.WNOHANG)
            if pid:
                self._die_like(worker, status)

    def _die_like(self, worker: _Worker, status: int) -> NoReturn:
        """End this process as the worker ended: the supervisor finds out why, as for any electron."""
        with results.writing():
            self._journal.died(worker.item)
        for other in self._workers:
            if other is not worker:
                forked.kill(other.pid)
        forked.end_as(status)


def _path(share: Share, item: int) -> str:
    return os.path.join(share.folder, f"result-{item}.body")


def _serve(share: Share, call: ItemFunction, requests: socket.socket, parent: int) -> NoReturn:
    """What a worker does until its electron's process closes the connection."""
    code = 1
    try:
        forked.end_with(parent)
        call.reopen()
        with requests.makefile("rb") as lines:
            for line in lines:
                item = int(line)
                requests.sendall(json.dumps(_answer(share, call, item)).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _answer(share: Share, call: ItemFunction, item: int) -> dict[str, Any]:
    stopped, seconds = False, 0.0
    try:
        with results.writing():
            body: BinaryIO = open(_path(share, item), "w+b")  # noqa: SIM115  (closed below, also if that fails)
        with results.writing(), body:
            seconds, failure = call.compute(item, body)
    except NoResult as error:
        stopped, failure = True, error.failure
    for stream in (sys.stdout, sys.stderr):
        # The electron replaced the stream with an object of its own, which need not work.
        with contextlib.suppress(Exception):
            stream.flush()
    return {"seconds": seconds, "failure": None if failure is None else failure._asdict(), "stopped": stopped}
