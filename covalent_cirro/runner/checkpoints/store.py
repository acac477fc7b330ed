"""Checkpoints in S3: fetches one whole, stores one so that it appears at once or not at all, deletes what it replaces.

Bytes lie under names drawn at random, and the index, written last, says which of them make the checkpoint: whoever is
killed in between leaves the last whole one. Knows S3 and a folder; not when to store, nor for whom.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from covalent_cirro.runner.checkpoints.files import digest
from covalent_cirro.runner.checkpoints.index import File, Index, NotAnIndex, Owner, dump, parse
from covalent_cirro.runner.s3 import answers

if TYPE_CHECKING:
    from covalent_cirro.runner.s3.client import Client, Pending

_SIDE_BY_SIDE = 32
_RESTORE_TRIES = 3
_NAME_BYTES = 16


class Damaged(Exception):
    """What is stored is not what the index says."""


class Overtaken(Exception):
    """Another attempt wrote the index meanwhile; `CheckpointStore.stored` is its checkpoint now."""


class Superseded(Exception):
    """The attempt that wrote the index is a later one: this one must store nothing more."""


class CheckpointStore:
    """The checkpoint of one electron.

    Args:
        client: S3.
        bucket: Where.
        key: Key of ``index.json`` or ``files/<name>``, given that.
        owner: This attempt.
        wait: Waits for a request; raises `answers.S3Error`, also when there is no time left.

    Attributes:
        stored: The checkpoint that is in S3, as far as this attempt knows; `None` without one.
        left_over: Why files of an earlier checkpoint could not be deleted; the bucket's lifecycle rule takes them.
    """

    def __init__(
        self,
        client: Client,
        bucket: str,
        key: Callable[[str], str],
        owner: Owner,
        wait: Callable[[Pending], answers.Answer],
    ) -> None:
        self.stored: Index | None = None
        self.left_over: answers.S3Error | None = None
        self._client = client
        self._bucket = bucket
        self._key = key
        self._owner = owner
        self._wait = wait
        self._etag = ""

    def restore(self, folder: str) -> Index | None:
        """Fetch the checkpoint into a folder that is not there yet; it appears when it is whole.

        Returns:
            What was fetched; `None` if there is no checkpoint. The folder is made in any case.

        Raises:
            s3.S3Error, NotAnIndex, Damaged, OSError: It could not be fetched.
        """
        for tries_left in reversed(range(_RESTORE_TRIES)):
            self._read()
            beside = f"{folder}.{os.urandom(4).hex()}"
            os.mkdir(beside, 0o700)
            try:
                if self.stored is not None:
                    self._fetch(self.stored, beside)
            except answers.NotThere:
                # An earlier attempt that is not dead after all has written another one, and deleted this.
                if tries_left == 0:
                    raise
                continue
            os.rename(beside, folder)
            break
        return self.stored

    def _read(self) -> None:
        try:
            answer = self._wait(self._client.get(self._bucket, self._key("index.json")))
        except (answers.NotThere, answers.Refused):
            # Without s3:ListBucket, 403 is how S3 says that there is none.
            self.stored, self._etag = None, ""
        else:
            self.stored, self._etag = parse(answer.body), answer.etag

    def _fetch(self, index: Index, folder: str) -> None:
        for path in sorted(index.folders):
            os.makedirs(os.path.join(folder, path), exist_ok=True)
        for path in index.files:
            os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        begun: list[tuple[str, File, Pending]] = []
        for path, file in index.files.items():
            local = os.path.join(folder, path)
            if not file.size:
                with open(local, "xb"):
                    pass
                self._finish(local, file)
                continue
            if len(begun) >= _SIDE_BY_SIDE:
                self._take(folder, begun.pop(0))
            begun.append((path, file, self._client.get_file(self._bucket, self._key("files/" + file.name), local)))
        for each in begun:
            self._take(folder, each)
        for path, target in index.links.items():
            os.symlink(target, os.path.join(folder, path))

    def _take(self, folder: str, begun: tuple[str, File, Pending]) -> None:
        path, file, pending = begun
        self._wait(pending)
        local = os.path.join(folder, path)
        found = digest(local)
        if found != file.sha256:
            key = self._key("files/" + file.name)
            raise Damaged(
                f"s3://{self._bucket}/{key}, the file {path!r} of the checkpoint, was changed or cut short: its bytes "
                f"have the SHA-256 {found} instead of {file.sha256}"
            )
        self._finish(local, file)

    @staticmethod
    def _finish(local: str, file: File) -> None:
        os.chmod(local, file.mode)
        # Who looks for the latest file by its time finds the same one.
        os.utime(local, ns=(file.mtime_ns, file.mtime_ns))

    def store(
        self, files: Mapping[str, File], links: Mapping[str, str], folders: Iterable[str], sources: Mapping[str, str]
    ) -> Index:
        """Make these files the checkpoint.

        Args:
            files: By path; those without a name have to be sent.
            links: Targets by path.
            folders: All folders.
            sources: Where the bytes of the files without a name lie. No empty ones: they need no bytes.

        Returns:
            What is stored now.

        Raises:
            Overtaken, Superseded: Another attempt was there first.
            s3.S3Error: It could not be stored, or there is no time left. The last whole checkpoint is still there.
        """
        sent = {files[path].sha256: os.urandom(_NAME_BYTES).hex() for path in sources}
        named = {
            path: file._replace(name=sent[file.sha256]) if path in sources else file for path, file in files.items()
        }
        index = Index(self._owner, named, dict(links), tuple(folders))
        replaced = self.stored
        committing = False
        try:
            self._send({named[path].name: source for path, source in sources.items()})
            committing = True
            self._commit(index)
        except (answers.S3Error, Overtaken, Superseded) as error:
            if not committing or not isinstance(error, answers.S3Error):  # else the index may be there all the same
                with contextlib.suppress(answers.S3Error):
                    self._delete(sent.values())
            raise
        if replaced is not None:
            try:
                self._delete(replaced.names - index.names)
            except answers.S3Error as error:
                self.left_over = error
        return index

    def _send(self, sources: Mapping[str, str]) -> None:
        begun: list[Pending] = []
        for name, source in sources.items():
            if len(begun) >= _SIDE_BY_SIDE:
                self._wait(begun.pop(0))
            begun.append(self._client.put_file(self._bucket, self._key("files/" + name), source))
        for pending in begun:
            self._wait(pending)

    def _commit(self, index: Index) -> None:
        condition = {"If-Match": self._etag} if self._etag else {"If-None-Match": "*"}
        data = dump(index)
        try:
            answer = self._wait(self._client.put(self._bucket, self._key("index.json"), data, condition))
        except answers.S3Error as error:
            if error.status not in (404, 409, 412):
                raise
            # Another attempt, or our own PUT came through although its answer did not.
            self._read()
            if self.stored != index:
                owner = None if self.stored is None else self.stored.owner
                if owner is not None and owner.started > self._owner.started:
                    raise Superseded(f"attempt {owner.attempt} of job {owner.job_id} has begun") from error
                raise Overtaken from error
        else:
            self.stored, self._etag = index, answer.etag

    def remove(self) -> None:
        """Delete the checkpoint: nobody will need it again.

        Raises:
            s3.S3Error: Not all of it; the bucket's lifecycle rule takes the rest.
        """
        if self.stored is not None:
            self._wait(self._client.delete(self._bucket, self._key("index.json")))
            names, self.stored, self._etag = self.stored.names, None, ""
            self._delete(names)

    def _delete(self, names: Iterable[str]) -> None:
        begun: list[Pending] = []
        for name in names:
            if len(begun) >= _SIDE_BY_SIDE:
                self._wait(begun.pop(0))
            begun.append(self._client.delete(self._bucket, self._key("files/" + name)))
        for pending in begun:
            self._wait(pending)


__all__ = ["CheckpointStore", "Damaged", "NotAnIndex", "Overtaken", "Superseded"]
