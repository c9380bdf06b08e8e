"""The pace of streams whose generators await nothing, and so leave the event loop to nobody."""

from collections.abc import Awaitable
from time import monotonic
from typing import Final

MOST: Final = 0.00025
"""Seconds for which a stream has the event loop at most, where few want it."""

_TURN: Final = 0.001
"""Seconds after which a stream should have its next turn, however many want one."""

_LEAST: Final = 1e-6
"""A share to grow from; it is over before a chunk is."""


class Pace:
    """The share of the event loop that one stream has: the smaller, the longer it waits for it.

    Each stream finds it on its own, from the time that the others took: so that hundreds at full
    speed keep nobody's cancel waiting, and a lone one is not slowed down. Time is not the loop's,
    which uvloop does not let go on during a turn.
    """

    __slots__ = ("_share", "until")

    def __init__(self) -> None:
        self._share = MOST
        self.until = 0.0
        """When others are to have their turn, as `time.monotonic` has it; now, at first."""

    async def wait(self, others: Awaitable[None]) -> None:
        """Wait for others, and begin a turn after that."""
        left_at = monotonic()
        await others
        now = monotonic()
        self._share = next_share(self._share, now - left_at)
        self.until = now + self._share


def next_share(share: float, waited: float) -> float:
    """Return the share of a stream that had `share` before, and waited so long; all in seconds."""
    return min(max(share * _TURN / max(waited, _LEAST), _LEAST), MOST)
