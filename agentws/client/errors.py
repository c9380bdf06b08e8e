"""How a use of the client fails, each failure with a sentence that says what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

_ADVICE: Final[Mapping[str, str]] = {
    "already_exists": "Attach to that invocation, or invoke with another id.",
    "already_finished": "Get its record for what came of it.",
    "cancelled": "Invoke again if its work is still wanted.",
    "input_not_expected": "Its question is closed; wait for the next one.",
    "lost": "Invoke again if its work is still wanted; some of it may be done.",
    "not_found": "It never was, belongs to another caller, or its retention is over; invoke anew.",
    "payload_too_large": "Send less, or raise the server's websocket.max_message_size.",
    "replay_gap": "Attach with on_gap='skip' to go on from what is left, or get the record.",
    "session_busy": "Attach to running_invocation_id, or invoke with if_session_busy='interrupt'.",
    "shutting_down": "Try again in a while, when another replica is there.",
    "timeout": "Ask for less at a time, or raise the server's invocations.timeout.",
}

_ADVICE_BY_SOURCE: Final[Mapping[str, str]] = {
    "user": "Correct what was asked.",
    "upstream": "The agent failed; its log says why.",
    "platform": "The server's log says why.",
}

_AGAIN: Final = "Try again in a while."


class InvocationFailed(Exception):
    """An invocation failed, or the server refused what was asked.

    `code`, `message`, `retryable` (whether the same may succeed later) and `source` (`user`,
    `upstream` or `platform`) are the server's; `error` is its whole object, in which some codes
    have more: `running_invocation_id`, `superseded_by`.
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error)
        self.error = dict(error)
        self.code = str(error.get("code", "unknown"))
        self.message = str(error.get("message", ""))
        self.retryable = error.get("retryable") is True
        self.source = str(error.get("source", "platform"))

    @property
    def advice(self) -> str:
        """What to do about it, in a sentence."""
        if self.code in _ADVICE:
            return _ADVICE[self.code]
        return _AGAIN if self.retryable else _ADVICE_BY_SOURCE.get(self.source, _AGAIN)

    def __str__(self) -> str:
        return f"{self.code}: {self.message.rstrip('.') or 'no reason was given'}. {self.advice}"


class Cancelled(InvocationFailed):
    """The invocation was cancelled; `reason` is `client`, `deserted` or `superseded`."""

    @property
    def reason(self) -> str | None:
        """Why; None where the server does not say."""
        reason = self.error.get("reason")
        return None if reason is None else str(reason)


class Lost(InvocationFailed):
    """The invocation is gone: its replica died, or the server forgot it."""


class ReplayGap(InvocationFailed):
    """Chunks that were still to be read are no longer held by the server."""

    @property
    def first_available(self) -> int:
        """The number of the first chunk that is held."""
        return int(self.error["first_available"])


_CLASSES: Final[Mapping[str, type[InvocationFailed]]] = {
    "cancelled": Cancelled,
    "lost": Lost,
    "replay_gap": ReplayGap,
}


def failure_of(error: Mapping[str, Any]) -> InvocationFailed:
    """Return what to raise for an error object of the server's."""
    return _CLASSES.get(str(error.get("code")), InvocationFailed)(error)


_CONNECTION_ADVICE: Final[Mapping[int, str]] = {
    400: "Correct the query or the headers that are given to connect().",
    401: "Give connect() a token or an api_key that the server takes.",
    403: "Use credentials that may do this, or have this origin allowed by the server.",
    404: "Check the URL: the framed socket is at /invocations_ws/ws.",
    426: "Check the URL, and what stands before the server: the upgrade does not reach it.",
}

_REACH: Final = "Check the URL and that the server runs; more patience is connect()'s to give."


class ConnectionFailed(Exception):
    """The server cannot be reached, or will not have this client.

    `reason` is a text; `status` the HTTP status of a refused handshake, None where there was none.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason, status)
        self.reason = reason
        self.status = status

    def again(self) -> "ConnectionFailed":
        """Return the same failure for another who has to be told of it."""
        copy = ConnectionFailed(self.reason, self.status)
        copy.__cause__ = self.__cause__
        return copy

    @property
    def advice(self) -> str:
        """What to do about it, in a sentence."""
        return _CONNECTION_ADVICE.get(self.status or 0, _REACH)

    def __str__(self) -> str:
        return f"{self.reason}. {self.advice}"


def refused(status: int) -> ConnectionFailed:
    """Return the failure that a handshake was answered with this status."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "no status of HTTP"
    return ConnectionFailed(f"The server answered the handshake with {status} ({phrase})", status)


class Closed(Exception):
    """The client was closed, or the run detached, before this came to its end."""
