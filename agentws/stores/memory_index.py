"""The records of a store in memory, by owner and by session, in the order of their creation."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from itertools import islice

from agentws.protocol.records import Record
from agentws.stores.listing import Cursor, Query

IsHeld = Callable[[Record], bool]
"""Tells whether a record is still in the store."""

Turn = str | tuple[str, str]
"""What a session is known by: its id, and its owner where it has one."""


class Index:
    """Finds records without looking at all of them.

    What is dropped from the store is left here until it is half of its list: to take it out at once
    would take the longer, the more there is.
    """

    def __init__(self, is_held: IsHeld) -> None:
        self._is_held = is_held
        self._by_owner: dict[str | None, _Ordered] = {}
        # Most sessions have one invocation, for which a list would be a waste.
        self._by_session: dict[Turn, Record | _Ordered] = {}

    def add(self, record: Record) -> None:
        """Know a record, of an invocation that is about to run."""
        ordered = self._by_owner.get(record.owner)
        if ordered is None:
            ordered = self._by_owner[record.owner] = _Ordered()
        ordered.add(record)
        turn = _turn(record.owner, record.session_id)
        known = self._by_session.setdefault(turn, record)
        if known is not record:
            if isinstance(known, Record):
                known = self._by_session[turn] = _Ordered(known)
            known.add(record)

    def note_end(self, record: Record) -> None:
        """Take note that an invocation runs no longer."""
        known = self._by_session.get(_turn(record.owner, record.session_id))
        if isinstance(known, _Ordered):
            known.running -= 1

    def running(self, owner: str | None, session_id: str) -> list[str]:
        """Return the ids of what runs in a session, the newest first."""
        known = self._by_session.get(_turn(owner, session_id))
        match known:
            case None:
                return []
            case Record():
                return [] if known.ended else [known.invocation_id]
        running = (each for each in known.newest_first(None) if not each.ended)
        held = filter(self._is_held, running)
        return [each.invocation_id for each in islice(held, known.running)]

    def drop(self, record: Record) -> None:
        """Take note that a record is no longer in the store."""
        if self._by_owner[record.owner].drop(self._is_held):
            del self._by_owner[record.owner]
        turn = _turn(record.owner, record.session_id)
        known = self._by_session[turn]
        if isinstance(known, Record) or known.drop(self._is_held):
            del self._by_session[turn]

    def records(self, query: Query) -> Iterator[Record]:
        """Yield the records that are held, the newest first, of whatever status."""
        if query.session_id is None:
            found = self._by_owner.get(query.owner)
        else:
            known = self._by_session.get(_turn(query.owner, query.session_id))
            found = _Ordered(known) if isinstance(known, Record) else known
        return filter(self._is_held, found.newest_first(query.after)) if found else iter(())


class _Ordered:
    """Records in the order of a list, the oldest first."""

    __slots__ = ("_dropped", "_head", "_records", "running")

    def __init__(self, *records: Record) -> None:
        self._records = list(records)
        self._head = 0  # what is before it is dropped
        self._dropped = 0  # of those behind it
        self.running = sum(not record.ended for record in records)
        """How many of them run."""

    def add(self, record: Record) -> None:
        """Add a record, which is the newest unless the clock was set back."""
        self.running += 1
        records = self._records
        if records and Cursor.of(records[-1]) > Cursor.of(record):
            insort(records, record, key=Cursor.of)
        else:
            records.append(record)

    def drop(self, is_held: IsHeld) -> bool:
        """Take note that one is no longer held; tell whether none is left."""
        records = self._records
        self._dropped += 1
        # Nearly always it is the oldest.
        while self._head < len(records) and not is_held(records[self._head]):
            self._head += 1
            self._dropped -= 1
        if self._head > len(records) // 2:
            del records[: self._head]
            self._head = 0
        if self._dropped > len(records) // 2:
            records[:] = filter(is_held, records[self._head :])
            self._head = self._dropped = 0
        return not records

    def newest_first(self, after: Cursor | None) -> Iterator[Record]:
        """Yield those beyond a place."""
        records = self._records
        end = (
            len(records)
            if after is None
            else bisect_left(records, after, self._head, key=Cursor.of)
        )
        for place in range(end - 1, self._head - 1, -1):
            yield records[place]


def _turn(owner: str | None, session_id: str) -> Turn:
    return session_id if owner is None else (owner, session_id)
