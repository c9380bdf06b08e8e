"""Where the logs of invocations are kept."""

from typing import Protocol

from agentws.stores.log import Follower, Log

__all__ = ["Follower", "Log", "Store"]


class Store(Protocol):
    """Keeps the log of every invocation while it runs and until its retention is over."""

    async def claim(self, log: Log) -> None:
        """Take on the log of a new invocation.

        Raises `InvocationError` with `already_exists` when the id is taken.
        """

    async def find(self, invocation_id: str) -> Log | None:
        """Return the log of an invocation, running or ended, or None."""

    async def finish(self, log: Log) -> None:
        """Take note that a log has ended: from now on it is retained for a limited time."""

    async def close(self) -> None:
        """Release what the store holds outside of its logs."""
