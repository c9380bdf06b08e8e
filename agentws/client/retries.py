"""What to make of an answer: pure decisions, which know no socket and no clock."""

from enum import Enum, auto
from typing import Final, Literal

Kind = Literal["invoke", "attach", "cancel", "get", "input", "list"]

_RETRYABLE: Final = {"store_unavailable", "shutting_down"}
"""Refusals of what the client repeats by itself that it bears with."""

_DONE: Final = {"cancel": {"already_finished"}, "input": {"already_finished", "input_not_expected"}}
"""Refusals by which a repetition learns that what it asks for has been done."""

_FINAL: Final = {400, 404, 426}
_CREDENTIALS: Final = {401, 403}


class Refused(Enum):
    """What follows from an error in answer to something."""

    FAIL = auto()
    """It is told to the user."""

    REPEAT = auto()
    """It is asked again in a while."""

    DONE = auto()
    """What was asked for has been done by an earlier repetition."""

    LOST = auto()
    """There was an invocation, and the server has forgotten it."""


def judge_refusal(kind: Kind, code: str | None, *, repeated: bool, known: bool = False) -> Refused:
    """Decide on an error with this code; `known` tells whether the invocation was heard of."""
    if kind == "attach" and code == "not_found":
        return Refused.LOST if known else Refused.FAIL
    if repeated and code in _RETRYABLE:
        return Refused.REPEAT
    if repeated and code in _DONE.get(kind, ()):
        return Refused.DONE
    return Refused.FAIL


class Handshake(Enum):
    """What follows from a handshake that failed."""

    FINAL = auto()
    """There is no use in trying again."""

    AT_ONCE = auto()
    """A fresh token may do."""

    LATER = auto()
    """It may be better in a while."""


def judge_handshake(status: int | None, *, can_refresh: bool) -> Handshake:
    """Decide on a handshake that was answered with this status, None for not at all.

    `can_refresh` tells whether there is a fresh token that was not tried yet.
    """
    if status in _CREDENTIALS:
        return Handshake.AT_ONCE if can_refresh else Handshake.FINAL
    return Handshake.FINAL if status in _FINAL else Handshake.LATER


class Opening(Enum):
    """What is said of a run on a new socket."""

    NOTHING = auto()
    INVOKE = auto()
    INVOKE_AGAIN = auto()
    """Invoke, or attach if the first invoke had arrived."""

    ATTACH = auto()


def opening_of(*, known: bool, sent: bool, over: bool) -> Opening:
    """Decide how a run goes on.

    `known` tells whether the server is known to have the invocation, `sent` whether it was invoked
    on some socket, `over` whether there is nothing more to hear of it.
    """
    if over:
        return Opening.NOTHING
    if known:
        return Opening.ATTACH
    return Opening.INVOKE_AGAIN if sent else Opening.INVOKE
