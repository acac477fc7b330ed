"""Sends requests to the electron's process, and copies its output to the container's streams and to parts in S3.

Knows the process and the logs; it must not know calls, blobs or outcomes. One thread with one poll; the native threads
of the S3 client store parts meanwhile.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import signal
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from covalent_cirro.contract.limits import LOG_TAIL_BYTES, MAX_PARTS
from covalent_cirro.contract.log_parts import STREAMS
from covalent_cirro.contract.protocol import Log
from covalent_cirro.runner.logs import PartNames, Stream
from covalent_cirro.runner.process import ElectronProcess, Ended
from covalent_cirro.runner.s3.answers import S3Error
from covalent_cirro.runner.times import Times

if TYPE_CHECKING:
    from covalent_cirro.runner.masking import Mask
    from covalent_cirro.runner.s3.s3_client import Pending

_READ_BYTES = 256 * 1024
_MAX_UPLOADS = 4
_BACKGROUND_S = 1.0
MEANWHILE_S = 1.0
"""Seconds after which an electron is no short one: what its end may need is prepared while it runs."""
_ATOMIC_BYTES = 4096  # Linux PIPE_BUF: a pipe that polls writable takes that much without blocking (pipe(7))

Put = Callable[[str, bytes], "Pending"]
"""Starts the upload of a part of the log, under its name."""

Wait = Callable[["Pending"], object]
"""Waits for the upload of a part; raises `S3Error`."""


class Pump:
    """The supervisor's only loop.

    Args:
        process: The electron's process.
        put: Starts the upload of a part.
        wait: Waits for an upload.
        attempt: AWS_BATCH_JOB_ATTEMPT, for the names of parts.
        times: How long it waits.
        complain: Prints on the container's stderr what went wrong with a log.
        mask: Finds the values of secrets, which are in no log; `None` without secrets.

    Attributes:
        terminating: Whether SIGTERM has arrived.
    """

    def __init__(
        self,
        process: ElectronProcess,
        put: Put,
        wait: Wait,
        attempt: int,
        times: Times,
        complain: Callable[[str], None],
        mask: Mask | None = None,
    ) -> None:
        self.terminating = False
        self._masked = {} if mask is None else {name: mask.stream() for name in STREAMS}
        self._process = process
        self._put = put
        self._wait = wait
        self._times = times
        self._complain = complain
        self._events: deque[dict[str, Any]] = deque()
        self._streams: dict[str, Stream] = {}
        self._fds = {"stdout": process.stdout, "stderr": process.stderr}
        self._forward = {"stdout": 1, "stderr": 2}
        self._names = {name: PartNames(attempt, name) for name in STREAMS}
        self._uploads: list[tuple[Pending, Stream, str]] = []
        self._term_at: float | None = None
        self._kill_at: float | None = None
        self._replies_open = True
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        # A handler, even an empty one, makes the signal write to the wake-up pipe.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        self.begin()

    # --- what the supervisor asks for ---

    def begin(self) -> None:
        """Start the logs of the next electron."""
        now = time.monotonic()
        self._streams = {name: Stream(self._times.log_interval, now) for name in STREAMS}

    def terminate(self, *, grace: bool = False) -> None:
        """Pass SIGTERM on to the electron and its children; SIGKILL follows after `Times.stop`.

        Args:
            grace: The electron has another way to know: send it the signal, which would end it, after `Times.grace`.
        """
        if not self.terminating:
            self.terminating = True
            now = time.monotonic()
            self._kill_at = now + self._times.stop
            if grace:
                self._term_at = now + min(self._times.grace, self._times.stop)
            else:
                self._process.signal_group(signal.SIGTERM)

    def wait_for(
        self,
        event: str,
        seen: Callable[[dict[str, Any]], None] = lambda _: None,
        meanwhile: Callable[[], float] | None = None,
    ) -> dict[str, Any] | None:
        """Copy output until the child sends ``event``; other events are passed to ``seen``.

        Args:
            event: Name of the event.
            seen: Called with other events.
            meanwhile: Called after `MEANWHILE_S`, and again after as many seconds as it returns.

        Returns:
            The event; `None` if the process ended before.
        """
        due = None if meanwhile is None else time.monotonic() + MEANWHILE_S
        while True:
            while self._events:
                message = self._events.popleft()
                if message["event"] == event:
                    self._drain()
                    return message
                seen(message)
            if self._process.ended is not None:
                self._drain()
                return None
            if meanwhile is not None and due is not None and time.monotonic() >= due:
                due = time.monotonic() + meanwhile()
            self._turn(due)

    def send(self, request: dict[str, Any]) -> None:
        """Send the child a request. The caller waits for its ``done``, or for the end of the process."""
        if not self._process.send(request):
            # The end of the process explains the failure: wait for it.
            self._process.close_requests()

    def end(self) -> Ended:
        """Wait for the end of the process, kill it after `Times.exit`, and kill the processes that it left."""
        self._process.close_requests()
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._times.exit
        while self._process.ended is None:
            self._turn()
        self._drain()
        # Processes of its group would end with the container anyway; killing them closes the pipes.
        self._process.signal_group(signal.SIGKILL)
        until = time.monotonic() + _BACKGROUND_S
        while self._fds and time.monotonic() < until:
            self._turn(until)
        return self._process.ended

    def finish_logs(self, tail_bytes: int = LOG_TAIL_BYTES) -> dict[str, Log]:
        """Store the rest of the current electron's streams, and wait for its parts.

        Args:
            tail_bytes: Most bytes of each stream that the outcome itself has room for.
        """
        for name in self._masked:
            self._take(name, self._masked[name].finish())
        for name, stream in self._streams.items():
            self._upload(name, stream, stream.finish(tail_bytes))
        while self._uploads:
            self._collect(block=True)
        return {name: stream.log(tail_bytes) for name, stream in self._streams.items()}

    # --- the loop ---

    def _turn(self, until: float | None = None) -> None:
        """Wait for the next event, and handle it."""
        now = time.monotonic()
        if self._term_at is not None and now >= self._term_at and self._process.ended is None:
            self._term_at = None
            self._process.signal_group(signal.SIGTERM)
        if self._kill_at is not None and now >= self._kill_at and self._process.ended is None:
            self._kill_at = None
            self._process.signal_group(signal.SIGKILL)
        self._collect(block=False)
        full = len(self._uploads) >= _MAX_UPLOADS
        if not full:
            for name, stream in self._streams.items():
                due = stream.due_at()
                if due is not None and due <= now:
                    self._upload(name, stream, stream.cut(now))
        poll = select.poll()
        poll.register(self._wake_r, select.POLLIN)
        if self._replies_open:
            poll.register(self._process.replies, select.POLLIN)
        # If too much text is on its way to S3, the electron has to wait: memory must not grow with its output.
        fds = {} if full else {fd: name for name, fd in self._fds.items()}
        for fd in fds:
            poll.register(fd, select.POLLIN)
        times = [at for stream in self._streams.values() if (at := stream.due_at()) is not None and not full]
        times += [at for at in (self._term_at, self._kill_at, until) if at is not None]
        wait_ms = min((max(0.0, at - time.monotonic()) for at in times), default=60.0) * 1000
        for fd, happened in poll.poll(min(wait_ms + 1, 60_000)):
            if fd == self._wake_r:
                self._empty_wake()
            elif fd == self._process.replies:
                if happened & select.POLLIN:
                    self._events.extend(self._process.read_replies())
                else:
                    # The process is about to end, or the electron closed the pipe; SIGCHLD tells which.
                    self._replies_open = False
            else:
                self._read(fds[fd])
        if self._process.ended is None and self._process.poll() is not None:
            self._term_at, self._kill_at, self._replies_open = None, None, False
            self._events.extend(self._process.read_replies())

    def _empty_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_r, 1024):
                pass

    def _read(self, name: str, most: int = _READ_BYTES) -> int:
        """Read once what is available; returns the number of bytes."""
        fd = self._fds[name]
        try:
            data = os.read(fd, min(most, _READ_BYTES))
        except BlockingIOError:
            return 0
        if not data:
            del self._fds[name]
            os.close(fd)
            return 0
        self._take(name, self._masked[name].feed(data) if name in self._masked else data)
        return len(data)

    def _take(self, name: str, data: bytes) -> None:
        if data:
            self._streams[name].feed(data)
            self._pass_on(name, data)

    def _drain(self) -> None:
        """Read what is in the pipes now, which is all that was written before the child's last reply."""
        for name in list(self._fds):
            waiting = array.array("i", [0])
            fcntl.ioctl(self._fds[name], termios.FIONREAD, waiting)
            left = waiting[0]
            while left > 0 and name in self._fds:
                while len(self._uploads) >= _MAX_UPLOADS:
                    self._collect(block=True)
                left -= self._read(name, left) or left
                stream = self._streams[name]
                now = time.monotonic()
                due = stream.due_at()
                if due is not None and due <= now:
                    self._upload(name, stream, stream.cut(now))

    def _pass_on(self, name: str, data: bytes) -> None:
        """Write to the container's stream. A closed stream is skipped; a blocked stream does not delay a stop."""
        fd = self._forward.get(name)
        if fd is None:
            return
        view = memoryview(data)
        writable = select.poll()
        writable.register(fd, select.POLLOUT)
        try:
            while view:
                if not writable.poll(1000):
                    if self.terminating:
                        return
                    continue
                view = view[os.write(fd, view[:_ATOMIC_BYTES]) :]
        except OSError:
            del self._forward[name]

    # --- parts ---

    def _upload(self, name: str, stream: Stream, data: bytes) -> None:
        if not data:
            return
        part = self._names[name].next()
        if part is None:
            if self._names[name].given == MAX_PARTS + 1:
                self._complain(f"{name} has {MAX_PARTS} parts: what comes now is in CloudWatch, its end in the outcome")
            return
        stream.stored(part)
        pending = self._put(part, data)
        pending.future.add_done_callback(self._wake)
        self._uploads.append((pending, stream, part))

    def _wake(self, _: object) -> None:
        # If the pipe is full, the loop wakes up anyway.
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"\0")

    def _collect(self, block: bool) -> None:
        """Remove uploads that are done, or wait for the oldest one."""
        for upload in list(self._uploads):
            pending, stream, part = upload
            if block or pending.done():
                self._uploads.remove(upload)
                try:
                    self._wait(pending)
                except S3Error as error:
                    stream.lost(part)
                    self._complain(f"a part of the log is lost: {error}")
                if block:
                    return
