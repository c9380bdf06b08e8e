"""Errors: the table of codes, and what a client sees of a failure (§7)."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType

Source = Literal["user", "upstream", "platform"]

PlatformCode = Literal[
    "too_many_invocations", "too_many_connections", "shutting_down", "store_unavailable", "lost"
]

STATUS: Final[Mapping[str, int]] = {
    "invalid_json": 400,
    "invalid_message": 400,
    "invalid_action": 400,
    "invalid_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "upgrade_required": 426,
    "already_exists": 409,
    "already_finished": 409,
    "cancelled": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "too_many_invocations": 429,
    "replay_gap": 410,
    "internal_error": 500,
    "not_implemented": 501,
    "shutting_down": 503,
    "store_unavailable": 503,
    "too_many_connections": 503,
    "timeout": 504,
    "lost": 502,
}

_RETRYABLE: Final = {429, 503, 504}


class InvocationError(Exception):
    """A failure that the client is meant to see: a code, a message, and an HTTP status.

    `status` is 400 to 599; without one it is the code's own status in §7, else 400.
    Raises `ValueError` for a status outside that range.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        if status is not None and not 400 <= status <= 599:
            raise ValueError(f"status must be between 400 and 599, not {status}")
        self.code = _encodable(code)
        self.message = _encodable(message)
        self.status = STATUS.get(self.code, 400) if status is None else status
        super().__init__(self.code, self.message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class PlatformError(InvocationError):
    """A failure of the daemon's own, or of its backend's.

    An agent may take the same code, and raises an `InvocationError` with it. So the class tells
    whose fault it is, and the code does not (§7).
    """

    def __init__(self, code: PlatformCode, message: str) -> None:
        super().__init__(code, message)


def shutting_down() -> PlatformError:
    """Return the answer to what comes too late, and the reason of what is ended for it."""
    return PlatformError("shutting_down", "The server is shutting down")


def cancelled(message: str = "The invocation was cancelled") -> InvocationError:
    """Return the reason of an end that somebody wished for."""
    return InvocationError("cancelled", message)


def already_exists() -> InvocationError:
    """Return the answer to an invoke whose id is taken (§5)."""
    return InvocationError("already_exists", "An invocation with this id exists")


def lost() -> PlatformError:
    """Return what is told of an invocation whose replica is gone (§7)."""
    return PlatformError("lost", "The replica that ran the invocation is gone")


def internal_error() -> InvocationError:
    """Return all that a client sees of an exception."""
    return InvocationError("internal_error", "Internal server error")


class ReplayGap(InvocationError):
    """Chunks that a listener asked for are no longer held (§5)."""

    def __init__(self, first_available: int) -> None:
        super().__init__("replay_gap", "Some of the chunks asked for are no longer held")
        self.first_available = first_available


def _encodable(text: object) -> str:
    """Return `text` as a string that UTF-8 can hold: an agent may have cut an emoji in half."""
    return str(text).encode("utf-8", "replace").decode()


class ErrorBody(Struct):
    """The error object of frames and HTTP envelopes (§6)."""

    code: str
    message: str
    retryable: bool
    source: Source
    first_available: int | UnsetType = UNSET


def error_body(error: InvocationError) -> ErrorBody:
    """Translate an error to what the client sees of it."""
    return ErrorBody(
        code=error.code,
        message=error.message,
        retryable=error.status in _RETRYABLE,
        source=error_source(error),
        first_available=error.first_available if isinstance(error, ReplayGap) else UNSET,
    )


def error_source(error: InvocationError) -> Source:
    """Tell whose fault an error is: the caller's, the handler's, or the daemon's (§7)."""
    if isinstance(error, PlatformError):
        return "platform"
    return "upstream" if error.status >= 500 else "user"
