"""The index of a store in memory, held to what a plain list would answer."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from agentws.protocol.records import Record
from agentws.stores.listing import Cursor, Query
from agentws.stores.memory_index import Index, Turns

OWNERS = st.sampled_from([None, "ann", "bob"])
SESSIONS = st.sampled_from(["s", "t"])
STEPS = st.one_of(
    st.tuples(st.just("add"), OWNERS, SESSIONS, st.integers(0, 5)),
    st.tuples(st.just("drop oldest")),
    st.tuples(st.just("drop"), st.integers(0, 200)),
)


class Model:
    """An index, and all records beside it in a list."""

    def __init__(self) -> None:
        self.held: dict[str, Record] = {}
        self.index = Index(lambda record: self.held.get(record.invocation_id) is record)
        self.count = 0

    def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("add", owner, session_id, created_at):
                self.count += 1
                record = Record(f"i{self.count:03}", session_id, float(created_at), owner)
                self.held[record.invocation_id] = record
                self.index.add(record)
            case ("drop oldest",) if self.held:
                self.drop(next(iter(self.held)))
            case ("drop", number) if self.held:
                self.drop(list(self.held)[number % len(self.held)])

    def drop(self, invocation_id: str) -> None:
        self.index.drop(self.held.pop(invocation_id))

    def expected(self, query: Query) -> list[Record]:
        found = [
            record
            for record in self.held.values()
            if record.owner == query.owner
            and query.session_id in (None, record.session_id)
            and (query.after is None or Cursor.of(record) < query.after)
        ]
        return sorted(found, key=Cursor.of, reverse=True)


@settings(max_examples=200)
@given(steps=st.lists(STEPS, max_size=150), owner=OWNERS, session_id=st.none() | SESSIONS)
def test_it_finds_what_is_held_in_its_order(
    steps: list[tuple[Any, ...]], owner: str | None, session_id: str | None
) -> None:
    model = Model()
    for step in steps:
        model.do(step)
    query = Query(owner, session_id)
    found = list(model.index.records(query))
    assert found == model.expected(query)
    for record in found:
        beyond = Query(owner, session_id, after=Cursor.of(record))
        assert list(model.index.records(beyond)) == model.expected(beyond)


def test_what_is_dropped_is_let_go() -> None:
    model = Model()
    for _ in range(10_000):
        model.do(("add", "ann", "s", 1))
        if len(model.held) > 100:
            model.do(("drop oldest",))
    (ordered,) = model.index._by_owner.values()  # noqa: SLF001 - how much it holds shows nowhere
    assert len(ordered._records) < 500  # noqa: SLF001
    while model.held:
        model.do(("drop oldest",))
    assert not model.index._by_owner  # noqa: SLF001
    assert not model.index._by_session  # noqa: SLF001


@pytest.mark.parametrize("asked_before", [False, True])
def test_turns_are_known_from_whenever_they_are_asked_for(asked_before: bool) -> None:
    running: list[Record] = []
    turns = Turns(lambda: running)
    new = Record("new", "s", 0.0)
    if asked_before:
        assert turns.others(new) == []
    for number in range(3):
        running.append(Record(f"i{number}", "s", 0.0))
        if turns.is_asked:
            turns.add(running[-1])
    assert turns.others(new) == ["i2", "i1", "i0"]
    assert turns.others(running[1]) == ["i2", "i0"]
    assert turns.others(Record("new", "s", 0.0, "ann")) == turns.others(Record("n", "t", 0.0)) == []
    turns.drop(running[1])
    assert turns.others(new) == ["i2", "i0"]
