"""The log of one invocation: what its listeners get, whatever they and the writer do when."""

import asyncio
import json
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentws.protocol.errors import InvocationError, ReplayGap
from agentws.protocol.records import Record
from agentws.stores.log import BATCH, HIGH_WATER_MARK, Follower, Log, Outcome

PATIENCE = 5.0
"""Seconds after which something that a test waits for is missing."""

MUCH = 1024**2

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def a_log(replay_bytes: int = MUCH, *, chunks: Sequence[bytes] = ()) -> Log:
    log = Log(Record("i", "s", 0.0, streams=True), replay_bytes)
    for chunk in chunks:
        log.append(chunk)
    return log


class Listener(Follower):
    """Remembers what it was told."""

    def __init__(self, log: Log, after: int = 0) -> None:
        self.chunks: list[bytes] = []
        self._news = asyncio.Event()
        super().__init__(log, after)

    def wake(self) -> None:
        assert not self._news.is_set(), "it was woken again before it took"
        self._news.set()

    def is_woken(self) -> bool:
        return self._news.is_set()

    def take(self, max_bytes: int = MUCH) -> list[bytes]:
        self._news.clear()
        chunks = list(super().take(max_bytes))
        self.chunks += chunks
        return chunks

    async def take_all(self, max_bytes: int = MUCH) -> list[bytes]:
        """Take whenever there is news, until the end; give way to others after each time."""
        while not self.finished:
            await self._news.wait()
            self.take(max_bytes)
            await asyncio.sleep(0)
        return self.chunks


async def write(log: Log, chunks: Sequence[bytes]) -> None:
    """Write as an invocation does."""
    for chunk in chunks:
        log.append(chunk)
        if log.is_over_high_water:
            await log.wait_for_followers(PATIENCE * 2)
    log.end(completed())


async def others() -> None:
    """Let other tasks go on as far as they can."""
    for _ in range(5):
        await asyncio.sleep(0)


# Following


def test_a_new_log_is_empty() -> None:
    log = a_log()
    assert (log.first, log.last, list(log.held)) == (1, 0, [])
    assert not log.ended
    assert not log.attended
    assert log.refusal is None


def test_chunks_are_numbered_from_one() -> None:
    log = a_log(chunks=[b"1", b"2", b"3"])
    assert (log.first, log.last, list(log.held)) == (1, 3, [b"1", b"2", b"3"])
    assert log.written == 3


@pytest.mark.parametrize(
    ("after", "taken"), [(0, [b"1", b"2", b"3"]), (1, [b"2", b"3"]), (2, [b"3"]), (3, [])]
)
def test_chunks_after_a_number_are_taken(after: int, taken: list[bytes]) -> None:
    listener = Listener(a_log(chunks=[b"1", b"2", b"3"]), after)
    assert listener.is_woken() == bool(taken)
    assert listener.take() == taken
    assert listener.position == 3
    assert listener.take() == []


def test_a_listener_is_woken_once_until_it_takes() -> None:
    log = a_log()
    listener = Listener(log)
    assert not listener.is_woken()
    log.append(b"1")
    assert listener.is_woken()
    log.append(b"2")  # the listener would object
    assert listener.take() == [b"1", b"2"]
    assert not listener.is_woken()
    log.append(b"3")
    assert listener.is_woken()


def test_a_listener_that_took_not_all_is_woken_again() -> None:
    listener = Listener(a_log(chunks=[b"1", b"2"]))
    assert listener.take(1) == [b"1"]
    assert listener.is_woken()
    assert listener.take(1) == [b"2"]
    assert not listener.is_woken()


@pytest.mark.parametrize(
    ("max_bytes", "count"), [(0, 1), (1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (29, 2), (30, 3)]
)
def test_as_many_chunks_are_taken_as_fit_but_at_least_one(max_bytes: int, count: int) -> None:
    listener = Listener(a_log(chunks=[b"x" * 10] * 4))
    assert len(listener.take(max_bytes)) == count
    assert listener.position == count


def test_no_more_than_a_batch_is_taken_at_a_time() -> None:
    log = a_log(chunks=[b"%d" % number for number in range(BATCH + 1)])
    listener = Listener(log)
    assert len(listener.take()) == BATCH
    assert listener.take() == [b"%d" % BATCH]


def test_listeners_do_not_disturb_each_other() -> None:
    log = a_log(chunks=[b"1", b"2"])
    first, second = Listener(log), Listener(log, 1)
    assert first.take(1) == [b"1"]
    assert second.take() == [b"2"]
    log.append(b"3")
    assert second.take() == [b"3"]
    assert first.take() == [b"2", b"3"]


@pytest.mark.parametrize("after", [3, 4, 100, 2**63])
def test_starting_beyond_the_end_replays_nothing_and_follows(after: int) -> None:
    log = a_log(chunks=[b"1", b"2"])
    listener = Listener(log, after)
    assert not listener.is_woken()
    assert listener.take() == []
    log.end(completed())
    assert listener.is_woken()
    assert listener.take() == []
    assert listener.finished


def test_starting_beyond_the_end_follows_from_there() -> None:
    log = a_log(chunks=[b"1"])
    listener = Listener(log, 3)
    for chunk in (b"2", b"3", b"4", b"5"):
        log.append(chunk)
        listener.take()
    assert listener.chunks == [b"4", b"5"]


# The end


def failure() -> InvocationError:
    return InvocationError("quota", "No more", 429)


def completed(result: bytes | None = None) -> Outcome:
    return Outcome("completed", result)


def failed() -> Outcome:
    return Outcome("failed", error=failure())


def test_a_completed_log() -> None:
    log = a_log()
    log.end(completed(b'{"a":1}'))
    assert log.ended
    assert log.record.status == "completed"
    assert log.record.result == b'{"a":1}'
    assert log.record.finished_at is not None
    assert log.record.error is None


def test_a_failed_log() -> None:
    log = a_log()
    log.end(failed())
    assert log.ended
    assert log.record.status == "failed"
    assert log.record.finished_at is not None
    error = log.record.error
    assert error is not None
    assert (error.code, error.message, error.status) == ("quota", "No more", 429)


def test_a_cancelled_log() -> None:
    log = a_log()
    log.end(Outcome("cancelled", error=InvocationError("cancelled", "m")))
    assert log.record.status == "cancelled"


def test_a_refused_log() -> None:
    log, reason = a_log(), failure()
    log.refuse(reason)
    assert log.refusal is reason
    assert log.ended


def test_a_listener_is_woken_at_the_end() -> None:
    log = a_log(chunks=[b"1"])
    listener = Listener(log)
    listener.take()
    log.end(completed())
    assert listener.is_woken()
    assert listener.take() == []
    assert not listener.is_woken()


def test_a_listener_is_finished_when_the_log_has_ended_and_it_has_taken_all() -> None:
    log = a_log(chunks=[b"1", b"2"])
    slow, fast = Listener(log), Listener(log)
    fast.take()
    finished = [(slow.finished, fast.finished)]
    log.end(completed())
    finished.append((slow.finished, fast.finished))
    slow.take(1)
    finished.append((slow.finished, fast.finished))
    slow.take(1)
    finished.append((slow.finished, fast.finished))
    assert finished == [(False, False), (False, True), (False, True), (True, True)]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_listener_of_an_ended_log_is_woken_at_once(after: int) -> None:
    log = a_log(chunks=[b"1", b"2"])
    log.end(completed())
    listener = Listener(log, after)
    assert listener.is_woken()
    listener.take()
    assert listener.finished


def test_an_ended_log_is_laid_out_from_what_was_held() -> None:
    record = Record("i", "s", 0.0, streams=True, status="completed")
    log = Log(record, chunks=(b"8", b"9"), first=8)
    assert (log.first, log.last, list(log.held)) == (8, 9, [b"8", b"9"])
    assert Listener(log, 7).take() == [b"8", b"9"]
    assert Listener(log, 8).take() == [b"9"]
    assert Listener(log, 9).take() == []
    with pytest.raises(ReplayGap):
        Listener(log, 6)


def test_a_stream_tells_which_chunks_are_held() -> None:
    log = a_log(replay_bytes=2, chunks=[b"1", b"2", b"3"])
    assert json.loads(log.snapshot.describe())["stream"] == {
        "first_available": 2,
        "last_sequence_number": 3,
    }


def test_a_stream_that_holds_nothing_tells_the_next_number() -> None:
    log = a_log(replay_bytes=1, chunks=[b"too long"])
    assert json.loads(log.snapshot.describe())["stream"] == {
        "first_available": 2,
        "last_sequence_number": 1,
    }


def test_what_is_no_stream_tells_of_no_chunks() -> None:
    log = Log(Record("i", "s", 0.0), MUCH)
    assert "stream" not in json.loads(log.snapshot.describe())


# Coming and leaving


def test_attendance_is_told_when_the_last_leaves_and_one_comes_back() -> None:
    log = a_log()
    told: list[bool] = []
    log.on_attendance = told.append
    first = Listener(log)
    second = Listener(log)
    first.leave()
    assert (told, log.attended) == ([], True)
    second.leave()
    assert (told, log.attended) == ([False], False)
    third = Listener(log)
    assert (told, log.attended) == ([False, True], True)
    Listener(log).leave()
    assert told == [False, True]
    third.leave()
    assert told == [False, True, False]


def test_leaving_twice_is_told_once() -> None:
    log = a_log()
    told: list[bool] = []
    log.on_attendance = told.append
    listener, other = Listener(log), Listener(log)
    listener.leave()
    listener.leave()
    assert (told, log.attended) == ([], True)
    other.leave()
    other.leave()
    assert told == [False]


def test_attendance_at_an_ended_log_is_nobodys_business() -> None:
    log = a_log()
    told: list[bool] = []
    log.on_attendance = told.append
    listener = Listener(log)
    log.end(completed())
    listener.leave()
    Listener(log)
    assert told == []


def test_a_listener_that_left_is_not_woken() -> None:
    log = a_log()
    listener = Listener(log)
    listener.leave()
    log.append(b"1")
    log.end(completed())
    assert not listener.is_woken()


def test_a_listener_that_is_refused_does_not_attend() -> None:
    log = a_log(replay_bytes=1, chunks=[b"1", b"2"])
    told: list[bool] = []
    log.on_attendance = told.append
    with pytest.raises(ReplayGap):
        Listener(log)
    assert (told, log.attended) == ([], False)


# What is held


@pytest.mark.parametrize(
    ("replay_bytes", "sizes", "first"),
    [
        (30, [10, 10, 10], 1),
        (29, [10, 10, 10], 2),
        (20, [10, 10, 10], 2),
        (19, [10, 10, 10], 3),
        (10, [10, 10, 10], 3),
        (9, [10, 10, 10], 4),
        (1, [10, 10, 10], 4),
        (10, [100, 5, 5], 2),
        (10, [5, 5, 100], 4),
        (10, [5, 100, 5], 3),
        (300, [1] * 1000, 701),
    ],
)
def test_without_listeners_the_last_bytes_are_held(
    replay_bytes: int, sizes: list[int], first: int
) -> None:
    chunks = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    log = a_log(replay_bytes, chunks=chunks)
    assert (log.first, log.last) == (first, len(sizes))
    assert list(log.held) == chunks[first - 1 :]
    assert log.written == sum(sizes)


def test_what_is_not_held_takes_no_memory() -> None:
    log = a_log(replay_bytes=100)
    chunk = b"x" * 10
    tracemalloc.start()
    try:
        for _ in range(20_000):
            log.append(chunk)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert log.last == 20_000
    assert grown < 20_000  # less than a byte for each


@pytest.mark.parametrize("after", [-1, 0, 1])
def test_chunks_that_are_no_longer_held_cannot_be_followed(after: int) -> None:
    log = a_log(replay_bytes=2, chunks=[b"1", b"2", b"3", b"4"])
    with pytest.raises(ReplayGap) as caught:
        Listener(log, after)
    assert caught.value.first_available == 3
    assert Listener(log, 2).take() == [b"3", b"4"]


def test_what_the_only_listener_has_not_taken_is_held() -> None:
    log = a_log(replay_bytes=1)
    listener = Listener(log)
    for chunk in (b"11", b"22", b"33"):
        log.append(chunk)
    assert list(log.held) == [b"11", b"22", b"33"]
    assert listener.take() == [b"11", b"22", b"33"]
    log.append(b"44")
    assert list(log.held) == [b"44"]


def test_what_a_listener_left_behind_is_not_held() -> None:
    log = a_log(replay_bytes=1)
    listener = Listener(log)
    log.append(b"11")
    listener.leave()
    log.append(b"2")
    assert list(log.held) == [b"2"]


def test_a_listener_behind_the_fastest_gets_a_gap() -> None:
    log = a_log(replay_bytes=4)
    fast, slow = Listener(log), Listener(log)
    for number in range(1, 5):
        log.append(b"%d%d" % (number, number))
        fast.take()
    assert fast.chunks == [b"11", b"22", b"33", b"44"]
    with pytest.raises(ReplayGap) as caught:
        slow.take()
    assert caught.value.first_available == 3


def test_a_listener_after_a_gap_can_come_back_to_what_is_held() -> None:
    log = a_log(replay_bytes=4)
    fast, slow = Listener(log), Listener(log)
    for number in range(1, 5):
        log.append(b"%d%d" % (number, number))
        fast.take()
    with pytest.raises(ReplayGap) as caught:
        slow.take()
    slow.leave()
    assert Listener(log, caught.value.first_available - 1).take() == [b"33", b"44"]


# Room for the writer


async def waits(task: "asyncio.Task[None]") -> bool:
    await others()
    return not task.done()


@pytest.mark.parametrize("replay_bytes", [1, MUCH])
async def test_the_writer_waits_for_nobody_when_nobody_listens(replay_bytes: int) -> None:
    log = a_log(replay_bytes, chunks=[b"x" * HIGH_WATER_MARK * 2])
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
    log = a_log(replay_bytes)
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
    writer = asyncio.create_task(log.wait_for_followers(PATIENCE * 2))
    assert await waits(writer)
    listener.take(1)
    assert await waits(writer)
    listener.take(1)
    async with asyncio.timeout(PATIENCE):
        await writer
    assert not log.is_over_high_water
    assert list(log.held) == []


async def test_the_writer_waits_for_the_fastest_only() -> None:
    log = a_log(replay_bytes=1)
    fast, slow = Listener(log), Listener(log)
    log.append(b"11")
    log.append(b"22")
    writer = asyncio.create_task(log.wait_for_followers(PATIENCE * 2))
    slow.take(1)
    assert await waits(writer)
    fast.take()
    async with asyncio.timeout(PATIENCE):
        await writer


async def test_the_writer_goes_on_when_the_last_listener_leaves() -> None:
    log = a_log(replay_bytes=1)
    listener = Listener(log)
    log.append(b"11")
    writer = asyncio.create_task(log.wait_for_followers(PATIENCE * 2))
    assert await waits(writer)
    listener.leave()
    async with asyncio.timeout(PATIENCE):
        await writer


async def test_the_writer_waits_on_when_a_listener_leaves_and_a_slow_one_stays() -> None:
    log = a_log(replay_bytes=1)
    leaving, staying = Listener(log), Listener(log)
    log.append(b"11")
    writer = asyncio.create_task(log.wait_for_followers(PATIENCE * 2))
    leaving.leave()
    assert await waits(writer)
    staying.take()
    async with asyncio.timeout(PATIENCE):
        await writer


async def test_the_writer_goes_on_when_a_listener_comes_that_is_not_behind() -> None:
    log = a_log(replay_bytes=1)
    Listener(log)
    log.append(b"11")
    writer = asyncio.create_task(log.wait_for_followers(PATIENCE * 2))
    assert await waits(writer)
    Listener(log, log.last)
    assert not log.is_over_high_water
    async with asyncio.timeout(PATIENCE):
        await writer


async def test_the_writer_goes_on_when_a_listener_has_all_that_it_wanted() -> None:
    log = a_log(replay_bytes=1)
    listener = Listener(log, 2)
    for chunk in (b"1", b"2", b"33"):
        log.append(chunk)
    writer = asyncio.create_task(log.wait_for_followers(PATIENCE * 2))
    assert await waits(writer)
    assert listener.take() == [b"33"]
    async with asyncio.timeout(PATIENCE):
        await writer


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
    writer = asyncio.create_task(log.wait_for_followers(PATIENCE * 2))
    assert await waits(writer)
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    assert list(log.held) == [b"11"]
    writer = asyncio.create_task(log.wait_for_followers(PATIENCE * 2))
    assert await waits(writer)
    listener.take()
    async with asyncio.timeout(PATIENCE):
        await writer


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
    log = a_log(replay_bytes)
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


# Whatever happens when


class Model(Listener):
    """A listener that knows what it has to get."""

    def __init__(self, log: Log, after: int) -> None:
        self.after = after
        super().__init__(log, after)

    @property
    def reached(self) -> int:
        return self.after + len(self.chunks)


class LogMachine(RuleBasedStateMachine):
    """Compares a log with the list of all that was ever appended."""

    @initialize(replay_bytes=st.sampled_from([1, 20, 100, 1000]))
    def open(self, replay_bytes: int) -> None:
        self.log = a_log(replay_bytes)
        self.replay_bytes = replay_bytes
        self.written: list[bytes] = []
        self.sizes = [0]  # how many bytes the first chunks have together
        self.listeners: list[Model] = []
        self.droppable = 0  # up to here some listener had it all, or nobody listened
        self.ended = False
        self.told: list[bool] = []
        self.expected: list[bool] = []
        self.log.on_attendance = self.told.append
        self.loop = asyncio.new_event_loop()
        self.writer: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> bool:
        return self.writer is not None and not self.writer.done()

    def turn(self) -> None:
        """Let the writer go on, if it can; what the fastest listener has may now be dropped."""
        self.droppable = max(self.droppable, self.fastest)
        self.loop.run_until_complete(others())

    @property
    def last(self) -> int:
        return len(self.written)

    def bytes_after(self, number: int) -> int:
        return self.sizes[-1] - self.sizes[min(number, self.last)]

    @property
    def fastest(self) -> int:
        """The number up to which nobody needs a chunk, replay aside."""
        return min(max((one.reached for one in self.listeners), default=self.last), self.last)

    def must_be_held(self, number: int) -> bool:
        return number > self.droppable or self.bytes_after(number - 1) <= self.replay_bytes

    # What may happen

    @precondition(lambda self: not self.ended and not self.waiting)
    @rule(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5), is_patient=st.booleans())
    def append(self, sizes: list[int], is_patient: bool) -> None:
        for size in sizes:
            chunk = str(self.last + 1).encode().ljust(size, b".")
            self.written.append(chunk)
            self.sizes.append(self.sizes[-1] + len(chunk))
            self.droppable = max(self.droppable, self.fastest)
            self.log.append(chunk)
            held = sum(map(len, self.log.held))
            assert held <= max(self.replay_bytes, self.bytes_after(self.fastest))
            if self.log.is_over_high_water:
                self.wait(is_patient)
            if self.waiting:
                break

    def wait(self, is_patient: bool) -> None:
        self.writer = self.loop.create_task(
            self.log.wait_for_followers(PATIENCE * 100 if is_patient else 0)
        )
        self.turn()
        assert self.waiting == is_patient
        if not is_patient:
            self.droppable = self.last

    @precondition(lambda self: not self.ended and not self.waiting)
    @rule()
    def append_more_than_a_batch(self) -> None:
        self.append([1] * (BATCH + 2), is_patient=True)

    @precondition(lambda self: not self.ended)
    @rule(outcome=st.builds(failed) | st.builds(completed))
    def end(self, outcome: Outcome) -> None:
        self.ended = True
        self.log.end(outcome)

    @rule(back=st.integers(-3, 10))
    def follow(self, back: int) -> None:
        after = max(self.last - back, 0)
        gone = after + 1 < self.log.first
        try:
            listener = Model(self.log, after)
        except ReplayGap as gap:
            self.check_gap(gap, after)
            return
        assert not gone, "it is promised what is not held"
        if not self.listeners and self.expected and not self.ended:
            self.expected.append(True)
        self.listeners.append(listener)
        self.turn()

    @precondition(lambda self: self.listeners)
    @rule(index=st.integers(0, 9), max_bytes=st.integers(0, 200))
    def take(self, index: int, max_bytes: int) -> None:
        listener = self.listeners[index % len(self.listeners)]
        before = listener.reached
        try:
            chunks = listener.take(max_bytes)
        except ReplayGap as gap:
            self.check_gap(gap, before)
            self.forget(listener)
            return
        assert chunks == self.written[before : before + len(chunks)]
        assert bool(chunks) == (self.last > before)
        assert len(chunks) <= 1 or sum(map(len, chunks)) <= max_bytes
        self.turn()
        if listener.finished:
            assert self.ended
            assert listener.reached >= self.last
            assert not listener.is_woken()
            self.forget(listener)

    @precondition(lambda self: self.listeners)
    @rule(index=st.integers(0, 9))
    def leave(self, index: int) -> None:
        self.forget(self.listeners[index % len(self.listeners)])

    def check_gap(self, gap: ReplayGap, position: int) -> None:
        assert not self.must_be_held(position + 1)
        assert gap.first_available == self.log.first > position + 1

    def forget(self, listener: Model) -> None:
        listener.leave()
        self.listeners.remove(listener)
        if not self.listeners and not self.ended:
            self.expected.append(False)
        self.turn()

    # What always holds

    @invariant()
    def what_has_to_be_held_is_held(self) -> None:
        log = self.log
        assert log.last == self.last
        assert log.written == self.bytes_after(0)
        assert list(log.held) == self.written[log.first - 1 :]
        assert log.first <= log.last + 1
        assert log.first == 1 or not self.must_be_held(log.first - 1)

    @invariant()
    def listeners_know_of_news(self) -> None:
        for listener in self.listeners:
            assert listener.position == listener.reached
            has_all = listener.reached >= self.last
            assert listener.finished == (self.ended and has_all)
            if self.ended or not has_all:
                assert listener.is_woken()

    @invariant()
    def the_writer_waits_for_nothing_but_listeners_with_something_to_take(self) -> None:
        if self.waiting:
            assert any(listener.is_woken() for listener in self.listeners)

    @invariant()
    def attendance_is_told(self) -> None:
        assert self.told == self.expected
        assert self.log.attended == bool(self.listeners)

    def teardown(self) -> None:
        """End the log: by its news alone, each listener comes to the end or to a gap."""
        if not hasattr(self, "log"):
            return
        try:
            self.let_all_come_to_the_end()
        finally:
            if self.writer is not None:
                self.writer.cancel()
                self.loop.run_until_complete(asyncio.wait({self.writer}))
            self.loop.close()

    def let_all_come_to_the_end(self) -> None:
        if not self.ended:
            self.end(outcome=completed())
        while woken := [listener for listener in self.listeners if listener.is_woken()]:
            self.take(self.listeners.index(woken[0]), 50)
        assert not self.listeners
        assert not self.waiting


LogMachine.TestCase.settings = settings(
    patient, max_examples=150, stateful_step_count=40, print_blob=True
)
TestWhateverHappensWhen = LogMachine.TestCase
