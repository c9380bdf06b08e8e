"""A log for a coroutine: wait, then take what has come."""

import asyncio
from collections.abc import Sequence
from typing import Final, Self

from agentws.stores.log import Follower, Log

BATCH_BYTES: Final = 64 * 1024
"""How much is taken at a time."""


class LogReader(Follower):
    """One follower that a coroutine serves; a context manager that stops listening at its end."""

    __slots__ = ("_waiter",)

    def __init__(self, log: Log, after: int = 0) -> None:
        """Listen from now on to the chunks numbered above `after`. Raises `ReplayGap`."""
        self._waiter: asyncio.Future[None] | None = None
        super().__init__(log, after)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def wake(self) -> None:
        """Let `read` go on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self, patience: float | None = None) -> Sequence[bytes]:
        """Return the next chunks; none where the log has ended.

        Raises `TimeoutError` after `patience` seconds without news, and `ReplayGap` when this
        follower fell behind what is held.
        """
        if not self._is_notified:
            await self._wait(patience)
        return self.take(BATCH_BYTES)

    async def _wait(self, patience: float | None) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            if patience is None:  # a time-out that never comes costs as much as one that may
                await self._waiter
            else:
                async with asyncio.timeout(patience):
                    await self._waiter
        finally:
            self._waiter = None
