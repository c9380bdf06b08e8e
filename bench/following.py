"""One long stream: how fast its first follower is, alone and beside a second one."""

import asyncio
import json
import time
from dataclasses import dataclass

from bench.contenders import Server
from bench.load import Exchange, open_sockets


@dataclass(frozen=True)
class Times:
    """Seconds that the first follower took for the stream, alone and beside another."""

    live: float
    in_company: float

    @classmethod
    async def take(cls, server: Server, name: str, length: int) -> "Times":
        """Have two streams of that length; `name` tells them from others."""
        attach = _request(length, action="attach_invocation", invocation_id=f"two-{name}")
        live = await _seconds(server, _invoke(f"alone-{name}", length))
        in_company = await _seconds(server, _invoke(f"two-{name}", length), second=attach)
        return cls(live, in_company)


async def _seconds(server: Server, first: Exchange, second: Exchange | None = None) -> float:
    """Return how long one follower takes, with another beside it."""
    async with (
        open_sockets(server, first, 1) as (socket,),
        open_sockets(server, second or first, 1) as (other,),
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


def _invoke(invocation_id: str, length: int) -> Exchange:
    payload = {"chunks": length}
    return _request(length, action="invoke", payload=payload, invocation_id=invocation_id)


def _request(length: int, **fields: object) -> Exchange:
    return Exchange(json.dumps(fields).encode(), answers=length + 1, closing=1)
