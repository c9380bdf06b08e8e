"""A follower of a log that takes what there is as soon as it is there."""

import asyncio
from typing import Final, Protocol

from agentws.protocol.errors import ReplayGap
from agentws.stores.log import Follower, Log

_BATCH_BYTES: Final = 64 * 1024


class Hearer(Protocol):
    """Whoever is told what a log says."""

    def hear(self, log: Log, number: int, entry: bytes) -> None:
        """Take an entry of the log."""

    def hear_gap(self, log: Log, gap: ReplayGap) -> None:
        """Take the news that what comes next is no longer held, and that nothing else follows."""

    def hear_end(self, log: Log) -> None:
        """Take the news that there will be no more."""


class Listener(Follower):
    """Takes entries in turns of the event loop of its own, so that no writer waits for a test."""

    def __init__(self, log: Log, after: int, hearer: Hearer) -> None:
        """Listen from now on to what is numbered above `after`. Raises `ReplayGap`."""
        self._hearer = hearer
        self._loop = asyncio.get_running_loop()
        self._left = False
        super().__init__(log, after)

    def wake(self) -> None:
        """Take what there is in the next turn."""
        self._loop.call_soon(self._take)

    def leave(self) -> None:
        """Stop listening."""
        self._left = True
        super().leave()

    def _take(self) -> None:
        if self._left:
            return
        first = self.position + 1
        try:
            entries = self.take(_BATCH_BYTES)
        except ReplayGap as gap:
            self.leave()
            self._hearer.hear_gap(self.log, gap)
            return
        for number, entry in enumerate(entries, first):
            self._hearer.hear(self.log, number, entry)
        if self.finished:
            self.leave()
            self._hearer.hear_end(self.log)
