"""The load generator: sockets that cost so little that the server is what is measured."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, cast

from bench.frames import MessageCounter, text_frame

_PATH: Final = "/invocations_ws/ws"
_OPENED_AT_ONCE: Final = 100
_PATIENCE: Final = 10.0
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


class LoadSocket(asyncio.Protocol):
    """A WebSocket client that sends the next request when the last one is answered in full."""

    def __init__(self, exchange: Exchange) -> None:
        self.messages = 0
        """How many messages have come in."""
        self.turn_to(exchange)
        self._missing = 0
        self._rounds_left: float = 0
        self._counter = MessageCounter()
        self._response = b""
        self._upgraded = False
        self._milestone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        self._transport.write(
            f"GET {_PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Count what came, and ask again when that was all."""
        if not self._upgraded:
            self._upgrade(data)
            return
        if _ERROR in data:
            self._fail(f"The server answered {data.decode(errors='replace')}")
        messages = self._counter.feed(data)
        self.messages += messages
        self._missing -= messages
        if self._missing <= 0 and messages:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail, unless nobody waits for more."""
        self._fail(f"The server closed a socket: {exc}")

    async def opened(self) -> None:
        """Wait for the handshake. Raises `LoadError`."""
        await self._milestone

    def turn_to(self, exchange: Exchange) -> None:
        """Ask something else from now on."""
        self._request = text_frame(exchange.request)
        self._answers = exchange.answers

    def start(self, rounds: float = math.inf) -> "asyncio.Future[None]":
        """Ask `rounds` times; the future ends with the last answer, or with a `LoadError`."""
        self._rounds_left = rounds
        self._milestone = asyncio.get_running_loop().create_future()
        self._ask()
        return self._milestone

    def abort(self) -> None:
        """Drop the socket."""
        self._milestone.cancel()
        self._transport.abort()

    def _upgrade(self, data: bytes) -> None:
        self._response += data
        if not self._response.endswith(b"\r\n\r\n"):
            return
        self._upgraded = self._response.startswith(b"HTTP/1.1 101 ")
        if self._upgraded:
            self._milestone.set_result(None)
        else:
            self._fail(f"The handshake was answered {self._response.decode()}")

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


@contextlib.asynccontextmanager
async def open_sockets(
    port: int, exchange: Exchange, count: int
) -> AsyncIterator[list[LoadSocket]]:
    """Hold `count` sockets open, not all opened at once lest some be turned away."""
    sockets: list[LoadSocket] = []
    try:
        while len(sockets) < count:
            batch = min(_OPENED_AT_ONCE, count - len(sockets))
            sockets += await asyncio.gather(*(_open(port, exchange) for _ in range(batch)))
        yield sockets
    finally:
        for socket in sockets:
            socket.abort()


async def _open(port: int, exchange: Exchange) -> LoadSocket:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_PATIENCE):
        _, socket = await loop.create_connection(lambda: LoadSocket(exchange), "127.0.0.1", port)
        await socket.opened()
    return socket
