"""Frames: what clients send (§3) and what they are sent (§4), a class each."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from agentws.protocol.errors import ErrorBody
from agentws.protocol.events import Awaiting, Closed, Question
from agentws.protocol.identifiers import Id, given_id, required_id
from agentws.protocol.records import ShownStatus

OnDisconnect = Literal["continue", "cancel"]
IfExists = Literal["refuse", "attach"]
IfSessionBusy = Literal["parallel", "reject", "interrupt"]

MOST_LISTED: Final = 100
"""How many invocations a page of a list holds at most."""


class _ClientFrame(Struct, tag_field="action", forbid_unknown_fields=True):
    """What all frames from the client have in common.

    That it forbids what it does not know, costs a frame nothing where there is nothing of the kind;
    where there is, `decoding` tells what is ignored from what is misspelt.
    """


class _Answered(_ClientFrame, kw_only=True):
    """What is answered, under the sender's own name for it where it has one."""

    query_id: Id | None = None

    def __post_init__(self) -> None:
        """Hold all ids to the rule of §2. Raises `InvocationError` (`invalid_request`)."""
        if self.query_id is not None:
            self.query_id = given_id("query_id", self.query_id)


class _Traced(_Answered, kw_only=True):
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
    if_exists: IfExists | None = None
    if_session_busy: IfSessionBusy | None = None

    def __post_init__(self) -> None:
        """See `_Answered`."""
        if self.invocation_id is not None:
            self.invocation_id = given_id("invocation_id", self.invocation_id)
        if self.session_id is not None:
            self.session_id = given_id("session_id", self.session_id)
        if self.query_id is not None:
            self.query_id = given_id("query_id", self.query_id)


class _AboutInvocation(_Traced):
    """What is asked of one invocation."""

    invocation_id: Id
    session_id: Id | None = None

    def __post_init__(self) -> None:
        """See `_Answered`."""
        self.invocation_id = required_id("invocation_id", self.invocation_id)
        if self.session_id is not None:
            self.session_id = given_id("session_id", self.session_id)
        if self.query_id is not None:
            self.query_id = given_id("query_id", self.query_id)


class GetInvocation(_AboutInvocation, tag="get_invocation"):
    """Ask for the record of an invocation, or what the agent's own handler says of it."""


class CancelInvocation(_AboutInvocation, tag="cancel_invocation"):
    """Cancel an invocation."""


class AttachInvocation(_Answered, tag="attach_invocation"):
    """Replay the chunks after `starting_after` and follow the invocation to its end."""

    invocation_id: Id
    starting_after: Annotated[int, msgspec.Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        """See `_Answered`."""
        super().__post_init__()
        self.invocation_id = required_id("invocation_id", self.invocation_id)


class DetachInvocation(_ClientFrame, tag="detach_invocation"):
    """Follow an invocation no longer; this is not answered."""

    invocation_id: Id

    def __post_init__(self) -> None:
        """See `_Answered`."""
        self.invocation_id = required_id("invocation_id", self.invocation_id)


class SendInput(_Answered, tag="send_input"):
    """Say something to a running invocation, or answer its question `request_id`."""

    invocation_id: Id
    payload: Any = msgspec.field(default_factory=dict)
    request_id: Id | None = None
    input_id: Id | None = None

    def __post_init__(self) -> None:
        """See `_Answered`."""
        super().__post_init__()
        self.invocation_id = required_id("invocation_id", self.invocation_id)
        self.request_id = given_id("request_id", self.request_id)
        self.input_id = given_id("input_id", self.input_id)


class ListInvocations(_Answered, tag="list_invocations"):
    """Ask for a page of the sender's own invocations, the newest first."""

    session_id: Id | None = None
    status: ShownStatus | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_LISTED)] | None = None
    after: str | None = None

    def __post_init__(self) -> None:
        """See `_Answered`."""
        super().__post_init__()
        self.session_id = given_id("session_id", self.session_id)


class Ping(_ClientFrame, tag="ping"):
    """Ask for a pong."""


class Pong(_ClientFrame, tag="pong"):
    """Answer to the server's ping."""


ClientFrame = (
    Invoke
    | GetInvocation
    | CancelInvocation
    | AttachInvocation
    | DetachInvocation
    | SendInput
    | ListInvocations
    | Ping
    | Pong
)
"""Every frame that is understood; the decoder, its diagnosis and the documents follow from it."""


def action_of(frame: ClientFrame | type[ClientFrame]) -> str:
    """Return the name of the action that a frame asks for."""
    return str(frame.__struct_config__.tag)


class Result(Struct, tag_field="type", tag="result"):
    """What a coroutine handler returned."""

    invocation_id: str
    payload: Raw
    session_id: str


class ActionResult(Struct, tag_field="type", tag="result"):
    """The answer to an action that asks about an invocation."""

    invocation_id: str
    payload: Raw
    action: str
    query_id: str | UnsetType = UNSET


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


class InputRequired(Struct, tag_field="type", tag="input_required"):
    """The handler asks; `schema` is a JSON Schema of the answer. Numbered among the chunks."""

    invocation_id: str
    session_id: str
    sequence_number: int
    request_id: str
    payload: Raw
    schema: Raw | UnsetType = UNSET


class InputReceived(Struct, tag_field="type", tag="input_received"):
    """A question was answered, or is `withdrawn`. Numbered among the chunks."""

    invocation_id: str
    session_id: str
    sequence_number: int
    request_id: str
    withdrawn: bool | UnsetType = UNSET


class Accepted(Struct, tag_field="type", tag="accepted"):
    """An invocation was taken on, in the background or under a `query_id`."""

    invocation_id: str
    session_id: str
    query_id: str | UnsetType = UNSET


class Invocations(Struct, tag_field="type", tag="invocations"):
    """A page of the client's own invocations; `next` is the cursor of the page after it."""

    invocations: list[Raw]
    next: str | UnsetType = UNSET
    query_id: str | UnsetType = UNSET


class ErrorFrame(Struct, tag_field="type", tag="error"):
    """A failed invocation, or (with `action`) a refused action."""

    error: ErrorBody
    action: str | UnsetType = UNSET
    invocation_id: str | UnsetType = UNSET
    session_id: str | UnsetType = UNSET
    query_id: str | UnsetType = UNSET


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
    Result
    | ActionResult
    | StreamChunk
    | StreamEnd
    | InputRequired
    | InputReceived
    | Accepted
    | Invocations
    | ErrorFrame
    | GoingAway
    | ServerPing
    | ServerPong
)


def event_frame(
    event: Question | Closed, invocation_id: str, session_id: str, number: int
) -> InputRequired | InputReceived:
    """Return what followers are sent of an event."""
    if isinstance(event, Closed):
        return InputReceived(invocation_id, session_id, number, event.request_id, event.withdrawn)
    return InputRequired(
        invocation_id, session_id, number, event.request_id, event.payload, event.schema
    )


def question_frame(question: Awaiting, invocation_id: str, session_id: str) -> InputRequired:
    """Return what is sent of an open question to whoever is not sent its place in the log."""
    return InputRequired(
        invocation_id,
        session_id,
        question.sequence_number,
        question.request_id,
        question.payload,
        question.schema,
    )
