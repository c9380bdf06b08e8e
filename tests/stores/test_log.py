"""The log of one invocation: what its listeners get, and what is held for them."""

import json
import tracemalloc

import pytest

from agentws.protocol.errors import InvocationError, ReplayGap
from agentws.protocol.records import Record
from agentws.stores.log import BATCH, Log, Outcome
from tests.stores.conftest import MUCH, Listener, a_log, completed, failed

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
    log, reason = a_log(), InvocationError("shutting_down", "m")
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
    log = a_log(replay_bytes=replay_bytes, chunks=chunks)
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


def overtaken() -> tuple[Log, Listener, Listener]:
    """Return a log that holds two chunks of four, who has taken them all, and who took none."""
    log = a_log(replay_bytes=4)
    fast, slow = Listener(log), Listener(log)
    for chunk in (b"11", b"22", b"33", b"44"):
        log.append(chunk)
        fast.take()
    return log, fast, slow


def test_a_listener_behind_the_fastest_gets_a_gap() -> None:
    _, fast, slow = overtaken()
    assert fast.chunks == [b"11", b"22", b"33", b"44"]
    with pytest.raises(ReplayGap) as caught:
        slow.take()
    assert caught.value.first_available == 3


def test_a_listener_after_a_gap_can_come_back_to_what_is_held() -> None:
    log, _, slow = overtaken()
    with pytest.raises(ReplayGap) as caught:
        slow.take()
    slow.leave()
    assert Listener(log, caught.value.first_available - 1).take() == [b"33", b"44"]
