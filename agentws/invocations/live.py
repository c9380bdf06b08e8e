"""The invocations that run on this replica, by id."""

import asyncio
from collections import Counter

from agentws.agent.context import InvocationContext
from agentws.invocations.invocation import Invocation
from agentws.protocol.records import Record


class LiveInvocations(dict[str, Invocation]):
    """Those that have not ended here; an id is here at most once."""

    def __init__(self, *, count_owners: bool = False) -> None:
        """`count_owners` tells whether anybody will ask how many an owner has."""
        super().__init__()
        self._owners: Counter[str | None] | None = Counter() if count_owners else None
        self._emptied: asyncio.Future[None] | None = None
        self._chunks_of_ended = 0

    @property
    def asking(self) -> int:
        """How many wait for somebody's answer."""
        return sum(bool(invocation.log.record.awaiting) for invocation in self.values())

    @property
    def chunks(self) -> int:
        """How many chunks have been written, by those that have ended, too."""
        return self._chunks_of_ended + sum(invocation.log.last for invocation in self.values())

    def held_by(self, context: InvocationContext) -> Invocation | None:
        """Return the one whose handler was called with a context; see `Conversations`."""
        invocation = self.get(context.invocation_id)
        return invocation if invocation is not None and invocation.holds(context) else None

    def add(self, invocation: Invocation) -> None:
        """Know one that is about to begin."""
        self[invocation.log.record.invocation_id] = invocation
        invocation.caller.running += 1
        if self._owners is not None:
            self._owners[invocation.log.record.owner] += 1

    def forget(self, invocation: Invocation) -> None:
        """Count one no longer among those that run."""
        del self[invocation.log.record.invocation_id]
        self._chunks_of_ended += invocation.log.last
        invocation.caller.running -= 1
        if self._owners is not None:
            self._forget_owner(self._owners, invocation.log.record.owner)
        if not self and self._emptied is not None:
            self._emptied.set_result(None)
            self._emptied = None

    def running_of(self, owner: str) -> int:
        """Return how many an owner has."""
        return 0 if self._owners is None else self._owners[owner]

    def _forget_owner(self, owners: "Counter[str | None]", owner: str | None) -> None:
        owners[owner] -= 1
        if not owners[owner]:
            del owners[owner]

    def emptied(self) -> "asyncio.Future[None]":
        """Return what is done as soon as none runs any more."""
        emptied = asyncio.get_running_loop().create_future()
        if self:
            self._emptied = emptied
        else:
            emptied.set_result(None)
        return emptied


def runs(invocation: Invocation | None, record: Record) -> bool:
    """Tell whether a record is that of an invocation that runs here, not of one before it."""
    return invocation is not None and invocation.log.record is record
