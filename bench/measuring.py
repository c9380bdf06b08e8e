"""How much goes through a server and what it costs it; several in turns, as machines are noisy."""

import asyncio
import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.contenders import Server
from bench.load import Exchange, LoadError, LoadSocket, Requester, open_sockets
from bench.loops import run

_QUIET: Final = 0.02
"""The share of a core below which a server is through with the sockets that were dropped."""

_SETTLING: Final = 5.0
"""Seconds after which it is measured though it is not."""


_ANSWERING: Final = 30.0
"""Seconds within which every socket is answered once."""


@dataclass(frozen=True)
class Effort:
    """How long each server is measured at a time, how often, and with which share of the load."""

    seconds: float = 0.7
    rounds: int = 3
    scale: float = 1.0

    def of(self, count: int) -> int:
        """Return that share of `count`, and no less than 1."""
        return max(1, round(count * self.scale))


@dataclass(frozen=True)
class Result:
    """What a contender came to in a scenario."""

    scenario: str
    contender: str
    values: Mapping[str, float]
    """By quantity, its unit at the end: medians of the rounds, except for the longest pause."""
    cpu_rounds: Sequence[float] = field(default=(), repr=False)
    """Microseconds of CPU time an operation, round by round."""


@dataclass(frozen=True)
class Load:
    """What is asked of a server: by so many clients of a kind, the same over and over."""

    exchange: Exchange
    clients: int
    kind: type[Requester] = LoadSocket


Round = Callable[[], Coroutine[Any, Any, dict[str, float]]]
"""Measures a server once."""


def in_turns(scenario: str, contenders: Mapping[str, Round], rounds: int) -> list[Result]:
    """Measure all contenders in turns."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            samples[name].append(run(measure()))
    return [_summed_up(scenario, name, taken) for name, taken in samples.items()]


def _summed_up(scenario: str, name: str, rounds: Sequence[Mapping[str, float]]) -> Result:
    values = {key: statistics.median(it[key] for it in rounds) for key in rounds[0]}
    if "longest_pause_ms" in values:
        values["longest_pause_ms"] = max(it["longest_pause_ms"] for it in rounds)
    return Result(scenario, name, values, tuple(it["cpu_us"] for it in rounds if "cpu_us" in it))


def under_load(server: Server, load: Load, effort: Effort) -> Round:
    """Measure a server under load, when its turn has come."""
    return functools.partial(_under_load, server, load, effort.seconds)


async def _under_load(server: Server, load: Load, seconds: float) -> dict[str, float]:
    server.pauses.reset()
    async with open_sockets(server, load.exchange, load.clients, load.kind) as sockets:
        endless = [socket.start() for socket in sockets]
        await _warm_up(sockets, endless, seconds / 2)
        with observed(server, lambda: sum(socket.messages for socket in sockets)) as sample:
            await watch(endless, seconds)
        for socket in sockets:
            socket.finish()  # as what is dropped within a stream may go on with it
        await asyncio.wait(endless, timeout=_SETTLING)
    await settled(server)
    counted = 1 - load.exchange.closing / load.exchange.answers
    sample["per_second"] *= counted
    sample["cpu_us"] /= counted
    return sample


async def _warm_up(
    sockets: Sequence[Requester], endless: "list[asyncio.Future[None]]", seconds: float
) -> None:
    """Let buffers grow and the interpreter specialise, until everybody was answered."""
    deadline = time.monotonic() + _ANSWERING
    await watch(endless, seconds)
    while not all(socket.messages for socket in sockets):
        if time.monotonic() > deadline:
            raise LoadError("Some sockets were not answered")
        await watch(endless, 0.05)


async def watch(endless: "list[asyncio.Future[None]]", seconds: float) -> None:
    """Let the sockets work; what none of them should do is to end. Raises `LoadError`."""
    ended, _ = await asyncio.wait(endless, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for failure in ended:
        failure.result()


@contextlib.contextmanager
def observed(server: Server, operations: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Fill in what the block cost the server, and how much of `operations` came of it.

    Pauses are those since they were reset: the opening of sockets may be among them.
    """
    sample: dict[str, float] = {}
    began, cpu, own = time.perf_counter(), server.cpu_seconds, time.process_time()
    faults, done = server.page_faults, operations()
    yield sample
    took, spent = time.perf_counter() - began, server.cpu_seconds - cpu
    done = max(operations() - done, 1)
    sample["per_second"] = done / took
    sample["cpu_us"] = spent / done * 1e6
    sample["core_share"] = spent / took
    sample["load_core_share"] = (time.process_time() - own) / took
    sample["page_faults"] = (server.page_faults - faults) / done
    sample["longest_pause_ms"] = server.pauses.longest * 1e3
    sample["full_collections"] = server.pauses.full


async def settled(server: Server) -> None:
    """Wait until a server is done with what was dropped, as the next one is on the same core."""
    deadline = time.monotonic() + _SETTLING
    while time.monotonic() < deadline:
        cpu = server.cpu_seconds
        await asyncio.sleep(0.05)
        if server.cpu_seconds - cpu < 0.05 * _QUIET:
            return
