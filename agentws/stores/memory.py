"""The store of a single daemon: logs in memory, gone with the process."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from msgspec import Struct

from agentws.protocol.errors import Cancelled, InvocationError, SessionBusy, already_exists
from agentws.protocol.frames import IfSessionBusy
from agentws.protocol.inputs import Delivery
from agentws.protocol.records import Record
from agentws.stores.listing import MOST_SCANNED, Cursor, Page, Query
from agentws.stores.log import Log, Outcome, Snapshot
from agentws.stores.memory_index import Index, Turns
from agentws.stores.store import Runner, Settled

SWEEP_PAUSE: Final = 1.0
"""Seconds between two sweeps, at least."""


class _Retained(Struct, gc=False):
    """An ended log, laid flat: a hundred thousand of them must not burden garbage collection."""

    record: Record
    chunks: tuple[bytes, ...]
    first: int
    expires_at: float

    def log(self) -> Log:
        """Return the log again."""
        return Log(self.record, chunks=self.chunks, first=self.first)


class MemoryStore:
    """Holds running logs, and ended ones for `retention` seconds, at most `max_retained`."""

    def __init__(self, *, retention: float, max_retained: int) -> None:
        self._retention = retention
        self._max_retained = max_retained
        self._entries: dict[str, Log | _Retained] = {}
        self._index = Index(self._is_held)
        self._turns = Turns(self._running)
        self._retained: deque[_Retained] = deque()  # in the order of their end
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many invocations are held, running and ended."""
        return len(self._entries)

    @property
    def replica(self) -> str:
        """See `Store.replica`."""
        return ""

    @property
    def trouble(self) -> str:
        """See `Store.trouble`."""
        return ""

    async def open(self) -> None:
        """See `Store.open`."""

    async def ping(self) -> str:
        """See `Store.ping`."""
        return ""

    def claim(
        self,
        log: Log,
        runner: Runner,  # noqa: ARG002 - nobody else speaks to it
        on_settled: Settled,
        if_session_busy: IfSessionBusy = "parallel",
    ) -> None:
        """See `Store.claim`."""
        record = log.record
        if self._entries.setdefault(record.invocation_id, log) is not log:
            self._expire()
            if self._entries.setdefault(record.invocation_id, log) is not log:
                on_settled(already_exists(), ())
                return
        rivals: Sequence[str] = ()
        if if_session_busy != "parallel":
            rivals = self._turns.others(record)
            if rivals and if_session_busy == "reject":
                del self._entries[record.invocation_id]
                on_settled(SessionBusy(rivals[0]), ())
                return
        self._index.add(record)
        if self._turns.is_asked:
            self._turns.add(record)
        on_settled(None, rivals)

    def withdraw(self, log: Log, refusal: InvocationError) -> None:
        """See `Store.withdraw`."""
        log.refuse(refusal)
        if self._turns.is_asked:
            self._turns.drop(log.record)
        self._drop(log.record)

    async def look_up(self, invocation_id: str) -> Snapshot | None:
        """See `Store.look_up`."""
        log = await self.find(invocation_id)
        return None if log is None else log.snapshot

    async def find(self, invocation_id: str) -> Log | None:
        """See `Store.find`."""
        self._expire()
        entry = self._entries.get(invocation_id)
        return entry.log() if isinstance(entry, _Retained) else entry

    def finish(self, log: Log, outcome: Outcome) -> None:
        """See `Store.finish`."""
        log.end(outcome)
        if self._turns.is_asked:
            self._turns.drop(log.record)
        chunks = log.retained
        expires_at = time.monotonic() + self._retention
        kept = _Retained(log.record, chunks, log.last + 1 - len(chunks), expires_at)
        self._entries[log.record.invocation_id] = kept
        self._retained.append(kept)
        if len(self._retained) > self._max_retained:
            self._drop(self._retained.popleft().record)
        if self._sweep is None:
            self._schedule_sweep()

    async def list(self, query: Query) -> Page:
        """See `Store.list`."""
        self._expire()
        found: list[Snapshot] = []
        last: Record | None = None
        records = self._index.records(query)
        for last in islice(records, MOST_SCANNED):
            if query.status is None or last.shown_status == query.status:
                found.append(self._snapshot(last))
                if len(found) == query.limit:
                    break
        is_more = next(records, None) is not None
        return Page(found, Cursor.of(last) if is_more and last is not None else None)

    async def cancel(self, invocation_id: str, reason: Cancelled) -> None:
        """See `Store.cancel`; nobody else runs anything."""

    async def deliver(self, invocation_id: str, delivery: Delivery) -> bool:  # noqa: ARG002
        """See `Store.deliver`; nobody else runs anything."""
        return False

    async def close(self) -> None:
        """See `Store.close`."""
        if self._sweep is not None:
            self._sweep.cancel()

    def _running(self) -> Iterator[Record]:
        return (entry.record for entry in self._entries.values() if isinstance(entry, Log))

    def _is_held(self, record: Record) -> bool:
        entry = self._entries.get(record.invocation_id)
        return entry is not None and entry.record is record

    def _snapshot(self, record: Record) -> Snapshot:
        entry = self._entries[record.invocation_id]
        return (entry.log() if isinstance(entry, _Retained) else entry).snapshot

    def _drop(self, record: Record) -> None:
        del self._entries[record.invocation_id]
        self._index.drop(record)

    def _expire(self) -> None:
        now = time.monotonic()
        while self._retained and self._retained[0].expires_at <= now:
            self._drop(self._retained.popleft().record)

    def _schedule_sweep(self) -> None:
        """Sweep when the oldest expires: one timer for all, not one for each."""
        delay = max(self._retained[0].expires_at - time.monotonic(), SWEEP_PAUSE)
        self._sweep = asyncio.get_running_loop().call_later(delay, self._run_sweep)

    def _run_sweep(self) -> None:
        self._sweep = None
        self._expire()
        if self._retained:
            self._schedule_sweep()
