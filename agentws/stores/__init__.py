"""Where the logs of invocations are kept."""

from collections.abc import Callable
from typing import Protocol

from agentws.protocol import InvocationError
from agentws.stores.log import Follower, Log, Outcome, Snapshot

__all__ = ["Follower", "Log", "Outcome", "Snapshot", "Stop", "Store", "StoreError"]

Stop = Callable[[InvocationError], None]
"""Cancels an invocation, for the reason given."""


class StoreError(Exception):
    """The store cannot be used as it is configured; the text is one sentence that says why."""


class Store(Protocol):
    """Keeps the log of every invocation while it runs and until its retention is over.

    Where it is shared by several replicas, every method may raise `InvocationError` with
    `store_unavailable`.
    """

    @property
    def available(self) -> bool:
        """Whether new invocations can be taken on."""

    async def open(self) -> None:
        """Make ready, before anything else. Raises `StoreError`."""

    async def claim(self, log: Log, stop: Stop) -> None:
        """Take on the log of a new invocation; `stop` is called when it is to be cancelled.

        Raises `InvocationError` with `already_exists` when the id is taken.
        """

    async def look_up(self, invocation_id: str) -> Snapshot | None:
        """Return what is known of an invocation, running or ended, or None."""

    async def find(self, invocation_id: str) -> Log | None:
        """Return the log of an invocation, to be followed, or None."""

    async def finish(self, log: Log, outcome: Outcome) -> None:
        """End a log, unless it has ended, and retain it from now on for a limited time.

        When this returns, whoever looks the invocation up finds it ended.
        """

    async def cancel(self, invocation_id: str) -> None:
        """Ask whoever else runs an invocation to stop it, and do not wait."""

    async def close(self) -> None:
        """Release what the store holds outside of its logs."""
