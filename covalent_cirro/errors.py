"""The errors of covalent-cirro. A message says what failed, which id, why, and what to do next.

Errors of others are converted in four places only: `aws/sessions.py` (AWS), `local_files.py` (the operating system),
`cirro.py` (to errors that Covalent shows) and `cli/` (to messages of a command).
"""

from __future__ import annotations


class CirroError(Exception):
    """Base of all errors of this package. Covalent shows ``str(error)`` and nothing else.

    Attributes:
        passes: Whether the user can fix the cause while an electron waits, which then goes on
            (`electron/patience.py`).
    """

    passes = False


class SettingsError(CirroError, ValueError):
    """A setting is unknown, has a wrong type, or asks for something impossible. Nothing was submitted."""


class NoCredentials(SettingsError):
    """The credentials file or profile that a setting names does not exist."""

    passes = True


class AwsError(CirroError):
    """AWS refused or could not be reached.

    Attributes:
        operation: Service and operation, ``"batch:SubmitJob"``.
        code: Error code of AWS, or the name of botocore's exception if no answer came.
        retryable: Whether the same call may succeed later: throttled, a server error, or a broken connection.
        throttled: Whether AWS refused the call for its rate, so that the call had no effect.
    """

    def __init__(
        self, message: str, *, operation: str, code: str, retryable: bool = False, throttled: bool = False
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.code = code
        self.retryable = retryable or throttled
        self.throttled = throttled


class AccessDenied(AwsError):
    """Credentials are missing, expired, or do not allow the call."""


class Unsigned(AccessDenied):
    """AWS refuses every call: credentials have expired or are unknown, or the clock is wrong.

    Commands fail at once. An electron whose job runs goes on waiting (`electron/patience.py`): the user can fix this.
    """

    passes = True


class NotFound(AwsError):
    """The bucket, queue, job, definition, stack or object that was named does not exist."""


class ElectronFailed(CirroError):
    """The value of an electron that failed, if its executor has ``on_error="return"``.

    ``str(error)`` says what `cirro show` says: why it failed, and what to do. A lattice goes on with it::

        return max((each for each in trained if not isinstance(each, ElectronFailed)), key=accuracy)
    """


class LocalFileError(CirroError):
    """A file of this machine could not be written or read: no room, no permission, or a fault of the disk.

    Attributes:
        path: The file, or its folder.
    """

    def __init__(self, message: str, *, path: str, passes: bool) -> None:
        super().__init__(message)
        self.path = path
        self.passes = passes


class TooLarge(CirroError):
    """An object in S3 is larger than the limit for its kind; it was not read."""

    def __init__(self, bucket: str, key: str, size: int, limit: int) -> None:
        super().__init__(
            f"s3://{bucket}/{key} has {size} bytes, more than the {limit} that a well-formed one has. It was not read."
        )


class DigestMismatch(CirroError):
    """A stored blob has other bytes than its name says."""


class OutcomeError(CirroError):
    """The outcome of a job is malformed, of another format, or of another call."""


class CallError(CirroError):
    """A call, or the ``reused.json`` in its place, is malformed or of another format."""


class JobLost(CirroError):
    """AWS Batch no longer knows the job, and there is no outcome."""


class PollFailed(CirroError):
    """AWS Batch did not answer about jobs for too long, or refuses to."""


class HostError(CirroError):
    """This version does not support the version of the Covalent server."""


class StackError(CirroError):
    """A CloudFormation stack could not be made, or is not one of a deployment."""


class EmulatorError(CirroError):
    """The emulated AWS could not start, or is not running."""


class NoSuchElectron(CirroError):
    """The given name fits no dispatch or electron, or several."""


class Declined(CirroError):
    """The user answered no: nothing was done."""


class ImageError(CirroError):
    """An image of the jobs could not be built or pushed, or is not one that jobs can run in."""


class CheckpointError(CirroError):
    """A checkpoint could not be fetched or stored; the last complete one, if there is one, is still in S3."""


class StoredError(CirroError):
    """A stored value cannot be made, or is not in the bucket any more."""


class SearchError(CirroError):
    """A search cannot begin, or cannot go on."""


class ServingError(CirroError):
    """A service cannot be deployed as it was asked for, or AWS took a change of it back."""


class ModelError(CirroError):
    """A model cannot be registered, or there is no such model, version or file."""
