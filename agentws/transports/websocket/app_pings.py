"""Ping messages after silence, for gateways that count nothing else as traffic (§8)."""

from typing import Final, Protocol

from agentws.transports.websocket.rounds import Rounds

CHECKS: Final = 10
"""How often all sockets are looked at within the interval; so late a ping may be."""


class Quiet(Protocol):
    """A socket that may have been silent for too long."""

    def ping_after_silence(self, until: float) -> None:
        """Send a ping if nothing was sent since `until`, on the event loop's clock."""


class AppPings:
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
