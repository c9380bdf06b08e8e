"""How many a second, now."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

_PERIOD: Final = 1.0
"""Seconds between two looks at what is counted."""

_WINDOW: Final = 10
"""How many of these periods a rate is taken over."""


class Rates:
    """The rates at which counts grow, by name, over the last ten seconds."""

    def __init__(self, **counts: Callable[[], int]) -> None:
        self._counts = counts
        self._looks: deque[tuple[float, dict[str, int]]] = deque(maxlen=_WINDOW + 1)
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to look; to be called inside the event loop."""
        self._looks.append(self._look())
        self._timer = asyncio.get_running_loop().call_later(_PERIOD, self.open)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def now(self) -> dict[str, float]:
        """Return the rates, per second."""
        now, counts = self._look()
        then, before = self._looks[0] if self._looks else (now, counts)
        seconds = max(now - then, _PERIOD)
        return {name: round((counts[name] - before[name]) / seconds, 2) for name in counts}

    def _look(self) -> tuple[float, dict[str, int]]:
        now = asyncio.get_running_loop().time()
        return now, {name: count() for name, count in self._counts.items()}
