"""The load of `agentws bench`: invocations on some sockets, and what was measured of them."""

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from itertools import cycle
from typing import Any, Final

from msgspec import Struct, field

from agentws.client import Chunk, Client, Closed, ConnectionFailed, InvocationFailed, Question, Run
from agentws.client.connection import State

ASKED: Final = "input_required"
"""Counts invocations that asked something, which nobody here answers."""

UNCONNECTED: Final = "connection_failed"
"""Counts sockets, and invocations, that had no connection."""

UNFINISHED: Final = "unfinished"
"""Counts invocations that took longer than could be waited for."""

_CANCELLING: Final = 1.0
"""Seconds in which what still runs at the end may be cancelled."""


class Measured(Struct):
    """What was measured; durations are seconds."""

    completed: int = 0
    chunks: int = 0
    firsts: list[float] = field(default_factory=list)
    """From each invoke to its first chunk, or to its result where there are no chunks."""
    durations: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0
    began_at: float = 0.0
    ended_at: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return (self.ended_at or time.monotonic()) - self.began_at

    def rate(self, count: int) -> float:
        """Return how many there were in a second."""
        return count / max(self.seconds, 1e-6)

    def note_state(self, client: Client) -> None:
        """Count how often a client comes back."""
        last = client.state

        def note(state: State) -> None:
            nonlocal last
            self.reconnects += (last, state) == ("reconnecting", "open")
            last = state

        client.on_state(note)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value that so many of all do not exceed, None where there are none."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


class Load:
    """Invokes through clients that are connected, each on a socket of its own."""

    def __init__(
        self, clients: Sequence[Client], payload: Any, rate: float | None, measured: Measured
    ) -> None:
        """`rate` is how many invocations begin in a second, whatever becomes of those before.

        Without one, each client invokes when its last invocation has ended.
        """
        self.measured = measured
        self._clients = clients
        self._payload = payload
        self._rate = rate
        self._begins = True
        self._counts = True
        self._is_interrupted = asyncio.Event()
        self._runs: set[Run] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        for client in clients:
            measured.note_state(client)

    @property
    def running(self) -> int:
        """How many invocations are under way."""
        return len(self._runs)

    def interrupt(self) -> None:
        """End it now; what has ended so far counts."""
        self._is_interrupted.set()

    async def run(self, seconds: float) -> None:
        """Invoke for so many seconds, then wait as long at most for what has begun."""
        self.measured.began_at = time.monotonic()
        if self._rate is None:
            for client in self._clients:
                self._start(self._work(client))
        else:
            self._start(self._keep_rate(self._rate))
        await self._wait_for(self._is_interrupted.wait(), seconds)
        self._begins = False
        await self._wait_for(self._all_done(), seconds)
        self.measured.ended_at = time.monotonic()
        self._counts = False
        if not self._is_interrupted.is_set() and self._runs:
            self.measured.errors[UNFINISHED] += len(self._runs)
        await self._end()

    async def _wait_for(self, work: Coroutine[Any, Any, Any], seconds: float) -> None:
        """Wait for the end of something, for so many seconds at most, unless interrupted."""
        tasks = {asyncio.create_task(each) for each in (work, self._is_interrupted.wait())}
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

    async def _all_done(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, client: Client) -> None:
        """Invoke again and again, as long as there is a connection."""
        while self._begins and client.state != "closed":
            await self._invoke(client)

    async def _keep_rate(self, rate: float) -> None:
        """Begin as many invocations as there should have been by now, on all sockets in turn."""
        for number, client in enumerate(cycle(self._clients)):
            due_at = self.measured.began_at + number / rate
            await asyncio.sleep(max(0.0, due_at - time.monotonic()))
            if not self._begins:
                return
            self._start(self._invoke(client))

    async def _invoke(self, client: Client) -> None:
        began_at = time.monotonic()
        try:
            run = client.invoke(self._payload)
            self._runs.add(run)
            try:
                await self._read(run, began_at)
            finally:
                self._runs.discard(run)
        except InvocationFailed as failure:
            self._fail(failure.code)
        except (ConnectionFailed, Closed):
            self._fail(UNCONNECTED)

    async def _read(self, run: Run, began_at: float) -> None:
        first_at = 0.0
        async for event in run.events():
            match event:
                case Chunk():
                    first_at = first_at or time.monotonic()
                    self.measured.chunks += self._counts
                case Question():
                    self._fail(ASKED)
                    await run.cancel()
                    return
        await run
        if self._counts:
            ended_at = time.monotonic()
            self.measured.completed += 1
            self.measured.firsts.append((first_at or ended_at) - began_at)
            self.measured.durations.append(ended_at - began_at)

    def _fail(self, code: str) -> None:
        if self._counts:
            self.measured.errors[code] += 1

    async def _end(self) -> None:
        """Cancel what still runs, here and at the server."""
        cancelling = [asyncio.create_task(_cancelled(run)) for run in self._runs]
        if cancelling:
            await asyncio.wait(cancelling, timeout=_CANCELLING)
        for task in (*cancelling, *self._tasks):
            task.cancel()


async def _cancelled(run: Run) -> None:
    with contextlib.suppress(InvocationFailed, ConnectionFailed, Closed):
        await run.cancel()
