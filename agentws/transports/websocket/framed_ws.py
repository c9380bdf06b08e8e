"""The framed socket: one JSON message a WebSocket message, and an invocation never blocks it.

The reader decodes a message and starts what it asks for; it waits for nothing that a handler can
delay. What there is to say goes through the writer.
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Coroutine
from functools import partial
from typing import Any, Final

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from msgspec import UNSET

from agentws.config.settings import WebSocketSettings
from agentws.invocations.caller import Caller
from agentws.invocations.invocation import Invocation
from agentws.invocations.table import InvocationTable, may_exist
from agentws.protocol.decoding import BadFrame, decode_frame
from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, PlatformError, error_body
from agentws.protocol.frames import (
    Accepted,
    DetachInvocation,
    ErrorFrame,
    Farewell,
    GoingAway,
    Invoke,
    Ping,
    Pong,
    ServerPing,
    ServerPong,
)
from agentws.protocol.records import Record
from agentws.stores.log import Log
from agentws.transports.websocket.acceptor import Acceptor
from agentws.transports.websocket.aiohttp_socket import INSTANT, LAST_TYPES, READ_BURST, Socket
from agentws.transports.websocket.app_pings import AppPings
from agentws.transports.websocket.connection import Connection
from agentws.transports.websocket.data_frames import size_of
from agentws.transports.websocket.follow_ups import FollowUp, FollowUps, refusal_of, trace_of
from agentws.transports.websocket.following import Followings
from agentws.transports.websocket.frame_writer import FrameWriter
from agentws.transports.websocket.max_age import AgeClock

SUBPROTOCOL: Final = "agentws.v1"
"""The name of what is spoken here, for clients that have to offer one (§1)."""

MOST_SET_ASIDE: Final = 1024
"""How many messages are saved from a connection that may be lost meanwhile."""

MOST_WAITING_ACTIONS: Final = 1024
"""How many actions of one socket may wait for their answers, where handlers take their time."""

FLUSH_PATIENCE: Final = 1.0
"""How many seconds a socket that is being closed has to take what was ready for it.

Where its client closes, the answers to what it asked before have to be ready within the same time.
"""

_PING: Final = encode(ServerPing())
_PONG: Final = encode(ServerPong())


def _may_attach(frame: Invoke) -> bool:
    """Tell whether the client will have an invocation that exists already."""
    return frame.if_exists == "attach" and frame.invocation_id is not None


class FramedSocket:
    """One client's socket: reads actions, answers them, follows what it started or attached to."""

    __slots__ = (
        "_burst",
        "_burst_began_at",
        "_caller",
        "_connection",
        "_followings",
        "_max_age",
        "_set_aside",
        "_table",
        "_tasks",
        "_writer",
        "_ws",
    )

    def __init__(
        self,
        ws: web.WebSocketResponse,
        connection: Connection,
        caller: Caller,
        table: InvocationTable,
        settings: WebSocketSettings,
    ) -> None:
        self._ws = ws
        self._connection = connection
        self._caller = caller
        self._table = table
        self._max_age = settings.max_connection_age
        self._writer = FrameWriter(
            connection, compressed=bool(ws.compress), max_frame_size=settings.max_frame_size
        )
        self._followings = Followings(self._writer)
        self._tasks: dict[asyncio.Task[None], None] = {}  # an empty set takes 216 bytes
        self._set_aside: list[WSMessage] = []
        self._burst, self._burst_began_at = 0, self._writer.written_at

    async def run(self) -> None:
        """Serve the socket until it ends, then see its last actions through."""
        age, aside = AgeClock(self, self._max_age), self._set_aside
        try:
            # No coroutine more, and no name for a message: an idle socket would hold both.
            while (last := self._take(aside.pop(0) if aside else await self._ws.receive())) is None:
                if self._is_ahead:
                    await self._wait_for_others()
            self._connection.note_last(last)
            if last.type is WSMsgType.CLOSE:
                await self._answer_what_came_before()
                await self._connection.answer_close(last)
        except asyncio.CancelledError:
            if not self._connection.lost:
                raise
            # So aiohttp tells of a lost connection; what was asked before is done all the same.
            self._act_on_the_rest()
        finally:
            age.stop()
            self._followings.close()
            self._writer.close()
            self._connection.finish(self._caller.started)
        await self._see_actions_through()

    async def _answer_what_came_before(self) -> None:
        """Send the answers to what the client asked before its close (§3; RFC 6455 §5.5.1).

        The network's end, which may follow the close at once, is not read before that.
        """
        with self._connection.reading_held(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_PATIENCE):
                if self._tasks:
                    await asyncio.wait(list(self._tasks))
                await asyncio.sleep(0)  # so that what was invoked may have been refused
                self._followings.leave_unended()
                await self._writer.emptied()

    async def _see_actions_through(self) -> None:
        if self._tasks:
            try:
                await asyncio.wait(list(self._tasks))
            finally:
                for task in self._tasks:
                    task.cancel()

    def going_away(self, reason: Farewell, grace: float) -> None:
        """Tell the client that the socket will be closed within `grace` seconds (§4)."""
        self._writer.post(GoingAway(reason, grace))

    async def close(self, code: int) -> None:
        """Send what is ready, then close with `code`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_PATIENCE):
                await self._writer.emptied()
        await self._connection.close(code)

    # --- reading ---

    def _take(self, message: WSMessage) -> WSMessage | None:
        """Act on a message, or return it if it is the last."""
        match message.type:
            case WSMsgType.TEXT | WSMsgType.BINARY:
                self._act_on(message.data)
            case WSMsgType.PING:
                self._writer.pong(message.data)
            case WSMsgType.PONG:
                pass
            case _:
                return message
        self._burst += 1
        return None

    @property
    def _is_ahead(self) -> bool:
        """Whether more has come than others, or the client, bear."""
        return (
            self._burst >= READ_BURST or self._writer.is_over_high_water or self._has_many_actions
        )

    async def _wait_for_others(self) -> None:
        """Let others have their turn, unless they had it, and the client read its answers."""
        if self._writer.is_over_high_water or self._has_many_actions:
            await self._let_others_have_their_turn()
            await self._writer.below_high_water()
            return
        # What was written since they were counted from, was written in others' turns.
        if self._writer.written_at == self._burst_began_at:
            await self._let_others_have_their_turn()
        self._burst, self._burst_began_at = 0, self._writer.written_at

    async def _let_others_have_their_turn(self) -> None:
        """Wait for a turn of the event loop, without losing what was received already (§3).

        aiohttp drops the messages that it holds when the connection is lost. So nothing is read
        from the network in that turn, its end included, and what there is is set aside, for sending
        may find the connection lost as well.
        """
        with self._connection.reading_held(), contextlib.suppress(TimeoutError):
            if self._set_aside:
                await asyncio.sleep(0)
                return
            while len(self._set_aside) < MOST_SET_ASIDE:
                message = await self._ws.receive(INSTANT)
                self._set_aside.append(message)
                if message.type in LAST_TYPES:
                    return
            await asyncio.sleep(0)

    def _act_on_the_rest(self) -> None:
        """Act on the messages that arrived before the connection was lost."""
        for message in self._set_aside:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self._act_on(message.data)

    def _act_on(self, message: str | bytes) -> None:
        """Decode a message and start what it asks for."""
        self._connection.bytes_received += size_of(message)
        try:
            frame = decode_frame(message)
        except BadFrame as bad:
            self._connection.metrics.error(bad.error.code)
            error = error_body(bad.error)
            ids = bad.invocation_id, bad.session_id, bad.query_id
            self._writer.post(ErrorFrame(error, bad.action, *ids))
            return
        match frame:
            case Invoke():
                self._invoke(frame)
            case Ping():
                self._writer.post_encoded(_PONG)
            case Pong():
                pass
            case DetachInvocation():
                self._followings.leave(frame.invocation_id)
            case _:
                self._follow_up(frame)

    def _invoke(self, frame: Invoke) -> None:
        """Start an invocation, and follow it unless it is for the background."""
        if frame.session_id is None:
            frame.session_id = self._connection.session_id
        try:
            invocation = self._table.invoke(
                frame.payload,
                self._caller,
                session_id=frame.session_id,
                invocation_id=frame.invocation_id,
                background=bool(frame.background),
                on_disconnect=frame.on_disconnect,
                if_session_busy=frame.if_session_busy,
                may_attach=_may_attach(frame),
                trace=trace_of(frame, self._caller),
            )
        except InvocationError as error:
            self._refuse_invoke(frame, error)
            return
        if not frame.background:
            self._follow_own(frame, invocation)
        if frame.background or frame.query_id is not None:
            self._accept(frame, invocation)

    def _follow_own(self, frame: Invoke, invocation: Invocation) -> None:
        """Follow what the client has just started."""
        on_refusal = None
        if frame.query_id is not None or _may_attach(frame):  # else the log itself tells of it
            on_refusal = partial(self._refuse_invoke, frame)
        self._followings.follow(invocation.log, 0, "invoke", on_refusal)

    def _accept(self, frame: Invoke, invocation: Invocation) -> None:
        """Say that an invocation was taken on, before its first frame."""
        if invocation.is_claimed and invocation.log.refusal is None:
            self._post_accepted(frame, invocation.log.record)
        else:
            self._own(self._see_through(frame, self._accept_later(frame, invocation)))

    async def _accept_later(self, frame: Invoke, invocation: Invocation) -> None:
        """Wait for the claim, after which this goes on before the handler is called."""
        try:
            await invocation.accepted()
        except InvocationError as error:
            if frame.background:
                self._refuse_invoke(frame, error)
            return  # whoever follows is told by the log
        self._post_accepted(frame, invocation.log.record)

    def _post_accepted(self, frame: Invoke, record: Record) -> None:
        ids = record.invocation_id, record.session_id
        self._writer.post(Accepted(*ids, frame.query_id or UNSET))

    def _refuse_invoke(self, frame: Invoke, error: InvocationError) -> None:
        """Say that an invoke was refused, unless the client wants what is there already."""
        if frame.invocation_id is None or not _may_attach(frame) or not may_exist(error):
            self._writer.post(refusal_of(frame, error))
            return
        log = self._table.attach_instead(frame.invocation_id, self._caller, error)
        self._own(self._see_through(frame, self._attach_instead(frame, log)))

    async def _attach_instead(self, frame: Invoke, log: Awaitable[Log]) -> None:
        """Answer an invoke with an invocation that exists, from its first chunk on (§5)."""
        found = await log
        if frame.background or frame.query_id is not None:
            self._post_accepted(frame, found.record)
        if not frame.background:
            self._followings.follow_instead(found, 0, "invoke")

    # --- actions that take their time, each a task ---

    def _follow_up(self, frame: FollowUp) -> None:
        if self._has_many_actions:
            reason = PlatformError("too_many_invocations", "Too many actions wait for an answer")
            self._writer.post(refusal_of(frame, reason))
        else:
            session_id = self._connection.session_id
            asked = FollowUps(self._table, self._caller, session_id, self._writer, self._followings)
            self._own(self._see_through(frame, asked.ask(frame)))

    @property
    def _has_many_actions(self) -> bool:
        return len(self._tasks) >= MOST_WAITING_ACTIONS

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in a task that this socket sees through."""
        self._tasks[asyncio.create_task(self._disown_after(work))] = None

    async def _disown_after(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await work
        finally:
            del self._tasks[task]

    async def _see_through(
        self, frame: Invoke | FollowUp, action: Coroutine[Any, Any, None]
    ) -> None:
        try:
            await action
        except InvocationError as error:
            self._writer.post(refusal_of(frame, error))

    # --- clocks (§8) ---

    def ping_after_silence(self, until: float) -> None:
        """Send a ping message if nothing was sent since `until`, and nothing waits to be."""
        if self._writer.written_at <= until and not self._writer.busy:
            self._writer.post_encoded(_PING)

    def retire(self) -> None:
        """Close because the socket has reached its maximal age."""
        self._own(self.close(WSCloseCode.GOING_AWAY))


class FramedEndpoint:
    """The route of the framed socket: accepts, and serves until the end."""

    def __init__(self, acceptor: Acceptor, table: InvocationTable) -> None:
        self._acceptor = acceptor
        self._table = table
        self._app_pings = AppPings(acceptor.settings.app_ping_interval)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Accept a socket and serve it.

        Raises `InvocationError` (`invalid_request`, `shutting_down`, `too_many_connections`) before
        any upgrade.
        """
        caller = self._acceptor.read(request)
        caller.max_running = self._acceptor.settings.max_invocations_per_connection
        with self._acceptor.place() as place:
            ws, connection = await self._acceptor.accept(
                request,
                Socket,
                otherwise=(SUBPROTOCOL,),
                autoping=False,  # pings are answered by the writer, at the pace of the peer
                writer_limit=sys.maxsize,  # the writer waits, aiohttp need not
            )
            ws.headers.clear()  # they were sent, and take memory for as long as the socket is open
            socket = FramedSocket(ws, connection, caller, self._table, self._acceptor.settings)
            place.give(socket)
            self._app_pings.add(socket)
            try:
                await socket.run()
            finally:
                self._app_pings.remove(socket)
        return ws
