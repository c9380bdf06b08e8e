"""Work that keeps the store going, whatever the agent's code does to its task."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

_logger: Final = logging.getLogger("agentws.store")

_PAUSE: Final = 1.0
"""Seconds after which work that failed is begun anew."""


class Upkeep:
    """Work of the daemon's that goes on until it returns or is ended.

    It is begun anew when somebody else cancels it, and, after a moment, when it fails in a way that
    nobody has thought of: without it, a replica would lose all that it runs, and never know.
    """

    def __init__(
        self, work: Callable[[], Coroutine[Any, Any, None]], pause: float = _PAUSE
    ) -> None:
        """Begin; `pause` is that after a failure, in seconds."""
        self._work = work
        self._pause = pause
        self._is_over = False
        self._begin()

    def end(self) -> None:
        """Cancel it for good."""
        self._is_over = True
        self._task.cancel()

    async def ended(self) -> None:
        """Wait until it has ended."""
        while not self._task.done():
            await asyncio.wait({self._task})

    def _begin(self) -> None:
        if not self._is_over:
            self._task = asyncio.create_task(self._work())
            self._task.add_done_callback(self._on_done)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            self._begin()
        elif (error := task.exception()) is not None:
            _logger.error("The upkeep of the store failed", exc_info=error)
            task.get_loop().call_later(self._pause, self._begin)
