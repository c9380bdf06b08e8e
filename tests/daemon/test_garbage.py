"""When garbage is collected: as memory grows, and not because there are many sockets."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentws.daemon.garbage import GarbageCollection, most_garbage, resident_memory
from tests.support.processes import Start

MIB = 1024**2

LITTERING = """
@agent.invoke_handler
async def invoke(payload, context):
    litter = [bytearray(b"x") * (4 * 1024**2)]
    litter.append(litter)
    await asyncio.sleep(0.005)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
"""


class Memory:
    """As much as a test says."""

    def __init__(self, used: int | None) -> None:
        self.used = used
        self.looked = asyncio.Event()

    def __call__(self) -> int | None:
        self.looked.set()
        return self.used

    async def is_looked_at(self) -> None:
        """Return once it was looked at, and what that led to is done."""
        self.looked.clear()
        await self.looked.wait()
        await asyncio.sleep(0)


class Node:
    """What garbage is made of."""

    itself: "Node"


def litter() -> "weakref.ref[Node]":
    """Make garbage that is old."""
    node = Node()
    node.itself = node
    seen = weakref.ref(node)
    gc.collect(0)
    gc.collect(1)
    del node
    return seen


@contextmanager
def full_collections() -> Iterator[list[int]]:
    """Write down each, with how many objects it found."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            found.append(info["collected"])

    gc.callbacks.append(note)
    try:
        yield found
    finally:
        gc.callbacks.remove(note)


@pytest.mark.parametrize(("after", "is_collected"), [(160 * MIB, False), (161 * MIB, True)])
async def test_the_old_is_looked_through_when_memory_has_grown(
    after: int, *, is_collected: bool
) -> None:
    memory = Memory(60 * MIB)
    with GarbageCollection(memory, 100 * MIB, interval=0.001):
        garbage = litter()
        await memory.is_looked_at()
        assert garbage() is not None
        memory.used = after
        await memory.is_looked_at()
        assert (garbage() is None) == is_collected


async def test_it_is_looked_through_once_for_each_growth() -> None:
    memory = Memory(60 * MIB)
    with GarbageCollection(memory, 50 * MIB, interval=0.001), full_collections() as found:
        memory.used = 130 * MIB
        for _ in range(3):
            await memory.is_looked_at()
        assert len(found) == 1
        memory.used = 40 * MIB  # what is freed again is room for no garbage
        await memory.is_looked_at()
        memory.used = 91 * MIB
        await memory.is_looked_at()
        assert len(found) == 2


async def test_the_young_are_looked_through_as_often_as_old_ones_end() -> None:
    old = [[number] for number in range(40_000)]
    gc.collect()
    memory = Memory(60 * MIB)
    with GarbageCollection(memory, interval=0.001):
        await memory.is_looked_at()
        young: list[list[int]] = []
        for number in range(40_000):
            young.append([number])
            old.pop()
        garbage = Node()
        garbage.itself = garbage
        seen = weakref.ref(garbage)
        del garbage
        assert seen() is not None
        await memory.is_looked_at()
        assert seen() is None


async def test_what_lives_long_has_nothing_looked_through() -> None:
    with GarbageCollection(Memory(60 * MIB)), full_collections() as found:
        kept = [[number] for number in range(1_000_000)]
        assert len(kept) == 1_000_000
        assert found == []


@pytest.mark.parametrize(
    ("told", "room"),
    [(None, 256), ("max\n", 256), (f"{4096 * MIB}\n", 256), (f"{512 * MIB}\n", 128)],
)
def test_a_small_container_has_room_for_little_garbage(
    tmp_path: Path, told: str | None, room: int
) -> None:
    limit = tmp_path / "memory.max"
    if told is not None:
        limit.write_text(told)
    assert most_garbage(limit) == room * MIB


async def test_pythons_rule_stays_where_nobody_tells_how_much_is_in_use() -> None:
    before = gc.get_threshold()
    with GarbageCollection(Memory(None)):
        assert gc.get_threshold()[1:] == before[1:]
    assert gc.get_threshold() == before


async def test_an_agents_garbage_does_not_pile_up(launch: Start) -> None:
    if resident_memory() is None:
        pytest.skip("the system does not tell how much memory is in use")
    async with (await launch(LITTERING)).connect() as client:
        used = [(await client.ask(action="invoke"))["payload"] for _ in range(300)]
    assert max(used) - used[0] < 700 * MIB  # of the 1,200 that it made
