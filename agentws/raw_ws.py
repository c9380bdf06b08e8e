"""The raw socket: the agent's own handler owns it, from the first message to the last."""

import asyncio
import contextlib
import logging
import operator
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import WSCloseCode, WSMessage, WSMessageTypeError, WSMsgType, web
from opentelemetry import context as trace_context

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import SocketHandler
from agentws.agent.own_task import run_apart
from agentws.caller import read_caller
from agentws.config.settings import WebSocketSettings
from agentws.connections import (
    INSTANT,
    LAST_TYPES,
    READ_BURST,
    Connection,
    ConnectionRegistry,
    Ending,
    Socket,
    accept,
    lifetime,
    may_be_sent,
    size_of,
)
from agentws.draining import drain_tasks
from agentws.handshake import (
    REQUEST_ID,
    SESSION_ID,
    choose_subprotocol,
    require_key,
    socket_session,
)
from agentws.keep_alive import Rounds
from agentws.protocol.frames import Farewell
from agentws.protocol.identifiers import new_id
from agentws.telemetry.trace_context import handler_trace

_logger: Final = logging.getLogger("agentws.raw")


LISTEN_AFTER: Final = 0.25
"""Seconds for which a handler may read nothing until its socket is listened to; twice at most."""

MOST_UNREAD: Final = 16 * 1024
"""How many messages may wait for a handler that does not read, however little is in them."""

_LONGEST_REASON: Final = 123
"""Bytes of text that a close frame has room for beside its code (RFC 6455 §5.5)."""


_DATA: Final = {WSMsgType.TEXT, WSMsgType.BINARY}


class Listener:
    """Reads a socket while its handler does not, so that pings and close are answered (§8).

    It reads to the last message, but only while less than `most_unread` bytes wait.
    """

    def __init__(self, read: Callable[[], Awaitable[WSMessage]], most_unread: int) -> None:
        self._read = read
        self._most_unread = most_unread
        self._unread: deque[WSMessage] = deque()
        self._unread_bytes = 0
        self._room: asyncio.Future[None] | None = None
        self._task = asyncio.create_task(self._listen())

    @property
    def runs(self) -> bool:
        """Whether it is the listener that runs just now."""
        return self._task is asyncio.current_task()

    async def take(self) -> WSMessage | None:
        """Return the oldest message that nobody has read; with none, listen no longer."""
        if not self._unread:
            await self.stop()
        if not self._unread:
            return None
        message = self._unread.popleft()
        self._unread_bytes -= _size_of(message)
        if self._room is not None and not self._room.done() and not self._is_full:
            self._room.set_result(None)
        return message

    async def stop(self) -> None:
        """Listen no longer; what is still in aiohttp's hands is left there."""
        self._task.cancel()
        await asyncio.wait({self._task})

    @property
    def _is_full(self) -> bool:
        return self._unread_bytes >= self._most_unread or len(self._unread) >= MOST_UNREAD

    async def _listen(self) -> None:
        # The latter where two tasks of a handler's receive at a time, which one of them is told.
        with contextlib.suppress(ConnectionError, RuntimeError):
            while True:
                if self._is_full:
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room
                message = await self._read()
                self._unread.append(message)
                self._unread_bytes += _size_of(message)
                if message.type in LAST_TYPES:
                    return


def _size_of(message: WSMessage) -> int:
    return size_of(message.data) if message.type in _DATA else 0


class RawWebSocket(Socket):
    """aiohttp's socket, which sends with a deadline and knows who closed it."""

    connection: Connection
    _burst = 0
    _receiving = False
    _has_received = False
    _listener: Listener | None = None

    def __init__(self, *, most_unread: int, **options: Any) -> None:
        """Let at most `most_unread` bytes wait for a handler that does not read."""
        super().__init__(**options)
        self._most_unread = most_unread

    def listen_unless_read(self) -> None:
        """Listen if the handler does not read, nor has since the last time."""
        if self._receiving or self._has_received:
            self._has_received = False
        elif self._listener is None and not self.closed:
            self._listener = Listener(self._receive, self._most_unread)

    async def receive(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - aiohttp's
        """Receive the next message; the last one is noted for the log line."""
        if (listener := self._listener) is not None:
            await self._take_turns()
            if (message := await listener.take()) is not None:
                return message
            self._listener = None
        self._receiving = self._has_received = True
        try:
            return await self._receive(timeout)
        finally:
            self._receiving = False

    async def _receive(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - aiohttp's
        await self._take_turns()  # before a message is taken, as a cancellation would lose it
        message = await super().receive(timeout)
        self.connection.bytes_received += _size_of(message)
        if message.type in LAST_TYPES:
            self.connection.note_last(message)
        if message.type is WSMsgType.CLOSE:
            await self.connection.answer_close(message)
        return message

    async def __anext__(self) -> Any:
        """Iterate over messages until the last; aiohttp would also hand out how a peer failed."""
        message = await self.receive()
        if message.type in LAST_TYPES:
            raise StopAsyncIteration
        return message

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Close the socket; the code is noted unless the peer or the network was first.

        A code that no close frame may carry becomes 1011, and `message` is cut to what fits.
        """
        if self._listener is not None and not self._listener.runs:
            listener, self._listener = self._listener, None  # with what nobody will read any more
            await listener.stop()
        ending = _ending_by_handler(code)
        # aiohttp calls this itself, too, when it has learnt of the end: then it knows the code.
        if self.close_code is None and not self.connection.lost:
            self.connection.note_ending(ending)
        with self.connection.watching():
            return await super().close(
                code=ending.close_code, message=_fitting(message), drain=drain
            )

    async def send_frame(
        self, message: bytes, opcode: WSMsgType, compress: int | None = None
    ) -> None:
        """Send a frame of any kind."""
        await self._in_time(super().send_frame(message, opcode, compress))
        if opcode in _DATA:
            self.connection.bytes_sent += len(message)

    async def send_str(self, data: str, compress: int | None = None) -> None:
        """Send a text message."""
        await self._in_time(super().send_str(data, compress))
        self.connection.bytes_sent += size_of(data)

    async def send_bytes(self, data: bytes, compress: int | None = None) -> None:
        """Send a binary message."""
        await self._in_time(super().send_bytes(data, compress))
        self.connection.bytes_sent += len(data)

    async def ping(self, message: bytes = b"") -> None:
        """Send a ping."""
        await self._in_time(super().ping(message))

    async def pong(self, message: bytes = b"") -> None:
        """Send a pong."""
        await self._take_turns()  # aiohttp answers all pings that have come within one `receive`
        await self._in_time(super().pong(message))

    async def _take_turns(self) -> None:
        """Let others have their turn now and then, as messages that wait are returned at once."""
        self._burst += 1
        if self._burst >= READ_BURST:
            self._burst = 0
            with self.connection.reading_held():  # its end would lose what was received already
                await asyncio.sleep(0)

    async def _in_time(self, sending: Awaitable[None]) -> None:
        with self.connection.watching():
            await sending


def _ending_by_handler(code: int) -> Ending:
    if may_be_sent(operator.index(code)):
        return Ending(code)
    _logger.error("The WebSocket handler closed with %d, which may not be sent", code)
    return Ending(WSCloseCode.INTERNAL_ERROR, "internal_error")


def _fitting(reason: bytes | str) -> bytes:
    """Return as much of a reason as fits into a close frame, whole characters (RFC 6455 §5.5.1)."""
    text = reason if isinstance(reason, str) else reason.decode(errors="replace")
    return text.encode(errors="replace")[:_LONGEST_REASON].decode(errors="ignore").encode()


class RawSocket:
    """One client's socket while the agent's handler serves it."""

    def __init__(
        self, ws: RawWebSocket, handler: SocketHandler, context: InvocationContext
    ) -> None:
        self._ws = ws
        self._connection = ws.connection
        self._handler = handler
        self._context = context
        self._closing: asyncio.Task[None] | None = None
        self._given_up = False

    async def serve(self, caller_trace: trace_context.Context) -> None:
        """Call the handler, close the socket as it ended, write the log line."""
        trace_context.attach(caller_trace)
        try:
            await run_apart(self._handler(self._ws, self._context))
        except BaseException as error:  # SystemExit, too: no handler takes the daemon with it
            await self._end_badly(error)
        else:
            await self._end_well()
        finally:
            if self._closing is not None:
                await asyncio.wait({self._closing})
            self._connection.finish()

    def going_away(self, reason: Farewell, grace: float) -> None:
        """Say nothing: the messages of a raw socket are the agent's."""

    async def close(self, code: int) -> None:
        """Close with `code`."""
        await self._connection.close(code)
        if self._given_up:
            self._connection.finish()

    def give_up(self) -> None:
        """No longer wait for the handler; the next close is the end."""
        self._given_up = True

    def retire(self) -> None:
        """Close because the socket has reached its maximal age."""
        self._closing = asyncio.create_task(self.close(WSCloseCode.GOING_AWAY))

    async def _end_well(self) -> None:
        await self._read_on()
        await self._connection.close(WSCloseCode.OK)

    async def _end_badly(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            await self._connection.close(WSCloseCode.GOING_AWAY)
            return
        await self._read_on()
        if self._connection.ended and _tells_of_the_end(error):
            return
        _logger.error("The WebSocket handler raised", exc_info=error)
        await self._connection.fail("internal_error", "Internal server error")

    async def _read_on(self) -> None:
        """Learn whether the client has closed already, in what the handler left unread."""
        with contextlib.suppress(TimeoutError, RuntimeError):
            while not self._connection.ended:
                await self._ws.receive(INSTANT)


def _tells_of_the_end(error: BaseException) -> bool:
    """Tell whether an error only says that the peer is gone, to a handler that went on."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_tells_of_the_end, error.exceptions))
    return isinstance(error, (ConnectionError, WSMessageTypeError))


class RawEndpoint:
    """The route of the raw socket: accepts, and lets the agent's handler serve."""

    def __init__(
        self,
        handler: SocketHandler,
        registry: ConnectionRegistry,
        settings: WebSocketSettings,
        *,
        session_id: str,
        subprotocols: Sequence[str],
    ) -> None:
        """Make the route; `session_id` is the configuration's, or empty."""
        self._handler = handler
        self._subprotocols = subprotocols
        self._registry = registry
        self._settings = settings
        self._session_id = session_id
        self._serving: dict[asyncio.Task[None], RawSocket] = {}
        self._rounds = Rounds[RawWebSocket](LISTEN_AFTER, lambda ws, _: ws.listen_unless_read())

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Accept a socket and serve it.

        Raises `InvocationError` (`invalid_request`, `shutting_down`, `too_many_connections`) before
        any upgrade.
        """
        require_key(request)
        session_id = request[SESSION_ID] = socket_session(request, self._session_id)
        caller = read_caller(request, "websocket", request[REQUEST_ID])
        context = caller.context(new_id(), session_id)
        with self._registry.place() as place:
            ws = RawWebSocket(
                most_unread=self._settings.max_message_size,
                protocols=choose_subprotocol(request, self._subprotocols),
                autoclose=False,
                heartbeat=self._settings.heartbeat or None,
                compress=self._settings.compression,
                max_msg_size=self._settings.max_message_size + 1,  # aiohttp refuses from there on
            )
            ws.connection = await accept(request, ws, session_id, self._registry.terms)
            socket = RawSocket(ws, self._handler, context)
            place.give(socket)
            self._rounds.add(ws)
            try:
                await self._attend(socket, handler_trace(caller.trace, context))
            finally:
                self._rounds.remove(ws)
        return ws

    async def drain(self, grace: float, patience: float) -> bool:
        """Wait `grace` seconds for the handlers to return, then cancel them (§8).

        Tell whether all have ended; one that swallows its cancellation is given up after
        `patience` seconds.
        """
        stuck = await drain_tasks(self._serving, grace, patience)
        for task in stuck:
            _logger.warning("Gave up on a WebSocket handler that did not end when cancelled")
            self._serving[task].give_up()
        return not stuck

    async def _attend(self, socket: RawSocket, caller_trace: trace_context.Context) -> None:
        """Wait for the handler; it has a task of its own, which no lost connection cancels."""
        task = asyncio.create_task(socket.serve(caller_trace))
        self._serving[task] = socket
        timer = self._start_clock(socket)
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        del self._serving[task]
        if timer is not None:
            timer.cancel()

    def _start_clock(self, socket: RawSocket) -> asyncio.TimerHandle | None:
        if not (age := self._settings.max_connection_age):
            return None
        return asyncio.get_running_loop().call_later(lifetime(age), socket.retire)
