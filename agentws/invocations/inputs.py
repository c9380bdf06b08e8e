"""Saying something to a running invocation, wherever it runs (§5)."""

from msgspec import UNSET, Struct, UnsetType

from agentws.invocations.caller import Caller
from agentws.invocations.invocation import Invocation
from agentws.invocations.live import runs
from agentws.invocations.lookup import Lookup
from agentws.invocations.ownership import existing
from agentws.protocol.encoding import encode
from agentws.protocol.errors import already_finished, lost
from agentws.protocol.inputs import Delivery
from agentws.protocol.records import Record
from agentws.stores.store import Store


class _Receipt(Struct):
    invocation_id: str
    input_id: str | UnsetType
    status: str = "accepted"


class Inputs:
    """Hands inputs to the replica that runs the invocation, and tells when it has them."""

    def __init__(self, lookup: Lookup, store: Store) -> None:
        self._lookup = lookup
        self._store = store

    async def send(
        self, live: Invocation | None, invocation_id: str, caller: Caller, delivery: Delivery
    ) -> bytes:
        """Deliver an input and return the answer as JSON; `live` is as `Lookup` has it.

        Raises `InvocationError`: `not_found`, `already_finished`, `store_unavailable`, and those of
        `Dialogue.deliver`.
        """
        found = existing(await self._lookup.snapshot(live, invocation_id, caller))
        if live is not None and runs(live, found.record):
            live.deliver(delivery)
        elif found.record.ended or not await self._store.deliver(invocation_id, delivery):
            _check_seen(await self._record(invocation_id, caller), delivery)
        return encode(_Receipt(invocation_id, delivery.input_id or UNSET))

    async def _record(self, invocation_id: str, caller: Caller) -> Record:
        return existing(await self._lookup.snapshot(None, invocation_id, caller)).record


def _check_seen(record: Record, delivery: Delivery) -> None:
    """Raise an error, unless the input was taken before the end."""
    if not record.ended:  # its replica knows nothing of it, and nobody has noticed yet
        raise lost()
    if delivery.input_id is None or delivery.input_id not in record.seen_inputs:
        raise already_finished(record.shown_status)
