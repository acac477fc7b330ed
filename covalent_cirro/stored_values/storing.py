"""`stored`: puts a value, a file or a folder into the bucket once, and gives a handle of it."""

from __future__ import annotations

import os
from typing import Any

from covalent_cirro.contract.stored_references import StoredReference
from covalent_cirro.electron import cache_folder
from covalent_cirro.errors import AccessDenied, CirroError, NoCredentials, NotFound, SettingsError
from covalent_cirro.stored_values import packing
from covalent_cirro.stored_values.buckets import Bucket, settings_of
from covalent_cirro.stored_values.handles import Stored
from covalent_cirro.stored_values.progress_bar import progress

_NOTHING: Any = object()


def stored(value: Any = _NOTHING, *, path: str | os.PathLike[str] | None = None, executor: Any = None) -> Stored:
    """Put a value, a file or a folder into the bucket once, and return a handle of some bytes that stands for it.

    The handle goes through Covalent in place of the value, which Covalent would copy for each electron and keep in
    memory. An electron that is called with a handle, also inside of lists, dicts and other objects, gets the value; of
    a file or folder, the path of a copy that it can read. This holds for every executor.

    The bytes are stored under their digest: what is there is not uploaded again, and handles of the same bytes are
    equal. While electrons wait or run that need it, it does not expire.

    Args:
        value: What to pickle and store.
        path: File or folder to store, instead of a value. Links in a folder are followed.
        executor: The `CirroBatchExecutor` whose account, bucket and prefix are used. Default: that of
            ``[executors.cirro]`` in Covalent's config.

    Returns:
        The handle.

    Raises:
        StoredError: It cannot be pickled, is not there, or changes while it is stored.
        SettingsError: There is both a value and a path, or none; or a setting is wrong.
        AwsError: It cannot be stored; the message has AWS's words.

    Example:
        >>> data = stored(np.load("volume.npy"))
        >>> ct.dispatch(sweep)(configs, data)
    """
    if (value is _NOTHING) == (path is None):
        raise SettingsError("stored() takes one thing to store: a value, or path= of a file or folder")
    if isinstance(value, Stored):
        return value
    settings = settings_of(executor)
    folder = cache_folder.scratch(settings.cache_dir)
    with (
        packing.packed_value(value, folder) if path is None else packing.packed_path(os.fspath(path), folder) as packed
    ):
        try:
            bucket = Bucket(settings, settings.s3_bucket_name, settings.key_prefix)
            with progress(f"storing {packed.label}", packed.blob.size) as sent:
                bucket.ensure(packed.blob, packed.path, sent)
        except (AccessDenied, NoCredentials, NotFound) as error:
            raise _advised(error) from error
    return Stored(
        StoredReference(bucket.name, bucket.prefix, packed.kind, packed.name, packed.label, packed.blob, packed.within)
    )


def _advised(error: CirroError) -> CirroError:
    """The error with a word on a local stack, which this process does not use and may have been meant to."""
    from covalent_cirro.local import nearest

    try:
        found = nearest.find().running
    except CirroError:
        found = None
    if found is not None and not os.environ.get("AWS_ENDPOINT_URL"):
        advice = f"A local stack runs in {found.state_dir}: `cirro local exec` runs a program that uses it."
        error.args = (f"{error} {advice}", *error.args[1:])
    return error
