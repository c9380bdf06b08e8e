"""Frames: what clients send (§3) and what they are sent (§4), a class each."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from agentws.protocol.errors import ErrorBody
from agentws.protocol.identifiers import Id, given_id, required_id

OnDisconnect = Literal["continue", "cancel"]


class _ClientFrame(Struct, tag_field="action", forbid_unknown_fields=True):
    """What all frames from the client have in common.

    That it forbids what it does not know, costs a frame nothing where there is nothing of the kind;
    where there is, `decoding` tells what is ignored from what is misspelt.
    """


class _Traced(_ClientFrame, kw_only=True):
    """What asks for work that may be part of its sender's trace (§9)."""

    traceparent: str | None = None
    tracestate: str | None = None
    baggage: str | None = None


class Invoke(_Traced, tag="invoke"):
    """Run the agent on `payload`."""

    payload: Any = msgspec.field(default_factory=dict)
    invocation_id: Id | None = None
    session_id: Id | None = None
    background: bool | None = None
    on_disconnect: OnDisconnect | None = None

    def __post_init__(self) -> None:
        """Hold the ids to the rule of §2. Raises `InvocationError` (`invalid_request`)."""
        if self.invocation_id is not None:
            self.invocation_id = given_id("invocation_id", self.invocation_id)
        if self.session_id is not None:
            self.session_id = given_id("session_id", self.session_id)


class _AboutInvocation(_Traced):
    """What is asked of one invocation."""

    invocation_id: Id
    session_id: Id | None = None

    def __post_init__(self) -> None:
        """Hold the ids to the rule of §2. Raises `InvocationError` (`invalid_request`)."""
        self.invocation_id = required_id("invocation_id", self.invocation_id)
        if self.session_id is not None:
            self.session_id = given_id("session_id", self.session_id)


class GetInvocation(_AboutInvocation, tag="get_invocation"):
    """Ask for the record of an invocation, or what the agent's own handler says of it."""


class CancelInvocation(_AboutInvocation, tag="cancel_invocation"):
    """Cancel an invocation."""


class AttachInvocation(_ClientFrame, tag="attach_invocation"):
    """Replay the chunks after `starting_after` and follow the invocation to its end."""

    invocation_id: Id
    starting_after: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        """Hold the id to the rule of §2. Raises `InvocationError` (`invalid_request`)."""
        self.invocation_id = required_id("invocation_id", self.invocation_id)


class Ping(_ClientFrame, tag="ping"):
    """Ask for a pong."""


class Pong(_ClientFrame, tag="pong"):
    """Answer to the server's ping."""


ClientFrame = Invoke | GetInvocation | CancelInvocation | AttachInvocation | Ping | Pong
"""Every frame that is understood; the decoder, its diagnosis and the documents follow from it."""


def action_of(frame: ClientFrame | type[ClientFrame]) -> str:
    """Return the name of the action that a frame asks for."""
    return str(frame.__struct_config__.tag)


class Result(Struct, tag_field="type", tag="result"):
    """What a coroutine handler returned; with `action`, and no session, the answer to that one."""

    invocation_id: str
    payload: Raw
    session_id: str | UnsetType = UNSET
    action: str | UnsetType = UNSET


class StreamChunk(Struct, tag_field="type", tag="stream_chunk"):
    """One value that a generator handler yielded, numbered 1, 2, 3 and so on."""

    invocation_id: str
    session_id: str
    sequence_number: int
    payload: Raw


class StreamEnd(Struct, tag_field="type", tag="stream_end"):
    """The generator finished."""

    invocation_id: str
    session_id: str


class Accepted(Struct, tag_field="type", tag="accepted"):
    """A background invocation was taken on."""

    invocation_id: str
    session_id: str


class ErrorFrame(Struct, tag_field="type", tag="error"):
    """A failed invocation, or (with `action`) a refused action."""

    error: ErrorBody
    action: str | UnsetType = UNSET
    invocation_id: str | UnsetType = UNSET
    session_id: str | UnsetType = UNSET


Farewell = Literal["shutdown", "max_age"]


class GoingAway(Struct, tag_field="type", tag="going_away"):
    """The socket will be closed with 1001 within `grace_seconds`; reconnect and attach."""

    reason: Farewell
    grace_seconds: float


class ServerPing(Struct, tag_field="type", tag="ping"):
    """Keep-alive (§8)."""


class ServerPong(Struct, tag_field="type", tag="pong"):
    """Answer to a ping."""


ServerFrame = (
    Result | StreamChunk | StreamEnd | Accepted | ErrorFrame | GoingAway | ServerPing | ServerPong
)
