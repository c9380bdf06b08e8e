"""One long stream: how fast it is live, replayed, and with a second follower."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from typing import Final

from bench.load import Exchange, open_sockets
from bench.loops import run
from bench.rates import ROUNDS
from bench.servers import Server

LENGTH: Final = 100_000
"""How many chunks the stream has."""


@dataclass(frozen=True)
class Times:
    """Seconds that the first follower, or the one that came after the end, took for the stream."""

    live: float
    replayed: float
    in_company: float

    @classmethod
    def median(cls, server: Server) -> "Times":
        """Take the median of some rounds."""
        rounds = [run(_take(server, number)) for number in range(ROUNDS)]
        return cls(
            statistics.median(it.live for it in rounds),
            statistics.median(it.replayed for it in rounds),
            statistics.median(it.in_company for it in rounds),
        )


async def _take(server: Server, number: int) -> Times:
    live = await _seconds(server, _invoke(f"alone-{number}"))
    replayed = await _seconds(server, _attach(f"alone-{number}"))
    in_company = await _seconds(server, _invoke(f"two-{number}"), second=_attach(f"two-{number}"))
    return Times(live, replayed, in_company)


async def _seconds(server: Server, first: Exchange, second: Exchange | None = None) -> float:
    """Return how long one follower takes, with another beside it."""
    async with (
        open_sockets(server.port, first, 1) as (socket,),
        open_sockets(server.port, second or first, 1) as (other,),
    ):
        began = time.perf_counter()
        following = [socket.start(rounds=1)]
        if second is not None:
            await asyncio.sleep(0)  # the invocation is there before anybody attaches to it
            following.append(other.start(rounds=1))
        await following[0]
        took = time.perf_counter() - began
        await asyncio.gather(*following)
        return took


def _invoke(invocation_id: str) -> Exchange:
    return _request(action="invoke", payload=LENGTH, invocation_id=invocation_id)


def _attach(invocation_id: str) -> Exchange:
    return _request(action="attach_invocation", invocation_id=invocation_id)


def _request(**fields: object) -> Exchange:
    return Exchange(json.dumps(fields).encode(), answers=LENGTH + 1, closing=1)
