"""The stores: who may claim an id, what is found under it, and for how long.

What every store must do comes first, through `open_store`; what only the memory has, after it.
"""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from agentws.protocol import InvocationError, Record, ReplayGap
from agentws.stores import Follower, Log, Store
from agentws.stores.memory import MemoryStore

PATIENCE = 5.0
"""Seconds after which something that a test waits for is missing."""

OpenStore = Callable[..., Store]

STORES: dict[str, OpenStore] = {"memory": MemoryStore}


@pytest.fixture(params=STORES)
async def open_store(request: pytest.FixtureRequest) -> AsyncIterator[OpenStore]:
    """Open stores of one kind; they are closed at the end."""
    stores: list[Store] = []

    def open_store(*, retention: float = 60.0, max_retained: int = 1000) -> Store:
        store = STORES[request.param](retention=retention, max_retained=max_retained)
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        await store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


def a_log(
    invocation_id: str = "i", *, chunks: Sequence[bytes] = (), replay_bytes: int = 1024
) -> Log:
    record = Record(invocation_id, "s", time.time(), "alice", streams=bool(chunks))
    log = Log(record, replay_bytes)
    for chunk in chunks:
        log.append(chunk)
    return log


async def run(store: Store, log: Log, result: bytes | None = None) -> None:
    """Let an invocation begin and end."""
    await store.claim(log)
    log.complete(result)
    await store.finish(log)


async def found(store: Store, invocation_id: str = "i") -> Log:
    log = await store.find(invocation_id)
    assert log is not None
    return log


async def gone(store: Store, invocation_id: str = "i") -> None:
    """Wait until nothing is found any more; a store tells nobody when that is."""
    async with asyncio.timeout(PATIENCE):
        while await store.find(invocation_id) is not None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


class Reader(Follower):
    """Reads a log to its end."""

    def __init__(self, log: Log, after: int = 0) -> None:
        self._news = asyncio.Event()
        super().__init__(log, after)

    def wake(self) -> None:
        self._news.set()

    async def read(self) -> list[bytes]:
        chunks: list[bytes] = []
        async with asyncio.timeout(PATIENCE):
            while not self.finished:
                await self._news.wait()
                self._news.clear()
                chunks += self.take(1024)
        self.leave()
        return chunks


# Claiming


async def test_nothing_is_found_that_was_not_claimed(store: Store) -> None:
    await store.claim(a_log("other"))
    assert await store.find("i") is None


async def test_a_running_log_is_found(store: Store) -> None:
    await store.claim(a_log())
    log = await found(store)
    assert not log.ended
    assert (log.record.invocation_id, log.record.owner) == ("i", "alice")


async def test_ids_are_told_apart(store: Store) -> None:
    ids = ["i", "I", "i.", "i:", "i:record", "a" * 256, "a" * 255]
    for invocation_id in ids:
        await store.claim(a_log(invocation_id))
    assert [(await found(store, one)).record.invocation_id for one in ids] == ids


async def assert_taken(store: Store, invocation_id: str = "i") -> None:
    with pytest.raises(InvocationError) as caught:
        await store.claim(a_log(invocation_id))
    assert (caught.value.code, caught.value.status) == ("already_exists", 409)


async def test_the_id_of_a_running_log_is_taken(store: Store) -> None:
    first = a_log(chunks=[b"1"])
    await store.claim(first)
    await assert_taken(store)
    assert (await found(store)).last == 1


async def test_the_id_of_an_ended_log_is_taken(store: Store) -> None:
    await run(store, a_log(), b'"first"')
    await assert_taken(store)
    assert (await found(store)).record.result == b'"first"'


async def test_of_many_that_claim_an_id_at_once_one_gets_it(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(store.claim(a_log()) for _ in range(20)), return_exceptions=True
    )
    refusals = [outcome for outcome in outcomes if outcome is not None]
    assert len(refusals) == 19
    assert {type(refusal) for refusal in refusals} == {InvocationError}


# Finding


async def test_a_running_log_is_followed(store: Store) -> None:
    log = a_log(chunks=[b"1"])
    await store.claim(log)
    reader = asyncio.create_task(Reader(await found(store)).read())
    log.append(b"2")
    log.complete(None)
    await store.finish(log)
    assert await reader == [b"1", b"2"]


async def test_a_log_is_followed_beyond_its_end(store: Store) -> None:
    log = a_log(chunks=[b"1", b"2"])
    await store.claim(log)
    reader = Reader(await found(store))
    log.complete(None)
    await store.finish(log)
    assert await reader.read() == [b"1", b"2"]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 100])
async def test_an_ended_stream_is_replayed(store: Store, after: int) -> None:
    chunks = [b"1", b"2", b"3"]
    await run(store, a_log(chunks=chunks))
    assert await Reader(await found(store), after).read() == chunks[after:]


async def test_an_ended_stream_is_replayed_to_many(store: Store) -> None:
    await run(store, a_log(chunks=[b"1", b"2"]))
    readers = [Reader(await found(store)).read() for _ in range(3)]
    assert await asyncio.gather(*readers) == [[b"1", b"2"]] * 3


async def test_of_an_ended_stream_only_what_was_held_is_replayed(store: Store) -> None:
    await run(store, a_log(chunks=[b"11", b"22", b"33", b"44"], replay_bytes=4))
    with pytest.raises(ReplayGap) as caught:
        Reader(await found(store), 1)
    assert caught.value.first_available == 3
    assert await Reader(await found(store), 2).read() == [b"33", b"44"]


async def test_an_ended_stream_of_which_nothing_is_held(store: Store) -> None:
    await run(store, a_log(chunks=[b"11", b"22"], replay_bytes=1))
    log = await found(store)
    assert (log.first, log.last) == (3, 2)
    with pytest.raises(ReplayGap):
        Reader(log, 1)
    assert await Reader(log, 2).read() == []


async def test_an_ended_log_is_told_as_it_ended(store: Store) -> None:
    log = a_log(chunks=[b"1", b"2"])
    await run(store, log)
    assert (await found(store)).describe() == log.describe()


async def test_the_result_of_an_ended_log_is_found(store: Store) -> None:
    await run(store, a_log(), b'{"a":1}')
    record = (await found(store)).record
    assert (record.status, record.result, record.owner) == ("completed", b'{"a":1}', "alice")
    assert record.error is None


async def test_the_failure_of_an_ended_log_is_found(store: Store) -> None:
    log = a_log()
    await store.claim(log)
    log.fail(InvocationError("quota", "No more", 429))
    await store.finish(log)
    record = (await found(store)).record
    assert record.status == "failed"
    assert record.error is not None
    assert (record.error.code, record.error.message) == ("quota", "No more")
    assert record.error.status == 429


# Retention


async def test_an_ended_log_is_found_until_its_time_is_over(open_store: OpenStore) -> None:
    store = open_store(retention=0.2)
    await run(store, a_log())
    ended = time.monotonic()
    await found(store)
    await gone(store)
    assert time.monotonic() - ended >= 0.19


async def test_an_id_can_be_claimed_again_when_its_time_is_over(open_store: OpenStore) -> None:
    store = open_store(retention=0.1)
    await run(store, a_log(), b'"first"')
    await gone(store)
    await run(store, a_log(), b'"second"')
    assert (await found(store)).record.result == b'"second"'


async def test_nothing_is_retained_for_no_time(open_store: OpenStore) -> None:
    store = open_store(retention=0.0)
    await run(store, a_log())
    assert await store.find("i") is None


async def test_an_id_can_be_claimed_at_once_when_nothing_is_retained(open_store: OpenStore) -> None:
    store = open_store(retention=0.0)
    await run(store, a_log())
    await store.claim(a_log())


async def test_a_running_log_is_found_however_long_it_runs(open_store: OpenStore) -> None:
    store = open_store(retention=0.1)
    running = a_log("running")
    await store.claim(running)
    await run(store, a_log())
    await gone(store)
    await assert_taken(store, "running")
    running.complete(None)
    await store.finish(running)
    assert (await found(store, "running")).ended  # its time has only begun


async def test_a_store_is_closed_twice(open_store: OpenStore) -> None:
    store = open_store()
    await run(store, a_log())
    await store.close()
    await store.close()


# In memory only


class Witness(bytes):
    """A chunk that tells when it is freed."""

    freed: asyncio.Event

    def __del__(self) -> None:
        self.freed.set()


async def run_with_witness(store: MemoryStore, invocation_id: str) -> asyncio.Event:
    """Let an invocation begin and end, and return what tells that it was forgotten."""
    chunk = Witness(b"1")
    chunk.freed = asyncio.Event()
    await run(store, a_log(invocation_id, chunks=[chunk]))
    return chunk.freed


async def ids(store: MemoryStore, *wanted: str) -> list[str]:
    return [one for one in wanted if await store.find(one) is not None]


async def test_at_most_so_many_are_retained_and_the_oldest_goes_first() -> None:
    store = MemoryStore(retention=60.0, max_retained=2)
    for invocation_id in "abc":
        await run(store, a_log(invocation_id))
    assert await ids(store, "a", "b", "c") == ["b", "c"]
    await store.claim(a_log("a"))
    await store.close()


async def test_the_oldest_is_the_one_that_ended_first() -> None:
    store = MemoryStore(retention=60.0, max_retained=2)
    first = a_log("a")
    await store.claim(first)
    await run(store, a_log("b"))
    await run(store, a_log("c"))
    first.complete(None)
    await store.finish(first)
    assert await ids(store, "a", "b", "c") == ["a", "c"]
    await store.close()


async def test_running_logs_are_not_counted() -> None:
    store = MemoryStore(retention=60.0, max_retained=1)
    for invocation_id in "abc":
        await store.claim(a_log(invocation_id))
    await run(store, a_log("d"))
    assert await ids(store, "a", "b", "c", "d") == ["a", "b", "c", "d"]
    await store.close()


async def test_a_log_that_ended_anew_is_not_the_oldest() -> None:
    store = MemoryStore(retention=0.5, max_retained=2)
    await run(store, a_log("a"))
    await run(store, a_log("b"))
    await gone(store, "a")
    await run(store, a_log("a"))
    await run(store, a_log("c"))
    assert await ids(store, "a", "c") == ["a", "c"]
    await store.close()


async def test_what_is_dropped_for_others_is_freed() -> None:
    store = MemoryStore(retention=60.0, max_retained=1)
    freed = await run_with_witness(store, "a")
    assert not freed.is_set()
    await run(store, a_log("b"))
    assert freed.is_set()
    await store.close()


async def test_what_is_over_is_freed_though_nobody_asks() -> None:
    store = MemoryStore(retention=1.0, max_retained=100)
    first = await run_with_witness(store, "a")
    await asyncio.sleep(0.05)  # when the first is swept away, the second's time is not over
    second = await run_with_witness(store, "b")
    async with asyncio.timeout(PATIENCE):
        await first.wait()
        await second.wait()
    await store.close()


async def test_the_sweep_begins_again_after_it_had_nothing_to_do() -> None:
    store = MemoryStore(retention=0.0, max_retained=100)
    async with asyncio.timeout(PATIENCE):
        await (await run_with_witness(store, "a")).wait()
        await (await run_with_witness(store, "b")).wait()
    await store.close()


async def test_an_ended_log_does_not_hold_those_who_listened() -> None:
    store = MemoryStore(retention=60.0, max_retained=100)
    log = a_log()
    listener = weakref.ref(Reader(log))
    await run(store, log)
    del log
    gc.collect()
    assert listener() is None
    await store.close()


async def test_nothing_holds_a_closed_store() -> None:
    store = MemoryStore(retention=60.0, max_retained=100)
    await run(store, a_log())
    await store.close()
    remains = weakref.ref(store)
    del store
    gc.collect()
    assert remains() is None
