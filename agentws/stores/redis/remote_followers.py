"""Who follows a log of this replica on other replicas."""

import time
from typing import Final

from agentws.stores.log import Follower, Log

REMOTE_PATIENCE: Final = 5.0
"""Seconds without word from a replica after which nobody is thought to listen there."""


class RemoteFollower(Follower):
    """Whoever listens to a log on one other replica: its place is as far as chunks arrived there.

    It counts as a follower: the invocation is not deserted, and its stream waits for it.
    """

    __slots__ = ("heard_at",)

    def __init__(self, log: Log, position: int) -> None:
        self.heard_at = time.monotonic()
        super().__init__(log, max(position, log.first - 1))

    def wake(self) -> None:
        """See `Follower.wake`; it learns of news through Redis."""

    def advance(self, position: int) -> None:
        """Take note of how far it has come."""
        self.heard_at = time.monotonic()
        log = self.log
        self.position = max(self.position, min(position, log.last))
        self.taken_bytes = log.written - log.bytes_after(max(self.position, log.first - 1))
        log.resume_writer()


class RemoteFollowers(dict[str, RemoteFollower]):
    """The followers of one log, by their replicas."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def note(self, replica: str, position: int | None) -> None:
        """Take note that somebody follows, and how far he is; None when nobody does any more."""
        follower = self.get(replica)
        if position is None:
            if follower is not None:
                self.pop(replica).leave()
        elif follower is not None:
            follower.advance(position)
        elif not self._log.ended:
            self[replica] = RemoteFollower(self._log, position)

    def drop_silent(self, before: float) -> None:
        """Forget replicas that were last heard of before that time of the monotonic clock."""
        for replica, follower in list(self.items()):
            if follower.heard_at < before:
                self.pop(replica).leave()

    def excuse_silence(self) -> None:
        """Wait for word from now on: until now, none could have come."""
        for follower in self.values():
            follower.heard_at = time.monotonic()
