"""Keeps one electron's checkpoint while the electron runs: fetches the last one, stores new ones, watches for a notice.

Runs in threads of the supervisor, from the electron's first request on (`listener.py`). `checkpoint_store.py` knows
where the bytes are in S3, `files.py` what is in the folder.

There are two ways to tell a complete checkpoint from a half-written one. Until the electron calls ``save``, the folder
is stored when nothing in it has changed for a while and no process has a file of it open for writing; it is copied
before it is sent, so that the electron may go on writing. From the first ``save`` on, only ``save`` stores the folder.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from covalent_cirro.runner.checkpoints import files as checkpoint_files
from covalent_cirro.runner.checkpoints.checkpoint_store import CheckpointStore, Damaged, Overtaken, Superseded
from covalent_cirro.runner.checkpoints.files import Changed, Scan, Seen
from covalent_cirro.runner.checkpoints.index import MAX_FILES, File, NotAnIndex, Owner
from covalent_cirro.runner.checkpoints.spot import SpotWatch
from covalent_cirro.runner.s3 import answers
from covalent_cirro.runner.times import times_of

if TYPE_CHECKING:
    from covalent_cirro.runner.checkpoints.listener import CheckpointPlace
    from covalent_cirro.runner.s3.s3_client import Client, Pending

_QUIET_S = 2.0
_QUIET_WHEN_GOING_S = 0.5
_TICK_S = 0.5
_SHARE = 4  # checkpoints take at most a fifth of the time and of the network
_TAKE_TRIES = 3
_MIB = 1024 * 1024


class Checkpoint:
    """The checkpoint of one electron of the call.

    Args:
        place: Whose checkpoint it is, and where it is stored.
        client: S3.
        environ: What `times_of` and `SpotWatch` read.
        host_goes: Tells the electron that its host is going away.
        ends_at: Time on the monotonic clock at which uploads are abandoned; `None` while that is not known.
        say: Prints a line on the container's stderr.

    Attributes:
        host_goes_at: Epoch seconds at which EC2 takes the host back; `None` without a notice.
        fetch_failed: Why the last checkpoint could not be fetched; empty otherwise.
    """

    def __init__(
        self,
        place: CheckpointPlace,
        client: Client,
        environ: Mapping[str, str],
        host_goes: Callable[[], None],
        ends_at: Callable[[], float | None],
        say: Callable[[str], None],
    ) -> None:
        self.host_goes_at: float | None = None
        self.fetch_failed = ""
        self._place = place
        self._environ = environ
        self._host_goes = host_goes
        self._ends_at = ends_at
        self._say = say
        self._folder = os.path.join(place.own_folder, "folder")
        owner = Owner(place.job_id, place.attempt, place.started)
        self._store = CheckpointStore(client, place.location.bucket, place.key, owner, self._wait)
        self._interval_s = times_of(environ).checkpoint_interval
        self._lock = threading.Lock()  # of the folder and the store
        self._begin_lock = threading.Lock()
        self._restored = False
        self._explicit = place.reads_only  # of which nothing is stored by itself
        self._going = False
        self._ended = False
        self._given_up = False
        self._seen: dict[str, Seen] = {}
        self._taken: Scan | None = None
        self._said: set[str] = set()
        self._spot: SpotWatch | None = None

    # --- what the supervisor asks for ---

    def hurry(self) -> None:
        """Note that the attempt will be ended soon. Safe in a signal handler: it takes no lock."""
        self._going = True

    def finish(self, *, succeeded: bool, orderly: bool) -> None:
        """Store or abandon the last checkpoint: the electron has ended, or its process has died.

        A success needs no checkpoint. Otherwise the one that is under way is waited for; and where the electron came to
        an orderly end because of a notice, its files are complete, so they are stored once more.
        """
        self._ended = True
        self._given_up = succeeded
        if self._spot is not None:
            self._spot.stop()
        if not self._restored or succeeded:
            return
        with self._lock:
            if orderly and self._going and not self._explicit:
                self._try_to_take(quiet_s=0.0)

    def remove(self) -> None:
        """Delete the checkpoint: the call has succeeded, so no attempt will need it."""
        if not self._restored:
            return
        with self._lock:
            self._given_up = False
            try:
                self._store.remove()
            except answers.S3Error as error:
                self._complain(f"a checkpoint that is no longer needed could not be deleted: {error}")

    # --- what the electron asks for ---

    def answer(self, what: str) -> dict[str, str]:
        """Do what the electron asks for, ``folder``, ``save`` or ``watch``; may take as long as S3 does.

        Returns:
            The answer to send: ``{"folder"}``, or ``{"error"}``.
        """
        self._begin()
        if what == "watch":
            return {}
        if what == "folder" and self._restored:
            return {"folder": self._folder}
        if what not in ("folder", "save"):
            return {"error": f"the runner does not know {what!r}; it knows folder, save and watch"}
        with self._lock:
            if self._ended:
                return {"error": "the electron has ended"}
            self._restore()
            if what == "save" and not self._place.reads_only:
                self._explicit = True
                failed = self._take(quiet_s=None)
                return {"error": failed} if failed else {}
        return {"folder": self._folder}

    def _begin(self) -> None:
        """Start the threads at the electron's first request."""
        with self._begin_lock:
            if self._spot is None:
                self._spot = SpotWatch(self._environ, self._notice)
                threading.Thread(target=self._keep, daemon=True).start()

    def _notice(self, goes_at: float) -> None:
        if not self._ended:
            self._say("EC2 has given notice that it takes this Spot instance back; the electron is notified")
            self.host_goes_at = goes_at
            self._host_goes()

    def _restore(self) -> None:
        if self._restored:
            return
        began = time.monotonic()
        try:
            index = self._store.restore(self._folder)
        except (answers.S3Error, NotAnIndex, Damaged, OSError) as error:
            self.fetch_failed = f"the checkpoint of this electron could not be fetched: {error}"
            raise RuntimeError(self.fetch_failed) from error
        self._taken = checkpoint_files.scan(self._folder)
        self._seen = dict(self._taken.files)
        self._restored, self.fetch_failed = True, ""
        if index is not None:
            self._say(
                f"fetched the checkpoint of attempt {index.owner.attempt}: {len(index.files)} files, "
                f"{index.size / _MIB:.1f} MiB, in {time.monotonic() - began:.1f} s"
            )

    # --- taking one ---

    def _keep(self) -> None:
        """Store the folder whenever it has changed and is complete."""
        next_at = time.monotonic() + self._interval_s
        while not self._ended:
            time.sleep(min(_TICK_S, self._interval_s))
            now = time.monotonic()
            if self._explicit or not self._restored or (now < next_at and not self._going):
                continue
            with self._lock:
                if self._is_over():
                    continue
                quiet_s = min(self._interval_s, _QUIET_WHEN_GOING_S if self._going else _QUIET_S)
                if self._try_to_take(quiet_s):
                    took_s = time.monotonic() - now
                    next_at = now + took_s + max(self._interval_s, _SHARE * took_s)

    def _is_over(self) -> bool:
        """Whether the runner stores nothing by itself any more; checked again once the lock is held."""
        return self._ended or self._explicit

    def _try_to_take(self, quiet_s: float) -> bool:
        """Whether there is nothing left to do for now."""
        try:
            failed = self._take(quiet_s)
        except Changed:
            return False
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
        if failed:
            self._complain(failed)
        return True

    def _take(self, quiet_s: float | None) -> str:
        """Store the folder as it is, if it is not so already.

        Args:
            quiet_s: For how long it must not have changed; its files are copied first. `None`: the electron says that
                it is whole, and waits.

        Returns:
            Why it could not be stored; empty if it is.

        Raises:
            Changed: A file of the folder changed too recently.
        """
        problem = ""
        for _ in range(_TAKE_TRIES):
            try:
                return self._take_once(quiet_s)
            except Overtaken as error:
                # The other attempt may have deleted files: only those of its index are in S3; others are sent again.
                self._taken, self._seen = None, {}
                problem = f"another attempt keeps writing the checkpoint ({error!r})"
            except Superseded as error:
                self._explicit = True
                return f"the checkpoint is no longer this attempt's to write: {error}"
            except answers.S3Error as error:
                return f"the checkpoint could not be stored: {error}"
            except Changed:
                if quiet_s is not None:
                    raise
                return "the checkpoint could not be stored: a file changed while it was being saved"
            except OSError as error:
                return (
                    f"the checkpoint could not be stored: {error}. What changed is copied on the disk before it is "
                    "sent; checkpoint.save() needs no copy"
                )
        return problem

    def _take_once(self, quiet_s: float | None) -> str:
        found = checkpoint_files.scan(self._folder)
        if self._taken is not None and _same(found, self._taken):
            return ""
        if len(found.files) > MAX_FILES:
            return f"the checkpoint could not be stored: it has {len(found.files)} files, more than {MAX_FILES}"
        if quiet_s is not None and (
            time.time_ns() - found.changed_ns < quiet_s * 1e9 or checkpoint_files.is_written_to(self._folder)
        ):
            raise Changed
        staging = os.path.join(self._place.own_folder, "copies")
        try:
            files, sources = self._compare(found, staging if quiet_s is not None else "")
            if quiet_s is not None and checkpoint_files.scan(self._folder) != found:
                raise Changed
            self._store.store(files, found.links, found.folders, sources)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        if quiet_s is None and checkpoint_files.scan(self._folder) != found:
            # It is stored, but a file changed meanwhile: the next checkpoint has to read every file again.
            self._taken, self._seen = None, {}
            raise Changed
        self._taken, self._seen = found, dict(found.files)
        if self._store.left_over is not None:
            self._complain(f"files of an earlier checkpoint could not be deleted: {self._store.left_over}")
        return ""

    def _compare(self, found: Scan, staging: str) -> tuple[dict[str, File], dict[str, str]]:
        """The files as the index will have them, and where the bytes lie of those that have to be sent."""
        stored = {} if self._store.stored is None else self._store.stored.files
        names = {file.sha256: file.name for file in stored.values()}
        files: dict[str, File] = {}
        sources: dict[str, str] = {}
        if staging:
            os.mkdir(staging, 0o700)
        for number, (path, seen) in enumerate(found.files.items()):
            source = os.path.join(self._folder, path)
            times = (seen.size, seen.mode, max(0, seen.mtime_ns))
            if self._seen.get(path) == seen and path in stored:
                files[path] = File(stored[path].name, stored[path].sha256, *times)
                continue
            copy = os.path.join(staging, str(number)) if staging else ""
            sha256 = checkpoint_files.digest(source, copy)
            files[path] = File(names.get(sha256, ""), sha256, *times)
            if sha256 not in names and seen.size:
                sources[path] = copy or source
            elif copy:
                os.unlink(copy)
        return files, sources

    def _wait(self, pending: Pending) -> answers.Answer:
        while True:
            ends_at = self._ends_at()
            if self._given_up or (ends_at is not None and time.monotonic() >= ends_at):
                raise pending.out_of_time()
            try:
                return pending.result(0.25)
            except TimeoutError:
                continue

    def _complain(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def _same(one: Scan, other: Scan) -> bool:
    return one.files == other.files and one.links == other.links and one.folders == other.folders
