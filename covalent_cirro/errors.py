"""The errors of covalent-cirro. The class names who has to act; the message says what, which id, why, and what to do.

No I/O. Errors are made at four edges only: `aws/sessions.py` (what AWS said), `local_files.py` (what this machine
said), `cirro.py` (what Covalent shows), `cli/`.
"""

from __future__ import annotations


class CirroError(Exception):
    """Base of all errors made here. ``str(error)`` is all that Covalent shows of it.

    Attributes:
        passes: The user can put it right meanwhile: who waits for a job goes on then (`electron/patience.py`).
    """

    passes = False


class SettingsError(CirroError, ValueError):
    """A setting that cannot work: unknown, of a wrong type, or an impossible need. Nothing was paid for."""


class NoCredentials(SettingsError):
    """The credentials file or profile that a setting names is not there."""

    passes = True


class AwsError(CirroError):
    """AWS refused or could not be reached.

    Attributes:
        operation: ``"batch:SubmitJob"``.
        code: AWS's error code, or the botocore exception's name where no answer came.
        retryable: Throttled, a server error, or a broken connection: the same call may succeed later.
        throttled: AWS refused the call for its rate, so it certainly had no effect.
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
    """AWS takes no call of ours, whatever it is about: credentials expired or are unknown, or the clock is wrong.

    Who has nothing to lose fails at once. Who waits for a job goes on (`electron/patience.py`): the user can mend it.
    """

    passes = True


class NotFound(AwsError):
    """The bucket, queue, job, definition, stack or object that was named does not exist."""


class LocalFileError(CirroError):
    """A file of this machine could not be written or read: no room, no permission, a fault of the disk.

    Attributes:
        path: The file, or the folder that it was to be in.
    """

    def __init__(self, message: str, *, path: str, passes: bool) -> None:
        super().__init__(message)
        self.path = path
        self.passes = passes


class TooLarge(CirroError):
    """An object in S3 is larger than a well-formed one of its kind; it was not read."""

    def __init__(self, bucket: str, key: str, size: int, limit: int) -> None:
        super().__init__(
            f"s3://{bucket}/{key} has {size} bytes, more than the {limit} that a well-formed one has. It was not read."
        )


class DigestMismatch(CirroError):
    """A stored blob does not have the bytes that its name says."""


class OutcomeError(CirroError):
    """The outcome of a job is malformed, of another format, or of another call."""


class CallError(CirroError):
    """A call, or what stands in its place, is malformed or of another format."""


class JobLost(CirroError):
    """AWS Batch no longer knows the job, and it left no outcome."""


class PollFailed(CirroError):
    """The state of jobs could not be learnt for too long, or cannot be learnt at all."""


class HostError(CirroError):
    """The Covalent server here is not one that this version understands."""


class StackError(CirroError):
    """A CloudFormation stack could not be made, or is not one of ours."""


class EmulatorError(CirroError):
    """The emulated AWS could not start, or is not running."""


class NoSuchElectron(CirroError):
    """No dispatch or electron has the name that was given, or several have."""


class Declined(CirroError):
    """Who was asked said no: what was to be done is not done."""


class ImageError(CirroError):
    """An image of the jobs could not be built or pushed, or is not one that jobs can run in."""


class CheckpointError(CirroError):
    """A checkpoint could not be fetched or stored; the last whole one, if there is one, is still there."""
