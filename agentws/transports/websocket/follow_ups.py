"""What a framed socket asks of invocations that exist: of their state, their end, their log."""

from collections.abc import Awaitable, Coroutine
from typing import Any, Final

from msgspec import UNSET, Raw
from opentelemetry.context import Context as TraceContext

from agentws.invocations.caller import Caller
from agentws.invocations.table import InvocationTable
from agentws.protocol.errors import InvocationError, error_body
from agentws.protocol.frames import (
    ActionResult,
    AttachInvocation,
    CancelInvocation,
    ErrorFrame,
    GetInvocation,
    Invocations,
    Invoke,
    ListInvocations,
    SendInput,
    action_of,
)
from agentws.protocol.inputs import Delivery
from agentws.stores.log import Log
from agentws.telemetry.trace_context import message_trace
from agentws.transports.websocket.following import Followings
from agentws.transports.websocket.frame_writer import FrameWriter

FollowUp = GetInvocation | CancelInvocation | AttachInvocation | SendInput | ListInvocations

_ECHOED: Final = ("invocation_id", "session_id", "query_id")
"""What an error tells back of the action that it refuses."""


class FollowUps:
    """Asks the table for one socket, and answers."""

    __slots__ = ("_caller", "_followings", "_session_id", "_table", "_writer")

    def __init__(
        self,
        table: InvocationTable,
        caller: Caller,
        session_id: str,
        writer: FrameWriter,
        followings: Followings,
    ) -> None:
        """Answer by `writer`; `session_id` is the socket's, for actions that name none."""
        self._table = table
        self._caller = caller
        self._session_id = session_id
        self._writer = writer
        self._followings = followings

    def ask(self, frame: FollowUp) -> Coroutine[Any, Any, None]:
        """Ask at once, in the order of the messages; what is returned answers in its time.

        It raises `InvocationError` where the action is refused.
        """
        match frame:
            case GetInvocation():
                return self._answer(frame, self._table.get(*self._address(frame)))
            case CancelInvocation():
                return self._answer(frame, self._table.cancel(*self._address(frame)))
            case AttachInvocation():
                return self._attach(frame, self._table.attach(frame.invocation_id, self._caller))
            case SendInput():
                return self._answer(frame, self._send_input(frame))
            case ListInvocations():
                return self._list(frame)

    def _address(
        self, frame: GetInvocation | CancelInvocation
    ) -> tuple[str, str, Caller, TraceContext]:
        session_id = frame.session_id or self._session_id
        return frame.invocation_id, session_id, self._caller, trace_of(frame, self._caller)

    def _send_input(self, frame: SendInput) -> Awaitable[bytes]:
        user_id = self._caller.user_id
        delivery = Delivery(frame.payload, frame.request_id, frame.input_id, user_id)
        return self._table.send_input(frame.invocation_id, self._caller, delivery)

    async def _answer(
        self, frame: GetInvocation | CancelInvocation | SendInput, verb: Awaitable[bytes]
    ) -> None:
        action, query_id = action_of(frame), frame.query_id or UNSET
        payload = Raw(await verb)
        self._writer.post(ActionResult(frame.invocation_id, payload, action, query_id))

    async def _list(self, frame: ListInvocations) -> None:
        listed = await self._table.list(
            self._caller,
            session_id=frame.session_id,
            status=frame.status,
            limit=frame.limit,
            after=frame.after,
        )
        records = [Raw(record) for record in listed.records]
        self._writer.post(Invocations(records, listed.next or UNSET, frame.query_id or UNSET))

    async def _attach(self, frame: AttachInvocation, log: Awaitable[Log]) -> None:
        after = frame.starting_after or 0
        self._followings.follow_instead(await log, after, action_of(frame))


def trace_of(frame: Invoke | GetInvocation | CancelInvocation, caller: Caller) -> TraceContext:
    """Return where a message stands in its sender's trace (§9)."""
    if frame.traceparent is frame.tracestate is frame.baggage is None:
        return caller.trace
    return message_trace(frame.traceparent, frame.tracestate, frame.baggage, caller.trace)


def refusal_of(frame: Invoke | FollowUp, error: InvocationError) -> ErrorFrame:
    """Return the answer to an action that is refused, with the ids that it carried."""
    fields = {name: getattr(frame, name, None) or UNSET for name in _ECHOED}
    return ErrorFrame(error_body(error), action_of(frame), **fields)
