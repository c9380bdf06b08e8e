"""The raw socket: the agent's own handler owns it, from the first message to the last."""

import asyncio
import contextlib
import logging
from typing import Final

from aiohttp import WSCloseCode, WSMessageTypeError, web
from opentelemetry.context import Context as TraceContext
from opentelemetry.context import attach

from agentws.agent.context import InvocationContext
from agentws.agent.conversation import Draining
from agentws.agent.handlers import SocketHandler
from agentws.agent.own_task import run_apart
from agentws.protocol.frames import Farewell
from agentws.protocol.identifiers import new_id
from agentws.telemetry.trace_context import handler_trace
from agentws.transports.draining import drain_tasks
from agentws.transports.request_fields import SESSION_ID
from agentws.transports.websocket.acceptor import Acceptor
from agentws.transports.websocket.aiohttp_socket import INSTANT
from agentws.transports.websocket.max_age import AgeClock
from agentws.transports.websocket.raw_listener import LISTEN_AFTER
from agentws.transports.websocket.raw_socket import RawWebSocket
from agentws.transports.websocket.rounds import Rounds

_logger: Final = logging.getLogger("agentws.raw")


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

    async def serve(self, trace: TraceContext) -> None:
        """Call the handler, close the socket as it ended, write the log line."""
        attach(trace)
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

    def __init__(self, acceptor: Acceptor, handler: SocketHandler, draining: Draining) -> None:
        """Have `handler` serve, which is told of `draining`."""
        self._acceptor = acceptor
        self._handler = handler
        self._draining = draining
        self._serving: dict[asyncio.Task[None], RawSocket] = {}
        self._rounds = Rounds[RawWebSocket](LISTEN_AFTER, lambda ws, _: ws.listen_unless_read())

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Accept a socket and serve it.

        Raises `InvocationError` (`invalid_request`, `shutting_down`, `too_many_connections`) before
        any upgrade.
        """
        caller = self._acceptor.read(request)
        context = caller.context(new_id(), request[SESSION_ID], self._draining)
        with self._acceptor.place() as place:
            most_unread = self._acceptor.settings.max_message_size
            ws, connection = await self._acceptor.accept(
                request, RawWebSocket, most_unread=most_unread
            )
            ws.connection = connection
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

    async def _attend(self, socket: RawSocket, trace: TraceContext) -> None:
        """Wait for the handler; it has a task of its own, which no lost connection cancels."""
        task = asyncio.create_task(socket.serve(trace))
        self._serving[task] = socket
        age = AgeClock(socket, self._acceptor.settings.max_connection_age)
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        del self._serving[task]
        age.stop()
