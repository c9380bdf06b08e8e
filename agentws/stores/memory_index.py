"""The records of a store in memory, by owner and by session, in the order of their creation."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from agentws.protocol.records import Record
from agentws.stores.listing import Cursor, Query

MOST_DEAD: Final = 32
"""How many records that were dropped are left in a list, however short it is."""

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
        owner = record.owner
        ordered = self._by_owner.get(owner)
        if ordered is None:
            ordered = self._by_owner[owner] = _Ordered()
        ordered.add(record)
        turn = record.session_id if owner is None else (owner, record.session_id)
        known = self._by_session.setdefault(turn, record)
        if known is record:
            return
        if isinstance(known, Record):
            known = self._by_session[turn] = _Ordered(known)
        known.add(record)

    def drop(self, record: Record) -> None:
        """Take note that a record is no longer in the store."""
        if self._by_owner[record.owner].drop(record, self._is_held):
            del self._by_owner[record.owner]
        turn = _turn(record.owner, record.session_id)
        known = self._by_session[turn]
        if isinstance(known, Record) or known.drop(record, self._is_held):
            del self._by_session[turn]

    def records(self, query: Query) -> Iterator[Record]:
        """Yield the records that are held, the newest first, of whatever status."""
        if query.session_id is None:
            found = self._by_owner.get(query.owner)
        else:
            known = self._by_session.get(_turn(query.owner, query.session_id))
            found = _Ordered(known) if isinstance(known, Record) else known
        return filter(self._is_held, found.newest_first(query.after)) if found else iter(())


class Turns:
    """What runs in each session, for those who ask whether one is busy.

    Nothing is noted before somebody asks: most daemons have nobody who does.
    """

    def __init__(self, running: Callable[[], Iterable[Record]]) -> None:
        """`running` returns all that runs, in the order of their claims, when it is called."""
        self._running = running
        self._by_session: dict[Turn, dict[str, None]] = {}
        self.is_asked = False
        """Whether anybody has asked, and `add` and `drop` are to be called from now on."""

    def others(self, record: Record) -> list[str]:
        """Return what else runs in the session of a record, the newest first."""
        if not self.is_asked:
            self.is_asked = True
            for running in self._running():
                if running is not record:
                    self.add(running)
        ids = self._by_session.get(_turn(record.owner, record.session_id), {})
        return [each for each in reversed(ids) if each != record.invocation_id]

    def add(self, record: Record) -> None:
        """Know one that runs from now on; knowing it twice is the same."""
        turn = _turn(record.owner, record.session_id)
        self._by_session.setdefault(turn, {})[record.invocation_id] = None

    def drop(self, record: Record) -> None:
        """Forget one that runs no longer."""
        turn = _turn(record.owner, record.session_id)
        running = self._by_session[turn]
        del running[record.invocation_id]
        if not running:
            del self._by_session[turn]


class _Ordered:
    """Records in the order of a list, the oldest first."""

    __slots__ = ("_dropped", "_head", "_records")

    def __init__(self, *records: Record) -> None:
        self._records = list(records)
        self._head = 0  # what is before it is dropped
        self._dropped = 0  # of those behind it

    def add(self, record: Record) -> None:
        """Add a record, which is the newest unless the clock was set back."""
        records = self._records
        if records and records[-1].created_at >= record.created_at:
            insort(records, record, self._head, key=Cursor.of)
        else:
            records.append(record)

    def drop(self, record: Record, is_held: IsHeld) -> bool:
        """Take note that one is no longer held; tell whether none is left."""
        records = self._records
        if records[self._head] is record:  # nearly always it is the oldest
            self._head += 1
        else:
            self._dropped += 1
        if self._head > MOST_DEAD and self._head > len(records) // 2:
            del records[: self._head]
            self._head = 0
        elif self._dropped > MOST_DEAD and self._dropped > len(records) // 2:
            records[:] = filter(is_held, records[self._head :])
            self._head = self._dropped = 0
        return len(records) == self._head + self._dropped

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
