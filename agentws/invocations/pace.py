"""The pace of streams whose generators await nothing, and so leave the event loop to nobody.

All times are of `time.monotonic`, in seconds: uvloop does not let its own go on during a turn.
"""

import asyncio
from collections import deque
from time import monotonic
from typing import Final

MOST: Final = 0.00025
"""For how long a stream has the event loop at a time, where few want it."""

LEAST: Final = 0.00005
"""For how long it has it at least: its followers' sockets are written to after each time."""

TURN: Final = 0.002
"""How long a turn of the loop should take, however many streams want it."""

_ROUND: Final = 0.02
"""After how long each stream should have had it, unless all have the least already."""

_MOST_AT_ONCE: Final = TURN / LEAST


class LoopQueue:
    """Where streams wait for the event loop when there are too many for all to have it in a turn.

    First come, first served: a few in each turn, so that nobody's cancel waits for all of them, and
    each long enough for it to pay.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._at_once = 1.0
        self._served_at = 0.0

    @property
    def share(self) -> float:
        """For how long a stream has the loop that is served now."""
        return min(max(_ROUND / (len(self._waiting) + 1), LEAST), MOST)

    async def wait(self) -> None:
        """Wait to be served."""
        served = self._loop.create_future()
        self._waiting.append(served)
        if len(self._waiting) == 1:
            self._served_at = monotonic()
            self._loop.call_soon(self._serve)
        await served

    def _serve(self) -> None:
        """Let some have the next turn, and go on in the one after that."""
        now = monotonic()
        self._at_once = served_at_once(self._at_once, now - self._served_at)
        self._served_at = now
        places = int(self._at_once)
        while self._waiting and places:
            served = self._waiting.popleft()
            if not served.done():  # else its invocation was cancelled
                served.set_result(None)
                places -= 1
        if self._waiting:
            self._loop.call_soon(self._serve)


def served_at_once(before: float, took: float) -> float:
    """Return how many to serve, where a turn of the loop with `before` of them took so long."""
    return min(max(before * TURN / max(took, TURN / 2), 1.0), _MOST_AT_ONCE)


class Pace:
    """When one stream is to let others have the event loop, found from how long they take."""

    __slots__ = ("_is_crowded", "_queue", "until")

    def __init__(self, queue: LoopQueue) -> None:
        self._queue = queue
        self._is_crowded = False
        self.until = 0.0
        """When others are to have it; at once, at first."""

    async def let_others(self) -> None:
        """Let others have the loop, and have it again after that."""
        left_at = monotonic()
        if self._is_crowded:
            await self._queue.wait()
        else:
            await asyncio.sleep(0)
        now = monotonic()
        self._is_crowded = now - left_at > TURN
        self.until = now + (self._queue.share if self._is_crowded else MOST)
