"""How far a writer may be ahead of those who listen, and for whom it waits."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentws.protocol.errors import ReplayGap
from agentws.stores.log import HIGH_WATER_MARK, Log
from tests.stores.conftest import MUCH, PATIENCE, Listener, a_log, completed, others, patient


async def write(log: Log, chunks: Sequence[bytes]) -> None:
    """Write as an invocation does."""
    for chunk in chunks:
        log.append(chunk)
        if log.is_over_high_water:
            await log.wait_for_followers(PATIENCE * 2)
    log.end(completed())


class Writer:
    """A writer that has said something, and waits if it is too far ahead."""

    def __init__(self, log: Log) -> None:
        self.task = asyncio.create_task(log.wait_for_followers(PATIENCE * 2))

    async def waits(self) -> bool:
        await others()
        return not self.task.done()

    async def goes_on(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.task


@pytest.mark.parametrize("replay_bytes", [1, MUCH])
async def test_the_writer_waits_for_nobody_when_nobody_listens(replay_bytes: int) -> None:
    log = a_log(replay_bytes=replay_bytes, chunks=[b"x" * HIGH_WATER_MARK * 2])
    assert not log.is_over_high_water
    async with asyncio.timeout(PATIENCE):
        await log.wait_for_followers(PATIENCE * 2)


@pytest.mark.parametrize(
    ("replay_bytes", "ahead", "is_over_high_water"),
    [
        (1, 1, False),
        (1, 2, True),
        (100, 100, False),
        (100, 101, True),
        (MUCH, HIGH_WATER_MARK, False),
        (MUCH, HIGH_WATER_MARK + 1, True),
    ],
)
def test_how_far_the_writer_may_be_ahead(
    replay_bytes: int, ahead: int, is_over_high_water: bool
) -> None:
    log = a_log(replay_bytes=replay_bytes)
    Listener(log)
    log.append(b"x" * ahead)
    assert log.is_over_high_water == is_over_high_water


def test_what_a_newcomer_has_to_replay_counts_too() -> None:
    log = a_log(replay_bytes=100, chunks=[b"x" * 60])
    Listener(log)
    assert not log.is_over_high_water
    log.append(b"x" * 60)
    assert log.is_over_high_water


async def test_the_writer_waits_until_the_listener_has_taken() -> None:
    log = a_log(replay_bytes=1)
    listener = Listener(log)
    log.append(b"11")
    log.append(b"22")
    writer = Writer(log)
    assert await writer.waits()
    listener.take(1)
    assert await writer.waits()
    listener.take(1)
    await writer.goes_on()
    assert not log.is_over_high_water
    assert list(log.held) == []


async def test_the_writer_waits_for_the_fastest_only() -> None:
    log = a_log(replay_bytes=1)
    fast, slow = Listener(log), Listener(log)
    log.append(b"11")
    log.append(b"22")
    writer = Writer(log)
    slow.take(1)
    assert await writer.waits()
    fast.take()
    await writer.goes_on()


async def test_the_writer_goes_on_when_the_last_listener_leaves() -> None:
    log = a_log(replay_bytes=1)
    listener = Listener(log)
    log.append(b"11")
    writer = Writer(log)
    assert await writer.waits()
    listener.leave()
    await writer.goes_on()


async def test_the_writer_waits_on_when_a_listener_leaves_and_a_slow_one_stays() -> None:
    log = a_log(replay_bytes=1)
    leaving, staying = Listener(log), Listener(log)
    log.append(b"11")
    writer = Writer(log)
    leaving.leave()
    assert await writer.waits()
    staying.take()
    await writer.goes_on()


async def test_the_writer_goes_on_when_a_listener_comes_that_is_not_behind() -> None:
    log = a_log(replay_bytes=1)
    Listener(log)
    log.append(b"11")
    writer = Writer(log)
    assert await writer.waits()
    Listener(log, log.last)
    assert not log.is_over_high_water
    await writer.goes_on()


async def test_the_writer_goes_on_when_a_listener_has_all_that_it_wanted() -> None:
    log = a_log(replay_bytes=1)
    listener = Listener(log, 2)
    for chunk in (b"1", b"2", b"33"):
        log.append(chunk)
    writer = Writer(log)
    assert await writer.waits()
    assert listener.take() == [b"33"]
    await writer.goes_on()


def test_a_listener_that_started_beyond_the_end_is_not_behind_what_it_did_not_want() -> None:
    log = a_log(replay_bytes=10)
    listener = Listener(log, 1)
    log.append(b"x" * 6)
    log.append(b"y" * 6)
    assert listener.take() == [b"y" * 6]
    log.append(b"z" * 6)
    assert not log.is_over_high_water


async def test_the_writer_waits_no_longer_than_its_patience() -> None:
    log = a_log(replay_bytes=2)
    listener = Listener(log)
    for chunk in (b"11", b"22", b"33"):
        log.append(chunk)
    started = asyncio.get_running_loop().time()
    async with asyncio.timeout(PATIENCE):
        await log.wait_for_followers(0.05)
    assert asyncio.get_running_loop().time() - started >= 0.04
    # From now on the listener counts as any other.
    assert list(log.held) == [b"33"]
    with pytest.raises(ReplayGap):
        listener.take()


async def test_a_writer_that_is_cancelled_while_it_waits_can_wait_again() -> None:
    log = a_log(replay_bytes=1)
    listener = Listener(log)
    log.append(b"11")
    writer = Writer(log)
    assert await writer.waits()
    writer.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer.goes_on()
    assert list(log.held) == [b"11"]
    writer = Writer(log)
    assert await writer.waits()
    listener.take()
    await writer.goes_on()


@patient
@given(
    replay_bytes=st.integers(1, 50) | st.integers(HIGH_WATER_MARK - 1, HIGH_WATER_MARK + 1),
    sizes=st.lists(st.integers(1, 60) | st.just(HIGH_WATER_MARK), max_size=40),
    max_bytes=st.integers(0, 100),
    late=st.booleans(),
)
async def test_a_lone_listener_that_reads_loses_nothing(
    replay_bytes: int, sizes: list[int], max_bytes: int, late: bool
) -> None:
    chunks = [b"%d" % number * size for number, size in enumerate(sizes)]
    log = a_log(replay_bytes=replay_bytes)
    listener = Listener(log)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        if late:
            tasks.create_task(write(log, chunks))
            await others()
        taken = tasks.create_task(listener.take_all(max_bytes))
        if not late:
            tasks.create_task(write(log, chunks))
    assert taken.result() == chunks


async def test_a_lone_listener_loses_nothing_of_a_log_that_holds_one_byte() -> None:
    chunks = [b"%d" % number for number in range(10, 1000)]
    log = a_log(replay_bytes=1)
    listener = Listener(log)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(write(log, chunks))
        taken = tasks.create_task(listener.take_all())
    assert taken.result() == chunks


async def test_a_slow_listener_gets_a_gap_and_does_not_slow_the_first() -> None:
    chunks = [b"%d" % number for number in range(10, 1000)]
    log = a_log(replay_bytes=10)
    listener, slow = Listener(log), Listener(log)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(write(log, chunks))
        taken = tasks.create_task(listener.take_all())
    assert taken.result() == chunks
    with pytest.raises(ReplayGap) as caught:
        slow.take()
    assert caught.value.first_available == log.first
    # It could have had more than the bound only as long as the first had not taken it.
    assert sum(map(len, log.held)) <= 10 + len(chunks[-1])
