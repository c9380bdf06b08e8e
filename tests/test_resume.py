"""A dropped connection costs nothing: streams survive cuts at any byte."""

import asyncio
import json
import random
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.conftest import Address, Frame, Serve
from tests.peers import FramedPeer
from tests.proxy import round_robin
from tests.redis_server import RedisServer

STREAMS = 150
CHUNKS = 120
SEEDS = [1, 2, 3]
LAST = (b'"type":"stream_end"', b'"type":"error"')


class Resumer:
    """A client that is cut off after some bytes, time and again, and takes up where it was."""

    def __init__(self, server: Address, invocation_id: str, chance: random.Random) -> None:
        self.server = server
        self.invocation_id = invocation_id
        self.chance = chance
        self.numbers: list[int] = []
        self.cuts = 0
        self.is_known = False

    async def follow(self) -> str:
        """Follow the stream to its end, however often it is cut; return the type of the end."""
        while True:
            async with FramedPeer.connect(self.server) as peer:
                peer.act(invocation_id=self.invocation_id, **self.question())
                for frame in frames_of(await self.some_bytes(peer)):
                    if (end := self.take(frame)) is not None:
                        return end
                self.cut(peer)

    def question(self) -> dict[str, Any]:
        """Invoke until the server is known to have the invocation, then take up the stream."""
        if not self.is_known:
            return {"action": "invoke", "payload": CHUNKS}
        return {"action": "attach_invocation", "starting_after": len(self.numbers)}

    async def some_bytes(self, peer: FramedPeer) -> bytes:
        """Read some bytes, any number of them, so that the last frame may be cut."""
        wanted = self.chance.choice([0, 1, 60, 200, 1_000, 5_000, 20_000])
        data = b""
        while len(data) < wanted and not any(last in data for last in LAST):
            part = await peer.reader.read(self.chance.randint(1, wanted - len(data)))
            assert part, f"the server closed the connection after {data[-200:]!r}"
            data += part
        return data

    def take(self, frame: Frame) -> str | None:
        """Note a chunk; return the type of a frame that ends the stream."""
        assert frame["invocation_id"] == self.invocation_id
        self.is_known = True
        match frame["type"]:
            case "stream_chunk":
                self.numbers.append(frame["sequence_number"])
                assert frame["payload"] == {"number": frame["sequence_number"]}
                return None
            case "error" if frame["error"]["code"] == "already_exists":
                return None  # an invoke that was cut off before its answer had arrived after all
            case "error" if frame["error"]["code"] == "store_unavailable":
                self.is_known = bool(self.numbers)  # what it asked for was not done
                return None
            case kind:
                return str(kind)

    def cut(self, peer: FramedPeer) -> None:
        self.cuts += 1
        if self.chance.random() < 0.5:
            peer.vanish()


def frames_of(data: bytes) -> list[Frame]:
    """Return the whole frames in the data of a server, which does not mask them."""
    frames = []
    while len(data) >= 2:
        head, length = 2, data[1]
        if length == 126 and len(data) >= 4:
            head, (length,) = 4, struct.unpack("!H", data[2:4])
        if len(data) < head + length:
            break
        frames.append(json.loads(data[head : head + length]))
        data = data[head + length :]
    return frames


def streaming() -> Agent:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: int, context: InvocationContext) -> AsyncGenerator[Any, None]:
        chance = random.Random(context.invocation_id)
        for number in range(1, payload + 1):
            yield {"number": number}
            if chance.random() < 0.2:
                await asyncio.sleep(0)

    return agent


@pytest.fixture(params=["one server", "two servers on one Redis"])
async def address(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[Address]:
    """Serve the agent behind one address, by one server or by two that take turns."""
    if request.param == "one server":
        yield await serve(streaming())
        return
    store = {"url": request.getfixturevalue("redis").url}
    servers = [await serve(streaming(), store=store) for _ in range(2)]
    async with round_robin(servers) as proxy:
        yield proxy


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_chunk_is_lost_repeated_or_reordered_wherever_the_socket_is_cut(
    address: Address, seed: int
) -> None:
    assert await follow_all(address, seed, STREAMS) > 3 * STREAMS


async def test_no_chunk_is_lost_repeated_or_reordered_while_redis_comes_and_goes(
    own_redis: RedisServer, serve: Serve
) -> None:
    async def ill_treat() -> None:
        while True:
            await asyncio.sleep(0.1)
            own_redis.client.client_kill_filter(skipme=True)
            await asyncio.sleep(0.1)
            own_redis.pause()
            await asyncio.sleep(0.2)
            own_redis.resume()

    store = {"url": own_redis.url}
    servers = [await serve(streaming(), store=store) for _ in range(2)]
    async with round_robin(servers) as proxy:
        trouble = asyncio.create_task(ill_treat())
        try:
            await follow_all(proxy, seed=4, count=STREAMS)
        finally:
            trouble.cancel()
            await asyncio.wait({trouble})
            own_redis.resume()


async def follow_all(address: Address, seed: int, count: int) -> int:
    """Follow streams to their ends, check what arrived, and return how often they were cut."""
    chance = random.Random(seed)
    clients = [
        Resumer(address, f"stream-{seed}-{index}", random.Random(chance.random()))
        for index in range(count)
    ]
    ends: list[str] = []
    for start in range(0, count, 25):
        ends += await asyncio.gather(*(client.follow() for client in clients[start : start + 25]))
    assert set(ends) == {"stream_end"}
    for client in clients:
        assert client.numbers == list(range(1, CHUNKS + 1))
    return sum(client.cuts for client in clients)
