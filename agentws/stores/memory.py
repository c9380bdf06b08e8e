"""The store of a single daemon: logs in memory, gone with the process."""

import asyncio
import time
from collections import deque
from typing import Final

from msgspec import Struct

from agentws.protocol.errors import already_exists
from agentws.protocol.records import Record
from agentws.stores.log import Log, Outcome, Snapshot
from agentws.stores.store import Settled, Stop

SWEEP_PAUSE: Final = 1.0
"""Seconds between two sweeps, at least."""


class _Retained(Struct, gc=False):
    """An ended log, laid flat: a hundred thousand of them must not burden garbage collection."""

    record: Record
    chunks: tuple[bytes, ...]
    first: int
    expires_at: float


class MemoryStore:
    """Holds running logs, and ended ones for `retention` seconds, at most `max_retained`."""

    def __init__(self, *, retention: float, max_retained: int) -> None:
        self._retention = retention
        self._max_retained = max_retained
        self._entries: dict[str, Log | _Retained] = {}
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
    def available(self) -> bool:
        """See `Store.available`."""
        return True

    async def open(self) -> None:
        """See `Store.open`."""

    def claim(self, log: Log, _stop: Stop, on_settled: Settled) -> None:
        """See `Store.claim`."""
        if self._entries.setdefault(log.record.invocation_id, log) is not log:
            self._expire()
            if self._entries.setdefault(log.record.invocation_id, log) is not log:
                on_settled(already_exists())
                return
        on_settled(None)

    async def look_up(self, invocation_id: str) -> Snapshot | None:
        """See `Store.look_up`."""
        log = await self.find(invocation_id)
        return None if log is None else log.snapshot

    async def find(self, invocation_id: str) -> Log | None:
        """See `Store.find`."""
        self._expire()
        entry = self._entries.get(invocation_id)
        if isinstance(entry, _Retained):
            return Log(entry.record, chunks=entry.chunks, first=entry.first)
        return entry

    def finish(self, log: Log, outcome: Outcome) -> None:
        """See `Store.finish`."""
        log.end(outcome)
        chunks = log.retained
        expires_at = time.monotonic() + self._retention
        kept = _Retained(log.record, chunks, log.last + 1 - len(chunks), expires_at)
        self._entries[log.record.invocation_id] = kept
        self._retained.append(kept)
        if len(self._retained) > self._max_retained:
            self._drop_oldest()
        if self._sweep is None:
            self._schedule_sweep()

    async def cancel(self, _invocation_id: str) -> None:
        """See `Store.cancel`; nobody else runs anything."""

    async def close(self) -> None:
        """See `Store.close`."""
        if self._sweep is not None:
            self._sweep.cancel()

    def _drop_oldest(self) -> None:
        del self._entries[self._retained.popleft().record.invocation_id]

    def _expire(self) -> None:
        now = time.monotonic()
        while self._retained and self._retained[0].expires_at <= now:
            self._drop_oldest()

    def _schedule_sweep(self) -> None:
        """Sweep when the oldest expires: one timer for all, not one for each."""
        delay = max(self._retained[0].expires_at - time.monotonic(), SWEEP_PAUSE)
        self._sweep = asyncio.get_running_loop().call_later(delay, self._run_sweep)

    def _run_sweep(self) -> None:
        self._sweep = None
        self._expire()
        if self._retained:
            self._schedule_sweep()
