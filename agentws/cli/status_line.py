"""The line that tells how it stands, on stderr, where that is a terminal."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.status import Status

_QUIET: Final = 0.3
"""Seconds without anything new after which the line is shown."""

_TICK: Final = 0.1
"""Seconds between two looks."""


class StatusLine:
    """Shows a text where nothing else was printed for a moment; gone before anything else is."""

    def __init__(self, text: Callable[[], str], is_free: Callable[[], bool]) -> None:
        """`is_free` tells whether the cursor is at the beginning of a line that may be used."""
        self._text = text
        self._is_free = is_free
        self._hidden_at = time.monotonic()
        self._status: Status | None = None
        self._is_wanted = sys.stderr.isatty()

    async def run(self) -> None:
        """Show it whenever there is room, until cancelled."""
        try:
            while self._is_wanted:
                await asyncio.sleep(_TICK)
                self._tick()
        finally:
            self.hide()

    def hide(self) -> None:
        """Take it away."""
        self._hidden_at = time.monotonic()
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _tick(self) -> None:
        if self._status is not None:
            self._status.update(self._text())
        elif time.monotonic() - self._hidden_at >= _QUIET and self._is_free():
            # Imported when there is time, as most of what is invoked answers at once.
            from rich.console import Console
            from rich.status import Status

            self._status = Status(self._text(), console=Console(stderr=True), spinner="dots")
            self._status.start()
