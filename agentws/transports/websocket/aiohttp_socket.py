"""aiohttp's socket, and what we know of it."""

import asyncio
import contextlib
import os
import socket
import zlib
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

LAST_TYPES: Final = {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR}
"""The types of aiohttp's messages after which no other comes."""

INSTANT: Final = 1e-9
"""A time-out that lets `receive` return what is there, and nothing that is yet to come."""

READ_BURST: Final = 32
"""How many messages of one socket are read before others have their turn."""

_LINGER: Final = 5.0
"""For how many seconds a peer that is refused may go on sending what it has begun."""

_SILENCE: Final = 0.5
"""After how many seconds without a byte it has probably nothing more to say."""

_DISCARDED_AT_ONCE: Final = 65536
"""How many bytes are read, and dropped, at a time."""

_lingering: Final[set[asyncio.Task[None]]] = set()
"""Those that do so, as the event loop keeps no task from the collector."""


class Socket(web.WebSocketResponse):
    """aiohttp's socket, which tells a peer that what it compressed cannot be read."""

    async def close(
        self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True
    ) -> bool:
        """Close the socket; with 1007 where the peer's data is corrupt, for which aiohttp has 1000.

        aiohttp calls this itself when it cannot go on. A peer whose message is too large is in the
        midst of sending it.
        """
        if isinstance(self.exception(), zlib.error):
            code = WSCloseCode.INVALID_TEXT
        if code != WSCloseCode.MESSAGE_TOO_BIG or self.closed:
            return await super().close(code=code, message=message, drain=drain)
        self._read_to_the_end()
        return await super().close(code=code, message=message, drain=drain)

    def _read_to_the_end(self) -> None:
        """Take all that the peer has still to send, during the close and after it.

        A connection that is closed with bytes unread is reset, and the close frame is lost with it
        (RFC 9112 §9.6 has the same of HTTP): the client would take its message for undelivered, and
        send it again. A second descriptor is open for longer than the transport's.
        """
        transport_socket = self.get_extra_info("socket")
        if transport_socket is None or transport_socket.fileno() < 0:
            return
        kept = socket.socket(fileno=os.dup(transport_socket.fileno()))
        task = asyncio.create_task(_discard(kept))  # the handler's own is cancelled at the close
        _lingering.add(task)
        task.add_done_callback(_lingering.discard)


async def _discard(connection: socket.socket) -> None:
    """Read a connection until its peer ends it, but not for ever, and close it.

    Our side ends once the peer is silent: some clients that see the end while they send forget the
    close frame before it, and others wait for the end (RFC 6455 §7.1.1).
    """
    loop = asyncio.get_running_loop()
    with connection, contextlib.suppress(OSError, TimeoutError):
        connection.setblocking(False)
        async with asyncio.timeout(_LINGER):
            received = b"-"
            while received:
                silent = loop.call_later(_SILENCE, _shut, connection)
                try:
                    received = await loop.sock_recv(connection, _DISCARDED_AT_ONCE)
                finally:
                    silent.cancel()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
