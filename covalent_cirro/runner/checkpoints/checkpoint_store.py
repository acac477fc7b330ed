"""Checkpoints in S3: fetches one whole, stores one so that it appears at once or not at all, deletes what it replaces.

Files are stored under random names. The index is written last and names the files of the checkpoint, so an attempt that
is killed before leaves the last complete checkpoint. Knows S3 and a folder; it must not know when to store.
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
    from covalent_cirro.runner.s3.s3_client import Client, Pending

_SIDE_BY_SIDE = 32
_RESTORE_TRIES = 3
_NAME_BYTES = 16


class Damaged(Exception):
    """A stored file is not the one that the index names."""


class Overtaken(Exception):
    """Another attempt wrote the index meanwhile; `CheckpointStore.stored` is the checkpoint of that attempt now."""


class Superseded(Exception):
    """A later attempt has written the index: this attempt must store nothing more."""


class CheckpointStore:
    """The checkpoint of one electron.

    Args:
        client: S3.
        bucket: Name of the bucket.
        key: Returns the key of ``index.json`` or ``files/<name>``.
        owner: This attempt.
        wait: Waits for a request. Raises `answers.S3Error`, also when no time is left.

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
        """Fetch the checkpoint into a folder that does not exist yet. The folder appears when it is complete.

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
                # An earlier attempt that still runs has written another checkpoint and deleted the files of this one.
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
            # Without s3:ListBucket, S3 answers 403 for an object that does not exist.
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
        # Programs that look for the latest file by its time must find the same one.
        os.utime(local, ns=(file.mtime_ns, file.mtime_ns))

    def store(
        self, files: Mapping[str, File], links: Mapping[str, str], folders: Iterable[str], sources: Mapping[str, str]
    ) -> Index:
        """Store these files as the checkpoint.

        Args:
            files: Files by path; those without a name have to be sent.
            links: Targets of symbolic links, by path.
            folders: All folders.
            sources: Local paths of the files without a name. Empty files are left out: they need no bytes.

        Returns:
            What is stored now.

        Raises:
            Overtaken, Superseded: Another attempt wrote the index first.
            s3.S3Error: It could not be stored, or no time is left. The last complete checkpoint is still in S3.
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
            if not committing or not isinstance(error, answers.S3Error):  # else S3 may have the index
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
            # Another attempt wrote it, or our own PUT succeeded although its answer was lost.
            self._read()
            if self.stored != index:
                owner = None if self.stored is None else self.stored.owner
                if owner is not None and owner.started > self._owner.started:
                    raise Superseded(f"attempt {owner.attempt} of job {owner.job_id} has begun") from error
                raise Overtaken from error
        else:
            self.stored, self._etag = index, answer.etag

    def remove(self) -> None:
        """Delete the checkpoint: no attempt will need it again.

        Raises:
            s3.S3Error: Some files could not be deleted; the bucket's lifecycle rule deletes them.
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
