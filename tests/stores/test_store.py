"""What every store must do: who may claim an id, what is found under it, and for how long."""

import asyncio
import time

import pytest

from agentws.protocol.errors import InvocationError, ReplayGap
from agentws.stores.log import Outcome
from agentws.stores.store import Store
from tests.stores.conftest import OpenStore, Reader, a_log, claim, end, finish, found, gone, run


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


# Claiming


async def test_nothing_is_found_that_was_not_claimed(store: Store) -> None:
    await claim(store, a_log("other"))
    assert await store.find("i") is None


async def test_a_running_log_is_found(store: Store) -> None:
    await claim(store, a_log())
    log = await found(store)
    assert not log.ended
    assert (log.record.invocation_id, log.record.owner) == ("i", "alice")


async def test_ids_are_told_apart(store: Store) -> None:
    ids = ["i", "I", "i.", "i:", "i:record", "a" * 256, "a" * 255]
    for invocation_id in ids:
        await claim(store, a_log(invocation_id))
    assert [(await found(store, one)).record.invocation_id for one in ids] == ids


async def assert_taken(store: Store, invocation_id: str = "i") -> None:
    with pytest.raises(InvocationError) as caught:
        await claim(store, a_log(invocation_id))
    assert (caught.value.code, caught.value.status) == ("already_exists", 409)


async def test_the_id_of_a_running_log_is_taken(store: Store) -> None:
    first = a_log(chunks=[b"1"])
    await claim(store, first)
    await assert_taken(store)
    assert (await found(store)).last == 1


async def test_the_id_of_an_ended_log_is_taken(store: Store) -> None:
    await run(store, a_log(), b'"first"')
    await assert_taken(store)
    assert (await found(store)).record.result == b'"first"'


async def test_of_many_that_claim_an_id_at_once_one_gets_it(store: Store) -> None:
    outcomes = await asyncio.gather(
        *(claim(store, a_log()) for _ in range(20)), return_exceptions=True
    )
    refusals = [outcome for outcome in outcomes if outcome != []]
    assert len(refusals) == 19
    assert {type(refusal) for refusal in refusals} == {InvocationError}


# Finding


async def test_a_running_log_is_followed(store: Store) -> None:
    log = a_log(chunks=[b"1"])
    await claim(store, log)
    reader = asyncio.create_task(Reader(await found(store)).read())
    log.append(b"2")
    await finish(store, log)
    assert await reader == [b"1", b"2"]


async def test_a_log_is_followed_beyond_its_end(store: Store) -> None:
    log = a_log(chunks=[b"1", b"2"])
    await claim(store, log)
    reader = Reader(await found(store))
    await finish(store, log)
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
    assert await store.look_up("i") == log.snapshot


async def test_the_result_of_an_ended_log_is_found(store: Store) -> None:
    await run(store, a_log(), b'{"a":1}')
    record = (await found(store)).record
    assert (record.status, record.result, record.owner) == ("completed", b'{"a":1}', "alice")
    assert record.error is None


async def test_the_failure_of_an_ended_log_is_found(store: Store) -> None:
    log = a_log()
    await claim(store, log)
    error = InvocationError("quota", "No more", 429)
    await end(store, log, Outcome("failed", error=error))
    record = (await found(store)).record
    assert record.status == "failed"
    assert record.error is not None
    assert (record.error.code, record.error.message) == ("quota", "No more")
    assert record.error.status == 429


# Retention


async def test_an_ended_log_is_found_until_its_time_is_over(open_store: OpenStore) -> None:
    store = await open_store(retention=0.2)
    await run(store, a_log())
    ended = time.monotonic()
    await found(store)
    await gone(store)
    assert time.monotonic() - ended >= 0.19


async def test_an_id_can_be_claimed_again_when_its_time_is_over(open_store: OpenStore) -> None:
    store = await open_store(retention=0.1)
    await run(store, a_log(), b'"first"')
    await gone(store)
    await run(store, a_log(), b'"second"')
    assert (await found(store)).record.result == b'"second"'


async def test_nothing_is_retained_for_no_time(open_store: OpenStore) -> None:
    store = await open_store(retention=0.0)
    await run(store, a_log())
    assert await store.find("i") is None


async def test_an_id_can_be_claimed_at_once_when_nothing_is_retained(open_store: OpenStore) -> None:
    store = await open_store(retention=0.0)
    await run(store, a_log())
    await claim(store, a_log())


async def test_a_running_log_is_found_however_long_it_runs(open_store: OpenStore) -> None:
    store = await open_store(retention=0.1)
    running = a_log("running")
    await claim(store, running)
    await run(store, a_log())
    await gone(store)
    await assert_taken(store, "running")
    await finish(store, running)
    assert (await found(store, "running")).ended  # its time has only begun


async def test_a_store_is_closed_twice(open_store: OpenStore) -> None:
    store = await open_store()
    await run(store, a_log())
    await store.close()
    await store.close()
