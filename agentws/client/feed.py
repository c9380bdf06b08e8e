"""What has arrived of a run and was not read yet, and who waits for more."""

import asyncio
from collections import deque
from collections.abc import Callable

from agentws.client.events import Event, Reconnected


class Feed:
    """A queue with one reader and an end. `cursor` is the number of the last entry that was read.

    Entries have numbers; what the client itself adds, has the number 0 and takes no room.
    """

    def __init__(self, most: int, cursor: int) -> None:
        """Have room for `most` entries; it is up to who puts them not to put more."""
        self.cursor = cursor
        self.is_over = False
        """Whether nothing more will come, though there may be something to read."""
        self.was_read = False
        """Whether the reader came to the end."""
        self.on_room: Callable[[], None] | None = None
        """Called when the queue is half empty, once."""
        self._most = most
        self._taken = 0
        self._queue: deque[tuple[int, Event]] = deque()
        self._failure: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether another entry fits in."""
        return self._taken < self._most

    @property
    def is_crowded(self) -> bool:
        """Whether the reader should get its turn before more comes."""
        return 2 * self._taken >= self._most

    @property
    def is_awaited(self) -> bool:
        """Whether a reader waits for more."""
        return self._waiting is not None

    def put(self, number: int, event: Event) -> None:
        """Add an entry."""
        self._queue.append((number, event))
        self._taken += number > 0
        self._wake()

    def put_loss(self, loss: Reconnected) -> None:
        """Add that there was a loss, or that there was one more since what was put last."""
        if self._queue and isinstance(last := self._queue[-1][1], Reconnected):
            self._queue.pop()
            loss = Reconnected(last.attempts + loss.attempts, last.seconds + loss.seconds)
        self.put(0, loss)

    def end(self, failure: Exception | None = None) -> None:
        """Let it end after what is there, by a failure if there is one."""
        if not self.is_over:
            self.is_over, self._failure = True, failure
            self._wake()

    def discard(self) -> None:
        """Let it end at once, and quietly."""
        self._queue.clear()
        self._taken = 0
        self.is_over, self._failure = True, None
        self._wake()

    async def next(self) -> Event | None:
        """Return the next entry, None at the end.

        Raises the failure that ended it, and `RuntimeError` where somebody reads already.
        """
        while not self._queue:
            if self.is_over:
                self.was_read = True
                if self._failure is not None:
                    raise self._failure
                return None
            await self._news()
        number, event = self._queue.popleft()
        if number:
            self.cursor = number
            self._taken -= 1
        if self.on_room is not None and 2 * self._taken <= self._most:
            on_room, self.on_room = self.on_room, None
            on_room()
        return event

    async def _news(self) -> None:
        if self._waiting is not None:
            raise RuntimeError("A run is read by one reader at a time")
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
