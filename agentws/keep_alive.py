"""Ping messages after silence, for gateways that count nothing else as traffic (§8)."""

import asyncio
from typing import Final, Protocol

CHECKS: Final = 10
"""How often all sockets are looked at within the interval; so late a ping may be."""


class Quiet(Protocol):
    """A socket that may have been silent for too long."""

    def ping_after_silence(self, until: float) -> None:
        """Send a ping if nothing was sent since `until`, on the event loop's clock."""


class KeepAlive:
    """One clock for all sockets: thousands of timers would take more memory than the sockets."""

    def __init__(self, interval: float) -> None:
        """Ping after `interval` seconds of silence, 0 for never."""
        self._interval = interval
        self._sockets: set[Quiet] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, socket: Quiet) -> None:
        """Look after a socket from now on."""
        if self._interval:
            self._sockets.add(socket)
            if self._timer is None:
                self._schedule()

    def remove(self, socket: Quiet) -> None:
        """Look after a socket no longer."""
        self._sockets.discard(socket)
        if not self._sockets and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._interval / CHECKS, self._check)

    def _check(self) -> None:
        until = asyncio.get_running_loop().time() - self._interval
        for socket in self._sockets:
            socket.ping_after_silence(until)
        self._schedule()
