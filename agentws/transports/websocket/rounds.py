"""One clock that looks after many sockets."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Visited = TypeVar("Visited")


class Rounds(Generic[Visited]):
    """One clock for all sockets: thousands of timers would take more memory than the sockets."""

    def __init__(self, period: float, visit: Callable[[Visited, float], None]) -> None:
        """Call `visit` for each socket every `period` seconds, with the event loop's time."""
        self._period = period
        self._visit = visit
        self._sockets: set[Visited] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, socket: Visited) -> None:
        """Look after a socket from now on."""
        self._sockets.add(socket)
        if self._timer is None:
            self._schedule()

    def remove(self, socket: Visited) -> None:
        """Look after a socket no longer."""
        self._sockets.discard(socket)
        if not self._sockets and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period, self._go)

    def _go(self) -> None:
        now = asyncio.get_running_loop().time()
        for socket in self._sockets:
            self._visit(socket, now)
        self._schedule()
