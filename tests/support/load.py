"""Streams and invocations on two replicas while something happens to their Redis."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from agentws import Agent, InvocationContext
from tests.conftest import Client, Frame, Running
from tests.support.replicas import SOON, Pair, becomes

STREAMS = 6

LEASE = 2.0
"""Seconds for which a busy machine does not stand still, with all of that on it."""


class Counter:
    """An agent that counts until it is enough, or, asked for anything else, answers at once."""

    def __init__(self) -> None:
        self.enough = asyncio.Event()
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)

    async def invoke(
        self, payload: Any, context: InvocationContext
    ) -> AsyncGenerator[tuple[int, float], None]:
        """Say numbers, and when each was said."""
        number = 0
        while payload == "count" and not self.enough.is_set():
            number += 1
            yield number, time.monotonic()
            await asyncio.sleep(0.02)


class Listener:
    """Follows one stream: what it heard, and how late the latest chunk was, in seconds."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.numbers: list[int] = []
        self.latest = 0.0

    async def follow(self, invocation_id: str) -> None:
        """Follow a stream that another replica runs, and hear its beginning."""
        await self._client.send(action="attach_invocation", invocation_id=invocation_id)
        self._hear(await self._client.receive())

    async def listen(self) -> None:
        """Listen to the end."""
        while (frame := await self._client.receive())["type"] == "stream_chunk":
            self._hear(frame)
        assert frame["type"] == "stream_end", frame

    def _hear(self, frame: Frame) -> None:
        assert frame["type"] == "stream_chunk", frame
        number, said_at = frame["payload"]
        self.numbers.append(number)
        self.latest = max(self.latest, time.monotonic() - said_at)


class Prober:
    """Invokes all the time: for how long it was refused, and how slowly answered, in seconds."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self.served = 0
        self.codes: list[str] = []
        self.slowest = 0.0
        self.outage = 0.0

    async def probe(self) -> None:
        """Invoke until this is cancelled."""
        async with self._server.connect() as client:
            refused_since = None
            while True:
                asked_at = time.monotonic()
                frame = await client.ask(action="invoke", payload="now")
                self.slowest = max(self.slowest, time.monotonic() - asked_at)
                if frame["type"] == "error":
                    self.codes.append(frame["error"]["code"])
                    refused_since = refused_since or asked_at
                    self.outage = max(self.outage, time.monotonic() - refused_since)
                else:
                    self.served += 1
                    refused_since = None
                await asyncio.sleep(0.01)


class Load:
    """What was seen meanwhile."""

    def __init__(self, local: list[Listener], remote: list[Listener], probers: list[Prober]):
        self.local = local
        self.remote = remote
        self.probers = probers

    @property
    def codes(self) -> set[str]:
        """The codes of all refusals."""
        return {code for prober in self.probers for code in prober.codes}

    @property
    def outage(self) -> float:
        """The longest time for which a replica refused all."""
        return max(prober.outage for prober in self.probers)

    @property
    def latest(self) -> float:
        """By how much the latest chunk was late, wherever it was heard."""
        return max(listener.latest for listener in (*self.local, *self.remote))

    def check(self) -> None:
        """Make sure that nothing was lost, and that everybody was answered soon."""
        for local, remote in zip(self.local, self.remote, strict=True):
            assert local.numbers == list(range(1, len(local.numbers) + 1))
            assert remote.numbers == local.numbers
        assert all(prober.served for prober in self.probers)
        assert all(prober.slowest < SOON for prober in self.probers)

    def __str__(self) -> str:
        chunks = sum(len(listener.numbers) for listener in self.local)
        served = sum(prober.served for prober in self.probers)
        refusals = sum(len(prober.codes) for prober in self.probers)
        slowest = max(prober.slowest for prober in self.probers)
        return (
            f"{chunks} chunks, {served} invocations and {refusals} refusals; away for "
            f"{self.outage:.2f} s, slowest answer {slowest:.2f} s, latest chunk {self.latest:.2f} s"
        )


@asynccontextmanager
async def under_load(pair: Pair, counter: Counter) -> AsyncIterator[Load]:
    """Stream on one server to listeners there and on the other, and invoke on both."""
    async with AsyncExitStack() as stack:
        local, remote = [], []
        for number in range(STREAMS):
            here, there = [
                await stack.enter_async_context(server.connect())
                for server in (pair.owner, pair.other)
            ]
            await here.send(action="invoke", invocation_id=f"stream-{number}", payload="count")
            local.append(Listener(here))
            remote.append(Listener(there))
        await asyncio.sleep(0.1)  # so that the others find them
        for number, listener in enumerate(remote):
            await listener.follow(f"stream-{number}")
        probers = [Prober(server) for server in (pair.owner, pair.other)]
        load = Load(local, remote, probers)
        async with asyncio.TaskGroup() as group:
            listening = [group.create_task(each.listen()) for each in (*local, *remote)]
            probing = [group.create_task(each.probe()) for each in probers]
            yield load
            for server in (pair.owner, pair.other):
                await becomes(server, "healthy")
            await asyncio.sleep(0.2)  # some more come after all is well
            counter.enough.set()
            await asyncio.wait(listening)
            for task in probing:
                task.cancel()
    print(load)  # noqa: T201
    load.check()
