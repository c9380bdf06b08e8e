"""Looks at what Redis holds of an invocation, whoever wrote it."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from agentws.stores.listing import MOST_SCANNED, Cursor, Page, Query
from agentws.stores.log import Log, Snapshot
from agentws.stores.redis import scripts
from agentws.stores.redis.commands import Commands, Unavailable, is_wrong_type
from agentws.stores.redis.keys import owner_name, session_name
from agentws.stores.redis.lease import Lease
from agentws.stores.redis.record_reply import (
    NOT_OURS,
    RecordReply,
    Unreadable,
    extend,
    read_reply,
    read_snapshot,
)
from agentws.stores.redis.timings import Timings

_logger: Final = logging.getLogger("agentws.store")

LISTED: Final = 50
"""How many invocations of a list are looked at at a time."""

PAGE: Final = 16
"""How many entries of a stream are read at a time; a writer makes them 64 KiB long at most."""


class Reader:
    """Looks, and finds out on the way that a replica is dead."""

    def __init__(self, commands: Commands, lease: Lease, timings: Timings) -> None:
        self._commands = commands
        self._lease = lease
        self._timings = timings
        self._losses: Counter[str] = Counter()

    def tell_losses(self) -> None:
        """Say in the log what was found lost since this was called before, and with whom."""
        for replica, count in self._losses.items():
            _logger.warning(
                "Replica %s is dead, or has forgotten what it ran: %d invocations are lost",
                replica,
                count,
                extra={"replica": replica, "lost": count},
            )
        self._losses.clear()

    async def look(self, invocation_id: str) -> RecordReply | None:
        """Return the record of an invocation that is still retained, without chunks.

        Raises `Unavailable`.
        """
        return await self._read(invocation_id, after=b"", is_gone_too=False)

    async def look_after(self, invocation_id: str, number: int) -> RecordReply | None:
        """Return the record, retained or just over, and the first page of chunks after a number.

        Raises `Unavailable`.
        """
        return await self._read(invocation_id, after=b"%d" % number, is_gone_too=True)

    async def lay_out(self, seen: RecordReply) -> Log:
        """Return the log of an ended invocation. Raises `Unavailable`."""
        record, first, last = seen.snapshot
        log = Log(record, sys.maxsize, first=first)
        while log.last < last:
            page = await self.look_after(record.invocation_id, log.last)
            if page is not None:
                extend(log, page)
            if page is None or page.is_last:
                break
        if log.last < last:  # the rest was removed by somebody else
            log.skip(last + 1)
        return log

    async def list(self, query: Query) -> Page:
        """Return a page of what an owner, or a session of his, has. Raises `Unavailable`."""
        if query.session_id is None:
            name = owner_name(query.owner)
        else:
            name = session_name(query.owner, query.session_id)
        found: list[Snapshot] = []
        place, looked_at = query.after, 0
        while True:
            rows, last, count = await self._list(self._timings.keys.list(name), place)
            for snapshot in rows:
                place = Cursor.of(snapshot.record)
                if query.status in (None, snapshot.record.shown_status):
                    found.append(snapshot)
                    if len(found) == query.limit:
                        return Page(found, place)
            if count < LISTED:
                return Page(found, None)
            place = last
            looked_at += count
            if looked_at >= MOST_SCANNED:
                return Page(found, place)

    async def _list(
        self, key: bytes, after: Cursor | None
    ) -> tuple[Sequence[Snapshot], Cursor | None, int]:
        """Return some of a list, the place of the last that was looked at, and how many were."""
        newest = b"+inf" if after is None else repr(after.created_at).encode()
        known = b"" if after is None else after.invocation_id.encode()
        arguments = self._timings.keys.root, newest, known, b"%d" % LISTED
        try:
            rows, last, score, count = await self._commands.run(scripts.LIST, (key,), arguments)
        except ResponseError as error:
            _logger.error("Redis refused to read %s: %s", key, error)
            raise Unavailable from None
        place = Cursor(float(score), last.decode()) if last else None
        return list(_readable(rows)), place, int(count)

    async def _read(
        self, invocation_id: str, after: bytes, is_gone_too: bool
    ) -> RecordReply | None:
        names = self._timings.keys
        keys = names.record(invocation_id), names.chunks(invocation_id)
        arguments = (
            names.root,
            invocation_id.encode(),
            names.news(invocation_id),
            after,
            b"%d" % PAGE,
            b"%d" % self._lease.may_judge,
            b"%d" % is_gone_too,
            self._timings.retention_ms,
            self._timings.linger_ms,
            self._timings.lease_ms,
        )
        try:
            reply = await self._commands.run(scripts.READ, keys, arguments)
            seen = read_reply(invocation_id, reply, PAGE)
            if seen is not None and seen.is_found_lost:
                self._losses[seen.replica] += 1
            return seen
        except Unreadable as e:
            _logger.error(
                "What Redis holds under %s is not ours %r %r", keys[0], e.__cause__, reply
            )
        except ResponseError as error:
            _logger.error("Redis refused to read %s: %s", keys[0], error)
            if not is_wrong_type(error):
                raise Unavailable from None
        return None


def _readable(rows: Sequence[tuple[bytes, Sequence[Any]]]) -> Iterator[Snapshot]:
    for name, fields in rows:
        try:
            yield read_snapshot(name.decode(), fields)
        except NOT_OURS as error:
            _logger.error("What Redis holds of %r is not ours: %r", name, error)
