"""What all parts of the store have agreed on."""

from typing import Final

from agentws.stores.redis.keys import Keys

LINGER: Final = 10.0
"""Seconds for which followers elsewhere can learn of an end, however short the retention is."""

NEWS_PATIENCE: Final = 1.0
"""Seconds after which one looks although no news has come, and renews what may have been lost."""


class Timings:
    """Who this replica is, what its service calls its keys, and how long what holds.

    Times are seconds; those that scripts take are milliseconds, and text already.
    """

    def __init__(
        self,
        *,
        replica: str,
        keys: Keys,
        lease: float,
        retention: float,
        replay_bytes: int,
        send_timeout: float,
    ) -> None:
        linger = max(retention, LINGER)
        self.replica = replica
        self.keys = keys
        self.lease = lease
        self.retention = retention
        self.replay_bytes = replay_bytes
        self.send_timeout = send_timeout
        self.lease_ms = _milliseconds(lease)
        self.retention_ms = _milliseconds(retention)
        """For how long an ended invocation is known."""
        self.linger_ms = _milliseconds(linger)
        """For how long its keys stay."""
        self.expiry_ms = _milliseconds(linger + 2 * lease)
        """For how long the keys of a running one stay, unless that is put off."""


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % round(seconds * 1000)
