"""Reads a raw socket while its handler does not (§8)."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import WSMessage, WSMsgType

from agentws.transports.websocket.aiohttp_socket import LAST_TYPES
from agentws.transports.websocket.data_frames import size_of

LISTEN_AFTER: Final = 0.25
"""Seconds for which a handler may read nothing until its socket is listened to; twice at most."""

MOST_UNREAD: Final = 16 * 1024
"""How many messages may wait for a handler that does not read, however little is in them."""

DATA_TYPES: Final = {WSMsgType.TEXT, WSMsgType.BINARY}


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
        self._unread_bytes -= payload_size(message)
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
        # Raised where two tasks of a handler's receive at a time, which one of them is told.
        with contextlib.suppress(RuntimeError):
            while True:
                if self._is_full:
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room
                message = await self._read()
                self._unread.append(message)
                self._unread_bytes += payload_size(message)
                if message.type in LAST_TYPES:
                    return


def payload_size(message: WSMessage) -> int:
    """Return how many bytes a message holds for a handler; none where it is about the socket."""
    return size_of(message.data) if message.type in DATA_TYPES else 0
