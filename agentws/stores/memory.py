"""The store of a single daemon: logs in memory, gone with the process."""

import asyncio
import time
from collections import OrderedDict

from msgspec import Struct

from agentws.protocol import InvocationError, Record
from agentws.stores.log import Log


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
        self._running: dict[str, Log] = {}
        self._retained: OrderedDict[str, _Retained] = OrderedDict()  # in the order of their end
        self._sweep: asyncio.TimerHandle | None = None

    async def claim(self, log: Log) -> None:
        """See `Store.claim`."""
        invocation_id = log.record.invocation_id
        self._expire()
        if invocation_id in self._running or invocation_id in self._retained:
            raise InvocationError("already_exists", "An invocation with this id exists")
        self._running[invocation_id] = log

    async def find(self, invocation_id: str) -> Log | None:
        """See `Store.find`."""
        self._expire()
        log = self._running.get(invocation_id)
        if log is None and (kept := self._retained.get(invocation_id)) is not None:
            return Log(kept.record, chunks=kept.chunks, first=kept.first)
        return log

    async def finish(self, log: Log) -> None:
        """See `Store.finish`."""
        record = log.record
        self._running.pop(record.invocation_id, None)
        expires_at = time.monotonic() + self._retention
        self._retained[record.invocation_id] = _Retained(
            record, tuple(log.held), log.first, expires_at
        )
        if len(self._retained) > self._max_retained:
            self._retained.popitem(last=False)
        if self._sweep is None:
            self._schedule_sweep()

    async def close(self) -> None:
        """See `Store.close`."""
        if self._sweep is not None:
            self._sweep.cancel()

    def _expire(self) -> None:
        now = time.monotonic()
        while self._retained and next(iter(self._retained.values())).expires_at <= now:
            self._retained.popitem(last=False)

    def _schedule_sweep(self) -> None:
        """Sweep when the oldest expires: one timer for all, not one for each."""
        oldest = next(iter(self._retained.values()))
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(
            max(oldest.expires_at - time.monotonic(), 1.0), self._run_sweep
        )

    def _run_sweep(self) -> None:
        self._sweep = None
        self._expire()
        if self._retained:
            self._schedule_sweep()
