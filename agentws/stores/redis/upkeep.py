"""Work that keeps the store going, whatever the agent's code does to its task."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Upkeep:
    """Work of the daemon's that goes on until it returns or is ended; whoever else cancels it.

    Then it is begun anew.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._is_over = False
        self._begin()

    def end(self) -> None:
        """RemoteCancel it for good."""
        self._is_over = True
        self._task.cancel()

    async def ended(self) -> None:
        """Wait until it has ended."""
        while not self._task.done():
            await asyncio.wait({self._task})

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(self._on_done)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() and not self._is_over:
            self._begin()
