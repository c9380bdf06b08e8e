"""What all parts of the store have agreed on."""

from typing import Final

from msgspec import Struct

LINGER: Final = 10.0
"""Seconds for which followers elsewhere can learn of an end, however short the retention is."""

NEWS_PATIENCE: Final = 1.0
"""Seconds after which one looks although no news has come, and renews what may have been lost."""


class Terms(Struct, frozen=True):
    """Who this replica is, and how long what holds. Times are seconds."""

    replica: str
    lease: float
    retention: float
    replay_bytes: int
    send_timeout: float

    @property
    def lease_ms(self) -> int:
        """How long a lease holds, in milliseconds."""
        return int(self.lease * 1000)

    @property
    def retention_ms(self) -> int:
        """For how long an ended invocation is known, in milliseconds."""
        return int(self.retention * 1000)

    @property
    def linger_ms(self) -> int:
        """For how long its keys stay, in milliseconds."""
        return int(max(self.retention, LINGER) * 1000)

    @property
    def running_ms(self) -> int:
        """For how long the keys of a running one stay, unless that is put off, in milliseconds."""
        return self.linger_ms + 2 * self.lease_ms
