"""Clocks that look after many sockets each, such as for ping messages after silence (§8)."""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

CHECKS: Final = 10
"""How often all sockets are looked at within the interval; so late a ping may be."""

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


class Quiet(Protocol):
    """A socket that may have been silent for too long."""

    def ping_after_silence(self, until: float) -> None:
        """Send a ping if nothing was sent since `until`, on the event loop's clock."""


class KeepAlive:
    """Ping messages after silence, for gateways that count nothing else as traffic (§8)."""

    def __init__(self, interval: float) -> None:
        """Ping after `interval` seconds of silence, 0 for never."""
        self._interval = interval
        self._rounds = Rounds[Quiet](interval / CHECKS, self._visit)

    def add(self, socket: Quiet) -> None:
        """Look after a socket from now on."""
        if self._interval:
            self._rounds.add(socket)

    def remove(self, socket: Quiet) -> None:
        """Look after a socket no longer."""
        self._rounds.remove(socket)

    def _visit(self, socket: Quiet, now: float) -> None:
        socket.ping_after_silence(now - self._interval)
