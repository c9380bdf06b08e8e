"""How much goes through a server, and how two of them compare on a noisy machine."""

import asyncio
import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.load import Exchange, LoadSocket, open_sockets
from bench.loops import run
from bench.servers import Server

SOCKETS: Final = 50
ROUNDS: Final = 5
_WARM_UP: Final = 0.5
"""Seconds before each measuring, in which buffers grow and the interpreter specialises."""

_SATURATED: Final = 0.95
_BUSY: Final = 0.9


@dataclass(frozen=True)
class Rate:
    """What went through in a while, and how busy the two cores were with it, from 0 to 1."""

    messages_per_second: float
    server_load: float
    generator_load: float

    @classmethod
    def median(cls, rates: Sequence["Rate"]) -> "Rate":
        """Return the median of each number."""
        return cls(
            statistics.median(rate.messages_per_second for rate in rates),
            statistics.median(rate.server_load for rate in rates),
            statistics.median(rate.generator_load for rate in rates),
        )

    @property
    def doubt(self) -> str | None:
        """Why something else than the server may have set the pace."""
        if self.generator_load > _SATURATED:
            return "the load generator was saturated"
        if self.server_load < _BUSY:
            return f"the server got or took no more than {self.server_load:.0%} of its core"
        return None


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: a server, and what is said to it."""

    server: Server
    exchange: Exchange


@dataclass(frozen=True)
class Comparison:
    """The rates of both sides, round by round."""

    ours: list[Rate]
    other: list[Rate]

    @property
    def ratio(self) -> float:
        """Ours to the other: the median of the rounds, each of which saw the same noise on both."""
        return statistics.median(
            ours.messages_per_second / other.messages_per_second
            for ours, other in zip(self.ours, self.other, strict=True)
        )


def compare(ours: Side, other: Side, seconds: float) -> Comparison:
    """Measure both in turns, `seconds` each time."""
    comparison = Comparison([], [])
    for _ in range(ROUNDS):
        comparison.ours.append(run(_measure(ours, seconds)))
        comparison.other.append(run(_measure(other, seconds)))
    return comparison


async def _measure(side: Side, seconds: float) -> Rate:
    async with open_sockets(side.server.port, side.exchange, SOCKETS) as sockets:
        endless = [socket.start() for socket in sockets]
        await _watch(endless, _WARM_UP)
        before = _Reading.take(side.server, sockets)
        await _watch(endless, seconds)
        rate = _Reading.take(side.server, sockets).since(before)
    counted = 1 - side.exchange.closing / side.exchange.answers
    return dataclasses.replace(rate, messages_per_second=rate.messages_per_second * counted)


async def _watch(endless: "list[asyncio.Future[None]]", seconds: float) -> None:
    """Let the sockets work; what none of them should do is to end."""
    ended, _ = await asyncio.wait(endless, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for failure in ended:
        failure.result()


@dataclass(frozen=True)
class _Reading:
    """What the clocks and counters say at one moment."""

    at: float
    messages: int
    server_cpu: float
    generator_cpu: float

    @classmethod
    def take(cls, server: Server, sockets: list[LoadSocket]) -> "_Reading":
        messages = sum(socket.messages for socket in sockets)
        return cls(time.perf_counter(), messages, server.cpu_seconds, time.process_time())

    def since(self, earlier: "_Reading") -> Rate:
        elapsed = self.at - earlier.at
        return Rate(
            messages_per_second=(self.messages - earlier.messages) / elapsed,
            server_load=(self.server_cpu - earlier.server_cpu) / elapsed,
            generator_load=(self.generator_cpu - earlier.generator_cpu) / elapsed,
        )
