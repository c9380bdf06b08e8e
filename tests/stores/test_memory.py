"""The store in memory: how much it retains, and that it lets go of the rest."""

import asyncio
import gc
import weakref

from agentws.stores.memory import MemoryStore
from tests.stores.conftest import PATIENCE, Reader, a_log, claim, finish, gone, run


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
    return [one for one in wanted if await store.look_up(one) is not None]


async def test_at_most_so_many_are_retained_and_the_oldest_goes_first() -> None:
    store = MemoryStore(retention=60.0, max_retained=2)
    for invocation_id in "abc":
        await run(store, a_log(invocation_id))
    assert await ids(store, "a", "b", "c") == ["b", "c"]
    await claim(store, a_log("a"))
    await store.close()


async def test_the_oldest_is_the_one_that_ended_first() -> None:
    store = MemoryStore(retention=60.0, max_retained=2)
    first = a_log("a")
    await claim(store, first)
    await run(store, a_log("b"))
    await run(store, a_log("c"))
    await finish(store, first)
    assert await ids(store, "a", "b", "c") == ["a", "c"]
    await store.close()


async def test_running_logs_are_not_counted() -> None:
    store = MemoryStore(retention=60.0, max_retained=1)
    for invocation_id in "abc":
        await claim(store, a_log(invocation_id))
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
