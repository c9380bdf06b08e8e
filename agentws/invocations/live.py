"""The invocations that run on this replica, by id."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from agentws.invocations.invocation import Invocation
from agentws.protocol.records import Record


class LiveInvocations:
    """Those that have not ended here; an id is here at most once."""

    def __init__(self, *, count_owners: bool = False) -> None:
        """`count_owners` tells whether anybody will ask how many an owner has."""
        self._owners: Counter[str | None] | None = Counter() if count_owners else None
        self._by_id: dict[str, Invocation] = {}
        self._emptied: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, invocation_id: object) -> bool:
        return invocation_id in self._by_id

    def all(self) -> Iterable[Invocation]:
        """Return all of them, as they are now."""
        return list(self._by_id.values())

    def get(self, invocation_id: str) -> Invocation | None:
        """Return the one of that id, if it runs here."""
        return self._by_id.get(invocation_id)

    def add(self, invocation: Invocation) -> None:
        """Know one that is about to begin."""
        self._by_id[invocation.log.record.invocation_id] = invocation
        invocation.caller.running += 1
        if self._owners is not None:
            self._owners[invocation.log.record.owner] += 1

    def forget(self, invocation: Invocation) -> None:
        """Count one no longer among those that run."""
        del self._by_id[invocation.log.record.invocation_id]
        invocation.caller.running -= 1
        if self._owners is not None:
            self._forget_owner(self._owners, invocation.log.record.owner)
        if not self._by_id and self._emptied is not None:
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
        if self._by_id:
            self._emptied = emptied
        else:
            emptied.set_result(None)
        return emptied


def runs(invocation: Invocation | None, record: Record) -> bool:
    """Tell whether a record is that of an invocation that runs here, not of one before it."""
    return invocation is not None and invocation.log.record is record
