"""A sandbox is saved and restored: clocks jump, sockets are gone, and memory loses nothing.

A stopped process finds, when it goes on, that all of its clocks have jumped. In a sandbox that is
restored with its memory, the monotonic one may have stood still instead: then it is as if, in one
moment, the sockets had been cut and Redis had forgotten what it keeps for a while only.
"""

import asyncio
import signal
from typing import Any

import pytest

from tests.conftest import Client, Frame
from tests.support.processes import Daemon, Start
from tests.support.redis_server import RedisServer

COUNT = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        for number in range(1, payload + 1):
            yield number
            await asyncio.sleep(0.02)
    """

MANY = 60

BEAT, GRACE, LEASE = 1.0, 0.5, 1.0
SAVED = 1.5
"""Seconds of which the process knows nothing: longer than any of the others."""


@pytest.fixture
async def with_redis(launch: Start, own_redis: RedisServer) -> Daemon:
    """The only replica, as a sandbox is."""
    return await launch(COUNT, store__url=own_redis.url, store__lease=LEASE)


async def begin(client: Client, count: int) -> None:
    await client.send(action="invoke", invocation_id="i", payload=count)
    assert (await client.receive())["sequence_number"] == 1


def save(daemon: Daemon, client: Client) -> None:
    """Stop the process; the socket is not among what is saved."""
    daemon.send(signal.SIGSTOP)
    client.connection.transport.abort()


def cut_all(redis: RedisServer) -> None:
    for kind in ("normal", "pubsub"):
        redis.client.client_kill_filter(_type=kind, skipme=True)


async def attached(daemon: Daemon) -> tuple[list[int], Frame]:
    """Come back after the first chunk; return the numbers that follow, and the end."""
    numbers = []
    async with daemon.connect() as client:
        await client.send(action="attach_invocation", invocation_id="i", starting_after=1)
        while (frame := await client.receive())["type"] == "stream_chunk":
            numbers.append(frame["sequence_number"])
    return numbers, frame


async def test_with_the_memory_nothing_is_lost(launch: Start) -> None:
    settings: dict[str, Any] = {
        "websocket__heartbeat": BEAT,
        "invocations__disconnect_grace": GRACE,
    }
    daemon = await launch(COUNT, **settings)
    async with daemon.connect() as client:
        await begin(client, MANY)
        save(daemon, client)
    await asyncio.sleep(SAVED)
    daemon.send(signal.SIGCONT)
    numbers, end = await attached(daemon)
    assert numbers == list(range(2, MANY + 1))
    assert end["type"] == "stream_end"
    await daemon.end_well()


async def test_with_redis_what_ran_is_lost_when_the_clock_has_jumped_past_the_lease(
    with_redis: Daemon, own_redis: RedisServer
) -> None:
    daemon = with_redis
    async with daemon.connect() as client:
        await client.send(action="invoke", invocation_id="before", payload=1)
        await client.until(type="stream_end")
        await begin(client, 10 * MANY)
        save(daemon, client)
    cut_all(own_redis)
    await asyncio.sleep(SAVED)
    daemon.send(signal.SIGCONT)
    await daemon.line(message="Redis answers")
    _, end = await attached(daemon)
    assert end["error"]["code"] == "lost"
    async with daemon.connect() as client:
        record = await client.ask(action="get_invocation", invocation_id="before")
        assert record["payload"]["status"] == "completed"
        await client.send(action="invoke", payload=1)
        await client.until(type="stream_end")
    await daemon.end_well()


async def test_with_redis_nothing_is_lost_when_the_clock_stood_still_and_nobody_judged(
    with_redis: Daemon, own_redis: RedisServer
) -> None:
    daemon = with_redis
    async with daemon.connect() as client:
        await begin(client, MANY)
        save(daemon, client)
    cut_all(own_redis)
    own_redis.empty()  # whatever it held has expired meanwhile
    daemon.send(signal.SIGCONT)
    await daemon.line(message="Redis answers")
    numbers, end = await attached(daemon)
    assert numbers == list(range(2, MANY + 1))
    assert end["type"] == "stream_end"
    await daemon.end_well()
