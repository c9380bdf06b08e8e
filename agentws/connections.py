"""Sockets: how many there may be, sending with a deadline, and how each of them ended."""

import asyncio
import contextlib
import logging
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, Protocol

from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType, web
from msgspec import Struct

from agentws.protocol import Farewell, InvocationError

_logger: Final = logging.getLogger("agentws.connection")

_FIELD: Final = "azure.ai.agentserver.invocations_ws."
# RFC 6455 §5.2: FIN and an opcode.
_TEXT: Final = 0x81
_PONG: Final = 0x8A

ErrorCode = Literal[
    "internal_error",
    "slow_client",
    "heartbeat_timeout",
    "protocol_error",
    "payload_too_large",
    "accept_failed",
]


class Ending(Struct, frozen=True):
    """How a socket ended: the close code for the log (§8), and an error where there was one."""

    close_code: int
    error_code: ErrorCode | None = None


class SendDeadline:
    """Aborts a peer that takes nothing for `patience` seconds while somebody waits to send.

    A slow peer is left alone as long as the write buffer shrinks (§8).
    """

    CHECKS: Final = 4
    """How often the buffer is looked at within `patience`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        patience: float,
        on_stall: Callable[[], object] | None = None,
    ) -> None:
        """Watch over what `transport` sends; `on_stall` is called before it is aborted."""
        self._transport = transport
        self._patience = patience
        self._on_stall = on_stall
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._smallest = 0
        self._progress_at = 0.0

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Keep an eye on the peer while the body waits for it."""
        self._waiting += 1
        self._note_progress()
        if self._timer is None:
            self._schedule()
        try:
            yield
        finally:
            self._waiting -= 1
            self._note_progress()

    def stop(self) -> None:
        """Stop watching for good."""
        if self._timer is not None:
            self._timer.cancel()

    def _note_progress(self) -> None:
        self._smallest = self._transport.get_write_buffer_size()
        self._progress_at = asyncio.get_running_loop().time()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._patience / self.CHECKS, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._transport.get_write_buffer_size() < self._smallest:
            self._note_progress()
        elif asyncio.get_running_loop().time() >= self._progress_at + self._patience:
            if self._on_stall is not None:
                self._on_stall()
            self._transport.abort()
            return
        self._schedule()


class Connection:
    """One socket from its acceptance to its log line. It knows nothing of what is said on it."""

    def __init__(
        self,
        request: web.BaseRequest,
        ws: web.WebSocketResponse,
        *,
        session_id: str,
        send_timeout: float,
    ) -> None:
        if request.transport is None:
            raise ConnectionResetError("The client left during the handshake")
        self.session_id = session_id
        self._request = request
        self._transport = request.transport
        self._ws = ws
        self._send_timeout = send_timeout
        self._deadline = SendDeadline(self._transport, send_timeout, self._note_slowness)
        self._opened_at = time.monotonic()
        self._ending: Ending | None = None

    @property
    def congested(self) -> bool:
        """Whether the peer must take something before more is written."""
        return self._request.protocol.writing_paused

    def send(self, frames: Iterable[bytes]) -> None:
        """Write text messages at once, together: one system call for all of them.

        aiohttp writes each message on its own, which costs more than all else that is done for a
        small chunk; so these are framed here (RFC 6455 §5.2: final, unmasked, uncompressed) and
        written to the transport that aiohttp writes to. Not to be used where compression was
        negotiated. What is sent to a closing socket is dropped.
        """
        if self._ws.closed or self._transport.is_closing():
            return
        parts: list[bytes] = []
        for frame in frames:
            parts.append(_header(len(frame)))
            parts.append(frame)
        self._transport.write(b"".join(parts))

    def pong(self, data: bytes) -> None:
        """Answer a WebSocket ping (RFC 6455 §5.5.3); `data` is its application data."""
        if not (self._ws.closed or self._transport.is_closing()):
            self._transport.write(bytes((_PONG, len(data))) + data)

    async def send_compressed(self, frames: Iterable[bytes]) -> None:
        """Send text messages through the compression that was negotiated."""
        with self._deadline.watch(), contextlib.suppress(ConnectionError):
            for frame in frames:
                await self._ws.send_frame(frame, WSMsgType.TEXT)

    async def drained(self) -> None:
        """Wait until the peer has taken enough, or is gone; the deadline sees to one of both."""
        with self._deadline.watch(), contextlib.suppress(ConnectionError):
            await self._request.writer.drain()

    @contextlib.contextmanager
    def reading_held(self) -> Iterator[None]:
        """Read nothing from the network while the body waits."""
        was_reading = self._transport.is_reading()
        if was_reading:
            self._transport.pause_reading()
        try:
            yield
        finally:
            if was_reading and not self._transport.is_closing():
                self._transport.resume_reading()

    async def close(self, code: int, message: str = "") -> None:
        """Close the socket from this side, and wait for the peer's consent for a while."""
        self._end(Ending(code))
        # With a drain, aiohttp would wait for a peer that stopped reading beyond any timeout.
        with contextlib.suppress(ConnectionError):
            await self._ws.close(code=code, message=message.encode(), drain=False)

    def finish(self, last: WSMessage | Ending) -> None:
        """Let go of the socket and write its log line; `last` is what ended the reading."""
        self._end(last if isinstance(last, Ending) else _ending_of(last, self._ws.exception()))
        assert self._ending is not None
        self._deadline.stop()
        if self._ending.close_code == WSCloseCode.ABNORMAL_CLOSURE:
            self._transport.abort()
        elif self._transport.get_write_buffer_size():
            # A closed transport first sends what it holds, however long its peer takes.
            loop = asyncio.get_running_loop()
            loop.call_later(self._send_timeout, self._transport.abort)
        log_ending(self.session_id, self._ending, time.monotonic() - self._opened_at)

    def _note_slowness(self) -> None:
        self._end(Ending(WSCloseCode.ABNORMAL_CLOSURE, "slow_client"))

    def _end(self, ending: Ending) -> None:
        """Note how the socket ended; the first cause is the true one."""
        if self._ending is None:
            self._ending = ending


def log_ending(session_id: str, ending: Ending, seconds: float) -> None:
    """Write the one line that each socket leaves behind (§8)."""
    fields: dict[str, Any] = {
        _FIELD + "session_id": session_id,
        _FIELD + "close_code": int(ending.close_code),
        _FIELD + "duration_ms": round(seconds * 1000, 3),
    }
    if ending.error_code is not None:
        fields[_FIELD + "error_code"] = ending.error_code
    _logger.info("WebSocket closed with %d", ending.close_code, extra=fields)


def _ending_of(message: WSMessage, failure: BaseException | None) -> Ending:
    """Translate what aiohttp says last; its own `close_code` is 1000 for a peer that vanished."""
    match message.type:
        case WSMsgType.CLOSE:
            return Ending(message.data or 1005)  # RFC 6455 §7.1.5: no code was present
        case WSMsgType.ERROR if isinstance(message.data, WebSocketError):
            code = message.data.code
            too_big = code == WSCloseCode.MESSAGE_TOO_BIG
            return Ending(code, "payload_too_large" if too_big else "protocol_error")
        case _ if isinstance(failure, TimeoutError):
            return Ending(WSCloseCode.ABNORMAL_CLOSURE, "heartbeat_timeout")
        case _:
            return Ending(WSCloseCode.ABNORMAL_CLOSURE)


def _header(length: int) -> bytes:
    if length < 126:
        return bytes((_TEXT, length))
    if length < 65536:
        return struct.pack("!BBH", _TEXT, 126, length)
    return struct.pack("!BBQ", _TEXT, 127, length)


class OpenSocket(Protocol):
    """What the registry asks of a socket, of whatever kind."""

    def going_away(self, reason: Farewell, grace: float) -> None:
        """Tell the client that the socket will be closed within `grace` seconds."""

    async def close(self, code: int) -> None:
        """Send what is left to send, and close."""


class ConnectionRegistry:
    """The sockets that are open, and whether there may be one more."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._places_taken = 0
        self._open: set[OpenSocket] = set()
        self._draining = False

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place while a socket is accepted and lives.

        Raises `InvocationError` (`shutting_down`, `too_many_connections`).
        """
        if self._draining:
            raise InvocationError("shutting_down", "The server is shutting down")
        if self._places_taken >= self._max_connections:
            raise InvocationError(
                "too_many_connections",
                f"The server holds its limit of {self._max_connections} connections",
            )
        self._places_taken += 1
        try:
            yield
        finally:
            self._places_taken -= 1

    @contextlib.contextmanager
    def listing(self, socket: OpenSocket) -> Iterator[None]:
        """Know a socket while it is open, so that it can be told and closed."""
        self._open.add(socket)
        try:
            yield
        finally:
            self._open.discard(socket)

    def announce_shutdown(self, grace: float) -> None:
        """Admit no more, and tell every socket that it will be closed within `grace` seconds."""
        self._draining = True
        for socket in self._open:
            socket.going_away("shutdown", grace)

    async def close_all(self) -> None:
        """Close all sockets with 1001, together."""
        closings = [socket.close(WSCloseCode.GOING_AWAY) for socket in self._open]
        await asyncio.gather(*closings, return_exceptions=True)


async def accept(
    request: web.BaseRequest, ws: web.WebSocketResponse, session_id: str, send_timeout: float
) -> Connection:
    """Complete the handshake and return the connection.

    Raises `web.HTTPBadRequest` for a malformed handshake, and what the network raises when the
    client is gone already; that socket has its log line, too.
    """
    opened_at = time.monotonic()
    try:
        await ws.prepare(request)
        return Connection(request, ws, session_id=session_id, send_timeout=send_timeout)
    except web.HTTPException:
        raise
    except BaseException:
        ending = Ending(WSCloseCode.ABNORMAL_CLOSURE, "accept_failed")
        log_ending(session_id, ending, time.monotonic() - opened_at)
        raise
