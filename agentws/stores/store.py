"""What a store does: it keeps the logs of invocations, whoever listens to them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from agentws.protocol.errors import Cancelled, InvocationError
from agentws.protocol.frames import IfSessionBusy
from agentws.protocol.inputs import Delivery
from agentws.stores.listing import Page, Query
from agentws.stores.log import Log, Outcome, Snapshot


class Runner(Protocol):
    """What runs an invocation, as the store knows it: spoken to by other replicas."""

    def stop(self, reason: InvocationError) -> None:
        """Cancel it, for the reason given."""

    def deliver(self, delivery: Delivery) -> None:
        """Take an input. Raises `InvocationError` where it is refused."""


Settled = Callable[[InvocationError | None, Sequence[str]], None]
"""Told once whether an id was taken: None, or the reason why it was not.

With it come the other running invocations of the session, the newest first, where the claim is to
interrupt them.
"""


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
    def trouble(self) -> str:
        """Why new invocations cannot be taken on, in a few words without secrets; else empty."""

    async def open(self) -> None:
        """Make ready, before anything else. Raises `StoreError`."""

    async def ping(self) -> str:
        """Try whether it answers, without opening it; return what is wrong, in a few words.

        It is the empty text where nothing is, and has no secrets in any case.
        """

    def claim(
        self,
        log: Log,
        runner: Runner,
        on_settled: Settled,
        if_session_busy: IfSessionBusy = "parallel",
    ) -> None:
        """Take on the log of a new invocation, which `runner` runs.

        `on_settled` is called now or later, with `already_exists` when the id is taken, with
        `session_busy` when it is to be rejected for that (§5), or with `store_unavailable`.
        """

    def withdraw(self, log: Log, refusal: InvocationError) -> None:
        """Give an id back that was claimed for what will not run; followers get the refusal."""

    async def look_up(self, invocation_id: str) -> Snapshot | None:
        """Return what is known of an invocation, running or ended, or None."""

    async def find(self, invocation_id: str) -> Log | None:
        """Return the log of an invocation, to be followed, or None."""

    def finish(self, log: Log, outcome: Outcome) -> None:
        """End a log that has not ended, and retain it from then on for a limited time.

        It ends now or later: whoever is told of the end finds the invocation ended everywhere.
        """

    async def list(self, query: Query) -> Page:
        """Return a page of what is known of an owner's invocations, the newest first."""

    async def cancel(self, invocation_id: str, reason: Cancelled) -> None:
        """Ask whoever else runs an invocation to stop it, and do not wait."""

    async def deliver(self, invocation_id: str, delivery: Delivery) -> bool:
        """Hand an input to the replica that runs an invocation, and wait until it has it.

        Tell whether it still ran there. Raises `InvocationError` where it is refused, and
        `store_unavailable` where it is not known whether it arrived.
        """

    async def close(self) -> None:
        """Release what the store holds outside of its logs."""
