"""The load generator: sockets that cost so little that the server is what is measured."""

import asyncio
import contextlib
import math
from abc import abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, cast

from bench.contenders import Server
from bench.frames import MessageCounter, pong_frame, text_frame

_OPENED_AT_ONCE: Final = 100
_PATIENCE: Final = 20.0
"""How many seconds a socket has to open."""

_ERROR: Final = b'"type":"error"'


class LoadError(Exception):
    """The server failed under the load: what was measured is worth nothing."""


@dataclass(frozen=True)
class Exchange:
    """What a socket does over and over: one request, then so many messages in answer."""

    request: bytes
    answers: int = 1
    closing: int = 0
    """How many of the answers only say that it is over, and are not what is measured."""


class Requester(asyncio.Protocol):
    """A client that sends the next request when the last one is answered in full."""

    def __init__(self, server: Server, exchange: Exchange) -> None:
        self.messages = 0
        """How many messages have come in."""
        self._server = server
        self._missing = 0
        self._rounds_left: float = 0
        self._milestone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.turn_to(exchange)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be open."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        self._milestone.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Count what came, and ask again when that was all."""
        messages = self.count(data)
        self.messages += messages
        self._missing -= messages
        if self._missing <= 0 and messages:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail, unless nobody waits for more."""
        self._fail(f"The server closed a socket: {exc}")

    @abstractmethod
    def count(self, data: bytes) -> int:
        """Return how many messages `data` completes."""

    async def opened(self) -> None:
        """Wait until it can be started. Raises `LoadError`."""
        await self._milestone

    def turn_to(self, exchange: Exchange) -> None:
        """Ask something else from now on."""
        self._request = exchange.request
        self._answers = exchange.answers

    def start(self, rounds: float = math.inf) -> "asyncio.Future[None]":
        """Ask `rounds` times; the future ends with the last answer, or with a `LoadError`."""
        self._rounds_left = rounds
        self._milestone = asyncio.get_running_loop().create_future()
        self._ask()
        return self._milestone

    def finish(self) -> None:
        """Ask no more; what `start` returned ends with the last answer."""
        self._rounds_left = 0

    def abort(self) -> None:
        """Drop the socket."""
        self._milestone.cancel()
        self._transport.abort()

    def _ask(self) -> None:
        if self._rounds_left:
            self._rounds_left -= 1
            self._missing = self._answers
            self._transport.write(self._request)
        elif not self._milestone.done():
            self._milestone.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self._milestone.done():
            self._milestone.set_exception(LoadError(reason))


class LoadSocket(Requester):
    """A WebSocket client. It answers pings."""

    def __init__(self, server: Server, exchange: Exchange) -> None:
        super().__init__(server, exchange)
        self._counter = MessageCounter()
        self._response = b""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            f"GET {self._server.path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )

    def turn_to(self, exchange: Exchange) -> None:
        """Ask something else from now on."""
        self._request = text_frame(exchange.request)
        self._answers = exchange.answers

    def count(self, data: bytes) -> int:
        """Return how many messages `data` completes, or 0 before it is open."""
        if not self._upgraded:
            self._upgrade(data)
            return 0
        if _ERROR in data:
            self._fail(f"The server answered {data.decode(errors='replace')}")
        messages = self._counter.feed(data)
        if self._counter.pings:
            self._counter.pings = 0
            self._transport.write(pong_frame())
        return messages

    def _upgrade(self, data: bytes) -> None:
        self._response += data
        if not self._response.endswith(b"\r\n\r\n"):
            return
        self._upgraded = self._response.startswith(b"HTTP/1.1 101 ")
        if self._upgraded:
            self._milestone.set_result(None)
        else:
            self._fail(f"The handshake was answered {self._response.decode()}")


class Sink(LoadSocket):
    """A WebSocket client that does not look at what it is told, so that it costs the least."""

    def count(self, data: bytes) -> int:
        """Throw away what comes once it is open."""
        return 0 if self._upgraded else super().count(data)


class HttpClient(Requester):
    """A client that posts over and over on one connection."""

    def __init__(self, server: Server, exchange: Exchange) -> None:
        super().__init__(server, exchange)
        self._response = b""

    def count(self, data: bytes) -> int:
        """Return how many answers `data` completes: all that are asked for, or none yet."""
        self._response += data
        if not _is_whole(self._response):
            return 0
        if not self._response.startswith(b"HTTP/1.1 200 "):
            self._fail(f"The server answered {self._response.decode(errors='replace')}")
        self._response = b""
        return self._answers


def post(body: bytes, accept: str = "application/json") -> bytes:
    """Return a request."""
    return (
        f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _is_whole(response: bytes) -> bool:
    """Tell whether a response with one or the other framing has ended (RFC 9112 §6)."""
    head, _, body = response.partition(b"\r\n\r\n")
    _, stated, rest = head.lower().partition(b"content-length:")
    if stated:
        return len(body) >= int(rest.partition(b"\r\n")[0])
    return body.endswith(b"\r\n0\r\n\r\n")


@contextlib.asynccontextmanager
async def open_sockets(
    server: Server, exchange: Exchange, count: int, kind: type[Requester] = LoadSocket
) -> AsyncIterator[list[Requester]]:
    """Hold `count` sockets open, not all opened at once lest some be turned away."""
    sockets: list[Requester] = []
    try:
        while len(sockets) < count:
            batch = min(_OPENED_AT_ONCE, count - len(sockets))
            opening = (open_socket(server, exchange, kind) for _ in range(batch))
            sockets += await asyncio.gather(*opening)
        yield sockets
    finally:
        for socket in sockets:
            socket.abort()


async def open_socket(
    server: Server, exchange: Exchange, kind: type[Requester] = LoadSocket
) -> Requester:
    """Open one. Raises `LoadError`, and `TimeoutError`."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_PATIENCE):
        _, socket = await loop.create_connection(
            lambda: kind(server, exchange), "127.0.0.1", server.port
        )
        await socket.opened()
    return socket
