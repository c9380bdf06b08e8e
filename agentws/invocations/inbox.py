"""What clients have said to an invocation, and its handler has not read."""

import asyncio
from collections import deque

from agentws.agent.conversation import Input
from agentws.protocol.errors import PlatformError


class Inbox:
    """Inputs in the order in which they were accepted; each goes to one of those who wait."""

    def __init__(self, most: int) -> None:
        """Hold at most that many that nobody waits for."""
        self._most = most
        self._unread: deque[Input] = deque()
        self._readers: deque[asyncio.Future[None]] = deque()

    def put(self, message: Input) -> None:
        """Take an input. Raises `too_many_inputs`."""
        if len(self._unread) >= self._most:
            raise PlatformError(
                "too_many_inputs", f"The invocation has {self._most} inputs that it has not read"
            )
        self._unread.append(message)
        self._wake_reader()

    async def take(self) -> Input:
        """Return the oldest input, and wait for it where there is none."""
        while not self._unread:
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            except BaseException:
                # It was woken for an input that another one may have now.
                if reader.done() and not reader.cancelled():
                    self._wake_reader()
                raise
        return self._unread.popleft()

    def close(self) -> None:
        """Drop what was not read, and let nobody wait any more."""
        self._unread.clear()
        for reader in self._readers:
            reader.cancel()
        self._readers.clear()

    def _wake_reader(self) -> None:
        while self._unread and self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return
