"""How streams share the event loop whose agents await nothing (§5)."""

import asyncio
import time
from collections.abc import Callable

import pytest

from agentws.invocations.pace import LEAST, MOST, TURN, LoopQueue, Pace, served_at_once

LONG = 2 * TURN


def block() -> None:
    """Keep the event loop longer than a turn should take."""
    time.sleep(LONG)


class Turns:
    """Counts turns of the event loop while it is entered."""

    def __init__(self) -> None:
        self.count = 0
        self._counting = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._counting.cancel()


async def served_in(queue: LoopQueue, streams: int, work: Callable[[], object]) -> list[int]:
    """Have some streams wait, each work once; return in which turn of the loop each was served."""
    turns, served = Turns(), []

    async def stream() -> None:
        await queue.wait()
        served.append(turns.count)
        work()

    await asyncio.gather(*(stream() for _ in range(streams)))
    turns.stop()
    return served


@pytest.mark.parametrize("cost", [TURN / 20, TURN / 3, TURN])
def test_as_many_are_served_as_a_turn_has_time_for(cost: float) -> None:
    at_once = 1.0
    for _ in range(20):
        at_once = served_at_once(at_once, at_once * cost)
    assert at_once * cost == pytest.approx(TURN)


def test_one_at_least_is_served_and_no_more_than_have_the_least_share() -> None:
    assert served_at_once(5, 10 * TURN) == 1
    at_once = 1.0
    for _ in range(20):
        at_once = served_at_once(at_once, 0)
    assert at_once == TURN / LEAST


async def test_one_after_the_other_where_each_takes_long() -> None:
    served = await served_in(LoopQueue(), 10, block)
    assert len(set(served[2:])) == 8  # how long it takes is known after the first


async def test_many_in_a_turn_where_they_are_quick() -> None:
    served = await served_in(LoopQueue(), 100, lambda: None)
    assert len(set(served)) < 50


async def test_first_come_first_served() -> None:
    queue, served = LoopQueue(), []

    async def stream(number: int) -> None:
        await queue.wait()
        served.append(number)
        block()

    await asyncio.gather(*map(stream, range(5)))
    assert served == [0, 1, 2, 3, 4]


async def test_who_is_cancelled_holds_up_nobody() -> None:
    queue = LoopQueue()
    waiting = [asyncio.create_task(queue.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting[:2]:
        task.cancel()
    async with asyncio.timeout(1):
        await waiting[2]
    assert all(task.cancelled() for task in waiting[:2])
    async with asyncio.timeout(1):
        await queue.wait()


async def test_a_lone_stream_has_all_that_there_is() -> None:
    pace = Pace(LoopQueue())
    assert pace.until <= time.monotonic()
    for _ in range(20):
        before = time.monotonic()
        await pace.let_others()
    assert pace.until - time.monotonic() <= MOST
    assert pace.until - before > LEAST


async def test_a_stream_queues_once_a_turn_takes_long_and_no_more_when_it_does_not() -> None:
    class Watched(LoopQueue):
        waited = 0

        async def wait(self) -> None:
            self.waited += 1
            await super().wait()

    queue = Watched()
    pace = Pace(queue)
    asyncio.get_running_loop().call_soon(block)
    await pace.let_others()
    assert queue.waited == 0
    await pace.let_others()
    assert queue.waited == 1
    for _ in range(20):  # a busy machine may take long at times
        before = queue.waited
        await pace.let_others()
        if queue.waited == before:
            return
    pytest.fail("it queues for ever")


async def test_the_more_wait_the_less_each_has() -> None:
    queue = LoopQueue()
    shares = [queue.share]
    waiting = [asyncio.create_task(queue.wait()) for _ in range(1000)]
    await asyncio.sleep(0)
    shares.append(queue.share)
    assert shares == [MOST, LEAST]
    await asyncio.gather(*waiting)
