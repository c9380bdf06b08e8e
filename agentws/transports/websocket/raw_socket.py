"""The socket that an agent's own handler gets: aiohttp's, which sends with a deadline."""

import asyncio
import contextlib
import logging
import operator
from collections.abc import Awaitable
from typing import Any, Final

from aiohttp import WSCloseCode, WSMessage, WSMsgType

from agentws.transports.websocket.aiohttp_socket import LAST_TYPES, READ_BURST, Socket
from agentws.transports.websocket.close_log import Ending, may_be_sent
from agentws.transports.websocket.connection import Connection
from agentws.transports.websocket.data_frames import size_of
from agentws.transports.websocket.raw_listener import DATA_TYPES, Listener, payload_size

_logger: Final = logging.getLogger("agentws.raw")

_LONGEST_REASON: Final = 123
"""Bytes of text that a close frame has room for beside its code (RFC 6455 §5.5)."""


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
        message = await self._receive_past_pings(timeout)
        self.connection.bytes_received += payload_size(message)
        if message.type in LAST_TYPES:
            self.connection.note_last(message)
        if message.type is WSMsgType.CLOSE:
            await self.connection.answer_close(message)
        return message

    async def _receive_past_pings(self, timeout: float | None) -> WSMessage:  # noqa: ASYNC109
        while True:
            # aiohttp answers pings in here, which fails once the network has ended the socket; what
            # was received before that, and how it ended, is still to be learnt.
            with contextlib.suppress(ConnectionError):
                return await super().receive(timeout)

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
        if opcode in DATA_TYPES:
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
