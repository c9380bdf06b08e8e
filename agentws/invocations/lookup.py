"""Finding an invocation for whoever asks of it, wherever it runs or ran."""

from agentws.invocations.caller import Caller
from agentws.invocations.invocation import Invocation
from agentws.invocations.live import LiveInvocations, runs
from agentws.invocations.ownership import check_owner, existing
from agentws.stores.log import Log, Snapshot
from agentws.stores.store import Store


class Lookup:
    """Finds what the caller may know of.

    Each question names the invocation of that id that ran here when it was asked (`live`), for what
    a socket asks takes effect in the order of its messages, however long the store takes (§3).
    """

    def __init__(self, live: LiveInvocations, store: Store) -> None:
        self._live = live
        self._store = store

    async def snapshot(
        self, live: Invocation | None, invocation_id: str, caller: Caller
    ) -> Snapshot | None:
        """Return what is known of an invocation, or None. Raises `not_found` for another's (§5)."""
        if live is not None:
            await live.claim_settled()
        found = await self._store.look_up(invocation_id)
        if found is None:
            return None
        if live is None and runs(self._live.get(invocation_id), found.record):
            return None  # it was started after the caller had asked
        check_owner(found.record, caller)
        return found

    async def log(self, live: Invocation | None, invocation_id: str, caller: Caller) -> Log:
        """Return the log of an invocation, to be followed. Raises `not_found`."""
        existing(await self.snapshot(live, invocation_id, caller))
        return existing(await self._store.find(invocation_id))
