"""Errors: the table of codes, and what a client sees of a failure (§7)."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType

Source = Literal["user", "upstream", "platform"]

PlatformCode = Literal[
    "too_many_invocations",
    "too_many_inputs",
    "too_many_connections",
    "shutting_down",
    "store_unavailable",
    "lost",
]
CancelReason = Literal["client", "deserted", "superseded"]
"""Why an invocation was cancelled: somebody asked for it, nobody listened, another took over."""

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
    "session_busy": 409,
    "input_not_expected": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "too_many_invocations": 429,
    "too_many_inputs": 429,
    "replay_gap": 410,
    "internal_error": 500,
    "not_implemented": 501,
    "import_failed": 503,
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


class Cancelled(InvocationError):
    """The end of an invocation that somebody wished for (§5).

    `superseded_by` is the invocation that took over, where that is the reason.
    """

    def __init__(
        self, message: str, reason: CancelReason, superseded_by: str | None = None
    ) -> None:
        super().__init__("cancelled", message)
        self.reason: CancelReason = reason
        self.superseded_by = superseded_by


def cancelled() -> Cancelled:
    """Return the reason of what a client has cancelled."""
    return Cancelled("The invocation was cancelled", "client")


def deserted() -> Cancelled:
    """Return the reason of what is cancelled because nobody listens."""
    return Cancelled("Nobody listened to the invocation any more", "deserted")


def superseded(invocation_id: str) -> Cancelled:
    """Return the reason of what another invocation of the same session has interrupted."""
    message = "Another invocation of the session took over"
    return Cancelled(message, "superseded", invocation_id)


class SessionBusy(InvocationError):
    """An invoke came to nothing, because its session has a running invocation already (§5)."""

    def __init__(self, running_invocation_id: str) -> None:
        super().__init__("session_busy", "The session has a running invocation")
        self.running_invocation_id = running_invocation_id


def already_finished(status: str) -> InvocationError:
    """Return the answer to what is asked of an invocation that has ended, in that status."""
    return InvocationError("already_finished", f"The invocation has already ended: {status}")


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
    running_invocation_id: str | UnsetType = UNSET
    reason: CancelReason | UnsetType = UNSET
    superseded_by: str | UnsetType = UNSET


def error_body(error: InvocationError) -> ErrorBody:
    """Translate an error to what the client sees of it."""
    body = ErrorBody(
        code=error.code,
        message=error.message,
        retryable=error.status in _RETRYABLE,
        source=error_source(error),
    )
    match error:
        case ReplayGap():
            body.first_available = error.first_available
        case SessionBusy():
            body.running_invocation_id = error.running_invocation_id
        case Cancelled():
            body.reason = error.reason
            body.superseded_by = error.superseded_by or UNSET
    return body


def error_source(error: InvocationError) -> Source:
    """Tell whose fault an error is: the caller's, the handler's, or the daemon's (§7)."""
    if isinstance(error, PlatformError):
        return "platform"
    return "upstream" if error.status >= 500 else "user"
