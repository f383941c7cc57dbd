"""Every error flybackup raises on purpose, with its exit code.

    FlybackupError                   1   failed
    ├─ ConfigError                   2   usage or configuration
    ├─ RepositoryNotFoundError      10
    ├─ BusyError                    11
    ├─ WrongKeyError                12
    ├─ UnsupportedFormatError       13
    ├─ StoreError                   20   unreachable or refused
    │   ├─ ObjectNotFoundError
    │   └─ ObjectExistsError
    ├─ IntegrityError               21   bytes are not what was written
    ├─ SourceError                  22   the source could not be captured, or a target not written
    ├─ VerificationError            23   restored, but verification failed
    └─ RefusedError                 24   refused by a safety rule

Exit code 3 (partial) is not an error: the result of a backup of several sources carries it.

A message says what happened, `hint` what to do next. Neither ever holds a secret: they go to logs.
"""


class FlybackupError(Exception):
    """Base of all errors that a user can do something about.

    Args:
        message: What happened, in words.
        hint: What to do next; empty where the message says it all.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(FlybackupError):
    """The command line, environment or configuration file is wrong."""

    exit_code = 2


class RepositoryNotFoundError(FlybackupError):
    """The store holds no repository."""

    exit_code = 10


class BusyError(FlybackupError):
    """Somebody else is doing what may be done by one at a time."""

    exit_code = 11


class WrongKeyError(FlybackupError):
    """The passphrase or key does not open this, or a stronger key is needed."""

    exit_code = 12


class UnsupportedFormatError(FlybackupError):
    """The repository was written by a format this version does not know."""

    exit_code = 13


class StoreError(FlybackupError):
    """The object storage is unreachable, refused, or behaved against its contract.

    Args:
        message: What happened, in words.
        hint: What to do next.
        retryable: The same request may well succeed in a moment. The outcome of a write is then unknown.
    """

    exit_code = 20

    def __init__(self, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


class ObjectNotFoundError(StoreError):
    """No object has this key."""


class ObjectExistsError(StoreError):
    """`create` found the key taken."""


class IntegrityError(FlybackupError):
    """Stored bytes are not what was written: never retried, never skipped silently.

    Args:
        message: What is wrong with the bytes.
        key: The store key of the damaged object, empty where it is not known yet.
    """

    exit_code = 21

    def __init__(self, message: str, *, key: str = "", hint: str = "") -> None:
        super().__init__(f"{key}: {message}" if key else message, hint=hint)
        self.key = key
        self.problem = message


class SourceError(FlybackupError):
    """A source could not be captured, or its target could not be written or probed."""

    exit_code = 22


class VerificationError(FlybackupError):
    """What was restored does not match the snapshot's facts."""

    exit_code = 23


class RefusedError(FlybackupError):
    """Doing it could destroy something; a safety rule said no."""

    exit_code = 24
