"""Sockets: how many there may be, sending with a deadline, and how each of them ended."""

import asyncio
import contextlib
import logging
import random
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol, Self

from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType, hdrs, web
from aiohttp.base_protocol import BaseProtocol
from msgspec import Struct

from agentws.protocol.errors import PlatformError, shutting_down
from agentws.protocol.frames import Farewell
from agentws.telemetry.metrics import Metrics

_logger: Final = logging.getLogger("agentws.connection")

_FIELD: Final = "azure.ai.agentserver.invocations_ws."
# RFC 6455 §5.2: FIN and an opcode.
_TEXT: Final = 0x81
_PONG: Final = 0x8A
_MEDIUM_HEADER: Final = struct.Struct("!BBH")
_LARGE_HEADER: Final = struct.Struct("!BBQ")

LAST_TYPES: Final = {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR}
"""The types of aiohttp's messages after which no other comes."""

INSTANT: Final = 1e-9
"""A time-out that lets `receive` return what is there, and nothing that is yet to come."""

READ_BURST: Final = 32
"""How many messages of one socket are read before others have their turn."""

ErrorCode = Literal[
    "internal_error",
    "slow_client",
    "heartbeat_timeout",
    "protocol_error",
    "payload_too_large",
    "accept_failed",
]


AGE_JITTER: Final = 0.1
"""By which share of its maximal age a socket may be closed earlier or later."""

CHECKS: Final = 4
"""How often the buffer of a peer that is waited for is looked at within its time."""


class Ending(Struct, frozen=True):
    """How a socket ended: the close code for the log (§8), and an error where there was one."""

    close_code: int
    error_code: ErrorCode | None = None


def may_be_sent(code: int) -> bool:
    """Tell whether a close frame may carry `code` (RFC 6455 §7.4).

    Those that IANA has registered may, but for the ones that only stand in logs (1005, 1006, 1015),
    and those of libraries and applications. What lies between is undefined until it is registered.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def lifetime(age: float) -> float:
    """Return after how many seconds to close a socket whose maximal age is `age` (§8).

    It is jittered, so that those that came at once do not all come back at once.
    """
    return age * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)


def size_of(data: str | bytes) -> int:
    """Return how many bytes the payload of a message takes on the wire, uncompressed."""
    return len(data if isinstance(data, bytes) or data.isascii() else data.encode())


_ADDRESS: Final = re.compile(r"[\w.:%\[\]-]{1,64}", re.ASCII)


_MAPPED: Final = "::ffff:"
"""How an IPv4 address begins on a socket that takes both families (RFC 4291 §2.5.5.2)."""


def peer_of(request: web.BaseRequest, *, trust_forwarded: bool) -> str:
    """Return the address of a request's sender, for logs; empty where there is none.

    It is the network's, or, where a proxy is trusted to tell it, the last of `X-Forwarded-For`: the
    one that the proxy saw itself, for what stands before that may have been written by anybody.
    """
    if trust_forwarded:
        addresses = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))
        last = addresses.rpartition(",")[2].strip()
        if _ADDRESS.fullmatch(last):
            return last
    return (request.remote or "").removeprefix(_MAPPED)


class Terms(Struct, frozen=True):
    """What holds for all sockets alike."""

    metrics: Metrics
    send_timeout: float
    """Seconds for which a peer may take nothing of what is sent to it."""
    trust_forwarded: bool = False
    """Whether `X-Forwarded-For` names the peer in the log."""


class Socket(web.WebSocketResponse):
    """aiohttp's socket, which tells a peer that what it compressed cannot be read."""

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Close the socket; with 1007 where the peer's data is corrupt, for which aiohttp has 1000.

        aiohttp calls this itself when it cannot go on.
        """
        if isinstance(self.exception(), zlib.error):
            code = WSCloseCode.INVALID_TEXT
        return await super().close(code=code, message=message, drain=drain)


class SendDeadline:
    """Aborts a peer that takes nothing for `patience` seconds while somebody waits to send.

    A slow peer is left alone as long as the write buffer shrinks (§8).
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: BaseProtocol,
        patience: float,
        on_stall: Callable[[], object] | None = None,
    ) -> None:
        """Watch over what `transport` sends; `on_stall` is called before it is aborted."""
        self._transport = transport
        self._protocol = protocol
        self._patience = patience
        self._on_stall = on_stall
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._smallest = 0
        self._progress_at = 0.0

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Keep an eye on the peer while the body waits for it."""
        if not self._waiting:
            self._note_progress()
        self._waiting += 1
        if self._timer is None:
            self._schedule()
        try:
            yield
        finally:
            self._waiting -= 1
            # A small message that still fits into the buffer is no progress of the peer's.
            if not self._protocol.writing_paused:
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
        self._timer = loop.call_later(self._patience / CHECKS, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        buffered = self._transport.get_write_buffer_size()
        if buffered < self._smallest or not buffered:
            self._note_progress()
        elif asyncio.get_running_loop().time() >= self._progress_at + self._patience:
            if self._on_stall is not None:
                self._on_stall()
            self._transport.abort()
            return
        self._schedule()


class Connection:
    """One socket from its acceptance to its log line. It knows nothing of what is said on it."""

    __slots__ = (
        "_deadline",
        "_ending",
        "_finished",
        "_opened_at",
        "_request",
        "_terms",
        "_transport",
        "_ws",
        "bytes_received",
        "bytes_sent",
        "session_id",
    )

    def __init__(
        self,
        request: web.BaseRequest,
        ws: web.WebSocketResponse,
        *,
        session_id: str,
        terms: Terms,
    ) -> None:
        if request.transport is None:
            raise ConnectionResetError("The client left during the handshake")
        self.session_id = session_id
        self.bytes_received = 0
        self.bytes_sent = 0
        self._terms = terms
        self._request = request
        self._transport = request.transport
        self._ws = ws
        self._deadline: SendDeadline | None = None
        self._opened_at = time.monotonic()
        self._ending: Ending | None = None
        self._finished = False

    @property
    def metrics(self) -> Metrics:
        """The instruments that count what happens on it."""
        return self._terms.metrics

    @property
    def lost(self) -> bool:
        """Whether the network connection is gone, or about to go."""
        return self._transport.is_closing()

    @property
    def ended(self) -> bool:
        """Whether it is known how the socket ended."""
        return self._ending is not None

    @property
    def congested(self) -> bool:
        """Whether the peer must take something before more is written."""
        return self._request.protocol.writing_paused

    def send(self, frames: Sequence[bytes]) -> None:
        """Write text messages at once, together: one system call for all of them.

        aiohttp writes each message on its own, which costs more than all else that is done for a
        small chunk; so these are framed here (RFC 6455 §5.2: final, unmasked, uncompressed) and
        written to the transport that aiohttp writes to. Not to be used where compression was
        negotiated. What is sent to a closing socket is dropped.
        """
        if self._ws.closed or self._transport.is_closing():
            return
        self.bytes_sent += sum(map(len, frames))
        self._transport.write(b"".join([part for frame in frames for part in _framed(frame)]))

    def pong(self, data: bytes) -> None:
        """Answer a WebSocket ping (RFC 6455 §5.5.3); `data` is its application data."""
        if not (self._ws.closed or self._transport.is_closing()):
            self._transport.write(bytes((_PONG, len(data))) + data)

    async def send_compressed(self, frames: Sequence[bytes]) -> None:
        """Send text messages through the compression that was negotiated."""
        with self.watching(), contextlib.suppress(ConnectionError):
            for frame in frames:
                await self._ws.send_frame(frame, WSMsgType.TEXT)
                self.bytes_sent += len(frame)

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """Abort a peer that takes nothing while the body waits to send."""
        if self._deadline is None:
            self._deadline = SendDeadline(
                self._transport,
                self._request.protocol,
                self._terms.send_timeout,
                self._note_slowness,
            )
        return self._deadline.watch()

    async def drained(self) -> None:
        """Wait until the peer has taken enough, or is gone; the deadline sees to one of both."""
        with self.watching(), contextlib.suppress(ConnectionError):
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
        await self._close(Ending(code), message)

    async def fail(self, error_code: ErrorCode, message: str) -> None:
        """Close the socket with 1011 because of an error of this side.

        The error is logged even where the socket had ended otherwise before.
        """
        if self._ending is not None and self._ending.error_code is None:
            self._ending = Ending(self._ending.close_code, error_code)
        await self._close(Ending(WSCloseCode.INTERNAL_ERROR, error_code), message)

    async def answer_close(self, last: WSMessage) -> None:
        """Answer the peer's close with its own code (RFC 6455 §5.5.1); aiohttp's answer is 1000.

        A code that may not be sent is answered with 1002.
        """
        ending = _ending_of(last, None)
        was_sent = may_be_sent(ending.close_code)
        await self._close(ending, code=ending.close_code if was_sent else WSCloseCode.OK)

    async def _close(self, ending: Ending, message: str = "", code: int | None = None) -> None:
        self.note_ending(ending)
        # With a drain, aiohttp would wait for a peer that stopped reading beyond any timeout.
        with contextlib.suppress(ConnectionError):
            await self._ws.close(
                code=code or ending.close_code, message=message.encode(), drain=False
            )

    def note_last(self, message: WSMessage) -> None:
        """Note what aiohttp said last."""
        self.note_ending(_ending_of(message, self._ws.exception()))

    def note_ending(self, ending: Ending) -> None:
        """Note how the socket ended; the first cause is the true one."""
        if self._ending is None:
            self._ending = ending

    def finish(self, invocations: int = 0) -> None:
        """Let go of the socket and write its log line, once; `invocations` were started on it.

        Where nobody noted how it ended, the peer has vanished.
        """
        if self._finished:
            return
        self._finished = True
        if self._deadline is not None:
            self._deadline.stop()
        self.note_ending(_vanished(self._ws.exception()))
        assert self._ending is not None
        if self._ending.close_code == WSCloseCode.ABNORMAL_CLOSURE:
            self._transport.abort()
        elif self._transport.get_write_buffer_size():
            # A closed transport first sends what it holds, however long its peer takes.
            loop = asyncio.get_running_loop()
            loop.call_later(self._terms.send_timeout, self._abort_unless_gone)
        tell_ending(
            self._request,
            self.session_id,
            self._ending,
            time.monotonic() - self._opened_at,
            self._terms,
            invocations=invocations,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
        )

    def _abort_unless_gone(self) -> None:
        if self._request.transport is not None:
            self._transport.abort()

    def _note_slowness(self) -> None:
        self.note_ending(Ending(WSCloseCode.ABNORMAL_CLOSURE, "slow_client"))


_GAVE_UP: Final = {"internal_error", "slow_client", "heartbeat_timeout"}
"""Errors for which this side ended a socket, rather than its peer."""


def tell_ending(
    request: web.BaseRequest,
    session_id: str,
    ending: Ending,
    seconds: float,
    terms: Terms,
    *,
    invocations: int = 0,
    bytes_received: int = 0,
    bytes_sent: int = 0,
) -> None:
    """Write the one line that each socket leaves behind (§8), and count it."""
    terms.metrics.socket_ended(seconds, int(ending.close_code), ending.error_code)
    fields: dict[str, Any] = {
        _FIELD + "session_id": session_id,
        _FIELD + "close_code": int(ending.close_code),
        _FIELD + "duration_ms": round(seconds * 1000),
        "peer": peer_of(request, trust_forwarded=terms.trust_forwarded),
        "invocations": invocations,
        "bytes_received": bytes_received,
        "bytes_sent": bytes_sent,
    }
    if ending.error_code is not None:
        fields[_FIELD + "error.code"] = ending.error_code
    level = logging.WARNING if ending.error_code in _GAVE_UP else logging.INFO
    _logger.log(level, "WebSocket closed with %d", ending.close_code, extra=fields)


def _ending_of(message: WSMessage, failure: BaseException | None) -> Ending:
    """Translate what aiohttp says last; its own `close_code` is 1000 for a peer that vanished."""
    match message.type:
        case WSMsgType.CLOSE if not message.data:
            return Ending(1005)  # RFC 6455 §7.1.5: no code was present
        case WSMsgType.CLOSE if may_be_sent(message.data):
            return Ending(message.data)
        case WSMsgType.CLOSE:
            return Ending(WSCloseCode.PROTOCOL_ERROR, "protocol_error")
        case WSMsgType.ERROR if isinstance(message.data, WebSocketError):
            code = message.data.code
            too_big = code == WSCloseCode.MESSAGE_TOO_BIG
            return Ending(code, "payload_too_large" if too_big else "protocol_error")
        case WSMsgType.ERROR if isinstance(message.data, zlib.error):
            return Ending(WSCloseCode.INVALID_TEXT, "protocol_error")
        case _:
            return _vanished(failure)


def _vanished(failure: BaseException | None) -> Ending:
    """Tell of a socket that ended without a close: aiohttp's heartbeat raises a time-out."""
    unanswered = isinstance(failure, TimeoutError)
    return Ending(WSCloseCode.ABNORMAL_CLOSURE, "heartbeat_timeout" if unanswered else None)


def _framed(payload: bytes) -> tuple[bytes, bytes]:
    """Return the header and the payload of a text frame."""
    length = len(payload)
    if length < 126:
        return bytes((_TEXT, length)), payload
    if length < 65536:
        return _MEDIUM_HEADER.pack(_TEXT, 126, length), payload
    return _LARGE_HEADER.pack(_TEXT, 127, length), payload


class OpenSocket(Protocol):
    """What the registry asks of a socket, of whatever kind."""

    def going_away(self, reason: Farewell, grace: float) -> None:
        """Tell the client that the socket will be closed within `grace` seconds."""

    async def close(self, code: int) -> None:
        """Send what is left to send, and close."""


class ConnectionRegistry:
    """The sockets that are open, and whether there may be one more."""

    def __init__(self, max_connections: int, terms: Terms) -> None:
        self.terms = terms
        self._max_connections = max_connections
        self._places_taken = 0
        self._open: set[OpenSocket] = set()
        terms.metrics.watch_sockets(lambda: len(self._open))
        self._draining = False

    def place(self) -> "Place":
        """Take a place for a socket that is about to be accepted, to be given back by `with`.

        Raises `PlatformError` (`shutting_down`, `too_many_connections`).
        """
        if self._draining:
            raise shutting_down()
        if self._places_taken >= self._max_connections:
            raise PlatformError(
                "too_many_connections",
                f"The server holds its limit of {self._max_connections} connections",
            )
        self._places_taken += 1
        return Place(self)

    def occupy(self, socket: OpenSocket) -> None:
        """Know a socket while it is open, so that it can be told and closed."""
        self._open.add(socket)

    def vacate(self, socket: OpenSocket | None) -> None:
        """Give a place back, and forget the socket that had it, if one had."""
        self._places_taken -= 1
        if socket is not None:
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


class Place:
    """One socket's place among the connections, held inside `with`."""

    __slots__ = ("_registry", "_socket")

    def __init__(self, registry: ConnectionRegistry) -> None:
        self._registry = registry
        self._socket: OpenSocket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._registry.vacate(self._socket)

    def give(self, socket: OpenSocket) -> None:
        """Give the place to a socket, now that it is accepted."""
        self._socket = socket
        self._registry.occupy(socket)


async def accept(
    request: web.BaseRequest,
    ws: web.WebSocketResponse,
    session_id: str,
    terms: Terms,
) -> Connection:
    """Complete the handshake and return the connection.

    Raises `web.HTTPBadRequest` for a malformed handshake, and what the network raises when the
    client is gone already; that socket has its log line, too.
    """
    opened_at = time.monotonic()
    try:
        await ws.prepare(request)
        return Connection(request, ws, session_id=session_id, terms=terms)
    except web.HTTPException:
        raise
    except BaseException:
        ending = Ending(WSCloseCode.ABNORMAL_CLOSURE, "accept_failed")
        tell_ending(request, session_id, ending, time.monotonic() - opened_at, terms)
        raise
