"""What a store does: it keeps the logs of invocations, whoever listens to them."""

from collections.abc import Callable
from typing import Protocol

from agentws.protocol.errors import InvocationError
from agentws.stores.log import Log, Outcome, Snapshot

Stop = Callable[[InvocationError], None]
"""Cancels an invocation, for the reason given."""


Settled = Callable[[InvocationError | None], None]
"""Told once whether an id was taken: None, or the reason why it was not."""


class StoreError(Exception):
    """The store cannot be used as it is configured; the text is one sentence that says why."""


class Store(Protocol):
    """Keeps the log of every invocation while it runs and until its retention is over.

    Where it is shared by several replicas, what is awaited may raise `InvocationError` with
    `store_unavailable`. What begins and ends an invocation is not awaited, but told by callbacks:
    a task that awaits can be cancelled, and whatever the agent does, the end is told.
    """

    @property
    def replica(self) -> str:
        """What this replica is called among those that share the store; empty if none can."""

    @property
    def available(self) -> bool:
        """Whether new invocations can be taken on."""

    async def open(self) -> None:
        """Make ready, before anything else. Raises `StoreError`."""

    def claim(self, log: Log, stop: Stop, on_settled: Settled) -> None:
        """Take on the log of a new invocation; `stop` is called when it is to be cancelled.

        `on_settled` is called now or later, with `already_exists` when the id is taken, or with
        `store_unavailable`.
        """

    async def look_up(self, invocation_id: str) -> Snapshot | None:
        """Return what is known of an invocation, running or ended, or None."""

    async def find(self, invocation_id: str) -> Log | None:
        """Return the log of an invocation, to be followed, or None."""

    def finish(self, log: Log, outcome: Outcome) -> None:
        """End a log that has not ended, and retain it from then on for a limited time.

        It ends now or later: whoever is told of the end finds the invocation ended everywhere.
        """

    async def cancel(self, invocation_id: str) -> None:
        """Ask whoever else runs an invocation to stop it, and do not wait."""

    async def close(self) -> None:
        """Release what the store holds outside of its logs."""
