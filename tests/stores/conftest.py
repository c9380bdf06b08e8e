"""Stores of every kind, and what is done with them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import pytest
from hypothesis import HealthCheck, settings

from agentws.protocol.errors import InvocationError
from agentws.protocol.frames import IfSessionBusy
from agentws.protocol.inputs import Delivery
from agentws.protocol.records import Record
from agentws.stores.log import Follower, Log, Outcome
from agentws.stores.memory import MemoryStore
from agentws.stores.redis.store import RedisStore
from agentws.stores.store import Store

PATIENCE = 5.0
"""Seconds after which something that a test waits for is missing."""

MUCH = 1024**2
"""More bytes than a test says."""

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture(params=["memory", "redis"])
async def open_store(request: pytest.FixtureRequest) -> AsyncIterator[OpenStore]:
    """Open stores of one kind; they are closed at the end."""
    stores: list[Store] = []
    url = request.getfixturevalue("redis").url if request.param == "redis" else ""

    async def open_store(*, retention: float = 60.0, max_retained: int = 1000) -> Store:
        make = partial(a_redis_store, url) if url else MemoryStore
        store: Store = make(retention=retention, max_retained=max_retained)
        await store.open()
        stores.append(store)
        return store

    yield open_store
    for store in stores:
        await store.close()


def a_redis_store(
    url: str,
    *,
    prefix: str = "agentws",
    lease: float = 1.0,
    retention: float = 60.0,
    max_retained: int = 1000,
    replay_bytes: int = 1024,
    send_timeout: float = 5.0,
) -> RedisStore:
    """Return a store that is not open yet."""
    return RedisStore(
        url,
        prefix=prefix,
        lease=lease,
        retention=retention,
        max_retained=max_retained,
        replay_bytes=replay_bytes,
        send_timeout=send_timeout,
    )


def a_log(
    invocation_id: str = "i", *, chunks: Sequence[bytes] = (), replay_bytes: int = 1024
) -> Log:
    """Return the log of an invocation that has said `chunks`."""
    record = Record(invocation_id, "s", time.time(), "alice", streams=bool(chunks))
    log = Log(record, replay_bytes)
    for chunk in chunks:
        log.append(chunk)
    return log


class Run:
    """What runs an invocation, as a store knows it: notes what it is told."""

    def __init__(self) -> None:
        self.reasons: list[InvocationError] = []
        self.delivered: list[Delivery] = []

    def stop(self, reason: InvocationError) -> None:
        self.reasons.append(reason)

    def deliver(self, delivery: Delivery) -> None:
        self.delivered.append(delivery)


async def claim(store: Store, log: Log) -> list[InvocationError]:
    """Let an invocation begin; return the list of the reasons for which it is to stop.

    Raises the `InvocationError` with which its id is refused.
    """
    run = Run()
    await claim_for(store, log, run)
    return run.reasons


async def claim_for(
    store: Store, log: Log, run: Run, if_session_busy: IfSessionBusy = "parallel"
) -> Sequence[str]:
    """Let an invocation begin, and return those of its session that it is to interrupt.

    Raises the `InvocationError` with which its id is refused.
    """
    settled: asyncio.Future[tuple[InvocationError | None, Sequence[str]]]
    settled = asyncio.get_running_loop().create_future()

    def on_settled(refusal: InvocationError | None, rivals: Sequence[str]) -> None:
        settled.set_result((refusal, rivals))

    store.claim(log, run, on_settled, if_session_busy)
    refusal, rivals = await settled
    if refusal is not None:
        raise refusal
    return rivals


async def finish(store: Store, log: Log, result: bytes | None = None) -> None:
    """Let an invocation end well, and wait until that is told."""
    await end(store, log, completed(result))


async def end(store: Store, log: Log, outcome: Outcome) -> None:
    """Let an invocation end, and wait until that is told."""
    told = asyncio.Event()
    log.on_end = told.set
    store.finish(log, outcome)
    await told.wait()


async def run(store: Store, log: Log, result: bytes | None = None) -> None:
    """Let an invocation begin and end."""
    await claim(store, log)
    await finish(store, log, result)


async def found(store: Store, invocation_id: str = "i") -> Log:
    """Return the log that is to be found."""
    log = await store.find(invocation_id)
    assert log is not None
    return log


async def gone(store: Store, invocation_id: str = "i") -> None:
    """Wait until nothing is found any more; a store tells nobody when that is."""
    async with asyncio.timeout(PATIENCE):
        while await store.look_up(invocation_id) is not None:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.01)


def completed(result: bytes | None = None) -> Outcome:
    """Return how an invocation ends well."""
    return Outcome("completed", result)


def failed() -> Outcome:
    """Return how an invocation fails."""
    return Outcome("failed", error=InvocationError("quota", "No more", 429))


async def others() -> None:
    """Let other tasks go on as far as they can."""
    for _ in range(5):
        await asyncio.sleep(0)


class Listener(Follower):
    """Remembers what it was told, and takes when the test says so."""

    def __init__(self, log: Log, after: int = 0) -> None:
        self.chunks: list[bytes] = []
        self._news = asyncio.Event()
        super().__init__(log, after)

    def wake(self) -> None:
        """See `Follower.wake`."""
        assert not self._news.is_set(), "it was woken again before it took"
        self._news.set()

    def is_woken(self) -> bool:
        """Whether there is news that it has not taken."""
        return self._news.is_set()

    def take(self, max_bytes: int = MUCH) -> list[bytes]:
        """Take, and remember."""
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


class Reader(Follower):
    """Reads a log to its end."""

    def __init__(self, log: Log, after: int = 0) -> None:
        self._news = asyncio.Event()
        super().__init__(log, after)

    def wake(self) -> None:
        """See `Follower.wake`."""
        self._news.set()

    async def read(self) -> list[bytes]:
        """Return all chunks, when the log has ended."""
        chunks: list[bytes] = []
        async with asyncio.timeout(PATIENCE):
            while not self.finished:
                await self._news.wait()
                self._news.clear()
                chunks += self.take(1024)
        self.leave()
        return chunks
