"""Every failure that a caller can tell apart: one line that names the file, what is wrong and what to do.

The C++ core returns errors as values; the bindings raise the class of the same code. `code` is stable text.
"""

from __future__ import annotations


class EdgeRuntimeError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: stable text, such as "never_fits".
        required_bytes: for `NeverFitsError` the smallest budget that would do, else 0.
    """

    code = "error"

    def __init__(self, message: str, required_bytes: int = 0) -> None:
        super().__init__(message)
        self.required_bytes = required_bytes


class InvalidArgumentError(EdgeRuntimeError):
    """An argument is out of range; nothing was done."""

    code = "invalid_argument"


class NotFoundError(EdgeRuntimeError):
    """A file, node or handle does not exist."""

    code = "not_found"


class StorageError(EdgeRuntimeError):
    """The operating system failed a call."""

    code = "io"


class TruncatedError(EdgeRuntimeError):
    """A file ends before its header says it does."""

    code = "truncated"


class BadFormatError(EdgeRuntimeError):
    """A file is not of our format, or has a value that the format forbids."""

    code = "bad_format"


class UnsupportedError(EdgeRuntimeError):
    """A version, dtype, kind or engine that this build does not know."""

    code = "unsupported"


class ChecksumError(EdgeRuntimeError):
    """Bytes differ from their checksum, after one re-read."""

    code = "checksum"


class NeverFitsError(EdgeRuntimeError):
    """The budget is too small whatever is evicted; `required_bytes` would do."""

    code = "never_fits"


class BusyError(EdgeRuntimeError):
    """Leases in use, or another command that changes the bundle, are in the way; retry."""

    code = "busy"


class BlockedError(EdgeRuntimeError):
    """The node is blocked or removed."""

    code = "blocked"


class CancelledError(EdgeRuntimeError):
    """The lease was released or cancelled while waiting."""

    code = "cancelled"


class StaleHandleError(EdgeRuntimeError):
    """A handle whose lease is gone."""

    code = "stale_handle"


class ContextOverflowError(EdgeRuntimeError):
    """A prompt does not fit in what is left of the context."""

    code = "context_overflow"


class TokenizerMismatchError(EdgeRuntimeError):
    """The tokenizer is not the one that the anchor was trained with."""

    code = "tokenizer_mismatch"


# In the order of edge::ErrorCode, which starts at 1: the bindings index it.
BY_CODE: tuple[type[EdgeRuntimeError], ...] = (
    InvalidArgumentError,
    NotFoundError,
    StorageError,
    TruncatedError,
    BadFormatError,
    UnsupportedError,
    ChecksumError,
    NeverFitsError,
    BusyError,
    BlockedError,
    CancelledError,
    StaleHandleError,
)
