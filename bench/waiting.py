"""How long one client waits for an answer, time after time, while nobody else asks anything."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.contenders import Server
from bench.load import Exchange, Requester, open_sockets
from bench.loops import run

RETAINED: Final = 100_000
"""How many ended invocations the server holds when it is asked for some of them."""

_ECHO: Final = Exchange(b'{"payload":{"message":"Hello"}}')
_WARM_UP: Final = 50
_ROUNDS: Final = 3
_SOCKETS: Final = 50


@dataclass(frozen=True)
class Waits:
    """Milliseconds within which half of the answers came, and all but one in a hundred."""

    p50: float
    p99: float

    @classmethod
    def of(cls, times: Sequence[float]) -> "Waits":
        """Sum up how many milliseconds each answer took."""
        return cls(statistics.median(times), statistics.quantiles(times, n=100)[-1])

    @classmethod
    def median(cls, rounds: Sequence["Waits"]) -> "Waits":
        """Return the median of each number."""
        return cls(
            statistics.median(it.p50 for it in rounds), statistics.median(it.p99 for it in rounds)
        )


def waits(
    ours: Server, exchange: Exchange, *, after: Exchange, bare: Server, times: int
) -> tuple[Waits, Waits]:
    """Measure an exchange so many times on one socket, on which another one came before.

    In turns with it, echoes of a bare server are measured, which tell what the machine takes. Both
    are returned.
    """
    return run(_take(ours, exchange, after, bare, times))


async def _take(
    ours: Server, exchange: Exchange, after: Exchange, bare: Server, times: int
) -> tuple[Waits, Waits]:
    async with (
        open_sockets(ours, after, 1) as (socket,),
        open_sockets(bare, _ECHO, 1) as (other,),
    ):
        await socket.start(rounds=1)
        socket.turn_to(exchange)
        await asyncio.gather(socket.start(rounds=_WARM_UP), other.start(rounds=_WARM_UP))
        rounds = [(await _round(socket, times), await _round(other, times)) for _ in range(_ROUNDS)]
    taken, echoes = zip(*rounds, strict=True)
    return Waits.median(taken), Waits.median(echoes)


async def _round(socket: Requester, times: int) -> Waits:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await socket.start(rounds=1)
        taken.append((time.perf_counter() - began) * 1000)
    return Waits.of(taken)


def retain(server: Server, count: int = RETAINED) -> None:
    """Have the server hold so many invocations, in as many sessions as there are sockets."""
    run(_retain(server, count))


async def _retain(server: Server, count: int) -> None:
    async with open_sockets(server, Exchange(b""), _SOCKETS) as sockets:
        for number, socket in enumerate(sockets):
            session = b'"session_id":"%d"' % number
            socket.turn_to(Exchange(b'{"action":"invoke",%b}' % session))
        await asyncio.gather(*(socket.start(-(-count // _SOCKETS)) for socket in sockets))
