"""Replicas that die or fall asleep: what they ran is lost, definitely, and nothing else (§10)."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import Client, Frame
from tests.support.processes import Daemon, Start
from tests.support.redis_server import RedisServer, running_redis

LEASE = 1.5
IN_TIME = LEASE + 2
"""Seconds within which a loss is told (§10)."""

COUNT = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        try:
            for number in range(payload):
                yield number
                await asyncio.sleep(0.02)
        finally:
            log.info("left")
"""

ENDLESS = 1_000_000

StartReplica = Callable[[], Awaitable[Daemon]]


@pytest.fixture
def start_replica(start: Start, redis: RedisServer) -> StartReplica:
    """Start daemons that share a Redis."""

    async def start_replica() -> Daemon:
        daemon = await start(COUNT, store__url=redis.url, store__lease=LEASE)
        return await daemon.listening()

    return start_replica


async def record(client: Client, invocation_id: str) -> Frame:
    """Poll; a replica that has just woken may have to find Redis first."""
    frame = await client.ask(action="get_invocation", invocation_id=invocation_id)
    while frame["type"] == "error" and frame["error"]["code"] == "store_unavailable":
        frame = await client.ask(action="get_invocation", invocation_id=invocation_id)
    payload = frame["payload"]
    assert isinstance(payload, dict)
    return payload


async def known_as_lost(client: Client, invocation_id: str) -> None:
    """Poll until it is: who wakes and has a time-out of Redis, tells clients before Redis knows."""
    async with asyncio.timeout(IN_TIME):
        while (await record(client, invocation_id))["status"] != "lost":
            pass


async def begin(client: Client, invocation_id: str, payload: int = ENDLESS) -> None:
    await client.send(action="invoke", invocation_id=invocation_id, payload=payload)
    assert (await client.receive())["sequence_number"] == 1


async def stream(client: Client) -> tuple[list[int], Frame]:
    """Follow a stream, which must have no gap, to its end; return its numbers and the end."""
    numbers: list[int] = []
    while (frame := await client.receive())["type"] == "stream_chunk":
        numbers.append(frame["sequence_number"])
    assert not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return numbers, frame


async def test_what_a_killed_replica_ran_is_lost_and_nothing_else(
    start_replica: StartReplica,
) -> None:
    killed, other = await asyncio.gather(start_replica(), start_replica())
    async with killed.connect() as client, other.connect() as follower, other.connect() as local:
        await begin(client, "ended", 1)
        assert (await client.receive())["type"] == "stream_end"
        await begin(client, "i")
        await begin(local, "safe", 250)
        await follower.send(action="attach_invocation", invocation_id="i")
        assert (await follower.receive())["sequence_number"] == 1
        await asyncio.sleep(LEASE)  # in the beginning, a replica does not judge others
        killed.send(signal.SIGKILL)
        died = time.monotonic()
        numbers, end = await stream(follower)
        assert time.monotonic() - died < IN_TIME
        assert end["error"].items() >= {"code": "lost", "source": "platform"}.items()
        lost = await record(follower, "i")
        assert (lost["status"], lost["error"]["code"]) == ("lost", "lost")
        assert "finished_at" in lost
        frame = await follower.ask(action="cancel_invocation", invocation_id="i")
        assert frame["error"]["code"] == "already_finished"
        await follower.send(action="attach_invocation", invocation_id="i")
        replayed, end = await stream(follower)
        assert replayed[: len(numbers) + 1] == [1, *numbers]
        assert end["error"]["code"] == "lost"
        assert (await record(follower, "ended"))["status"] == "completed"
        numbers, end = await stream(local)
        assert (numbers[-1], end["type"]) == (250, "stream_end")


async def test_a_poll_tells_of_the_loss_in_time(start_replica: StartReplica) -> None:
    killed, other = await asyncio.gather(start_replica(), start_replica())
    async with killed.connect() as client, other.connect() as poller:
        await begin(client, "i")
        await asyncio.sleep(LEASE)
        killed.send(signal.SIGKILL)
        died = time.monotonic()
        while (await record(poller, "i"))["status"] == "running":
            assert time.monotonic() - died < IN_TIME
            await asyncio.sleep(0.05)


async def test_the_log_names_the_replica_that_died_and_counts_what_it_lost(
    start_replica: StartReplica,
) -> None:
    killed, other = await asyncio.gather(start_replica(), start_replica())
    async with killed.connect() as client, other.connect() as poller:
        for name in ("a", "b"):
            await begin(client, name)
        await asyncio.sleep(LEASE)
        killed.send(signal.SIGKILL)
        lost = 0
        for name in ("a", "b"):
            while (await record(poller, name))["status"] == "running":  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.05)
        while lost < 2:
            line = await other.line(logger="agentws.store", level="WARNING")
            assert line["replica"] in line["message"]
            lost += line["lost"]
        assert lost == 2


async def test_a_replica_that_comes_later_knows_of_the_loss_at_once(
    start_replica: StartReplica,
) -> None:
    killed = await start_replica()
    async with killed.connect() as client:
        await begin(client, "i")
        killed.send(signal.SIGKILL)
        await killed.exit_code()
    await asyncio.sleep(IN_TIME)
    later = await start_replica()
    async with later.connect() as poller:
        assert (await record(poller, "i"))["status"] == "lost"


@pytest.mark.parametrize("is_watched", [True, False], ids=["watched", "unwatched"])
async def test_a_replica_that_slept_finds_its_invocations_lost_and_ends_them(
    start_replica: StartReplica, is_watched: bool
) -> None:
    sleeper, other = await asyncio.gather(start_replica(), start_replica())
    async with sleeper.connect() as client, other.connect() as follower:
        await begin(client, "i")
        await asyncio.sleep(LEASE)
        sleeper.send(signal.SIGSTOP)
        slept = time.monotonic()
        if is_watched:
            await follower.send(action="attach_invocation", invocation_id="i")
            _, end = await stream(follower)
            assert end["error"]["code"] == "lost"
            assert time.monotonic() - slept < IN_TIME
        await asyncio.sleep(max(0.0, slept + IN_TIME - time.monotonic()))
        sleeper.send(signal.SIGCONT)
        _, end = await stream(client)
        assert end["error"]["code"] == "lost"
        await sleeper.line(message="left", invocation_id="i")
        for connection in (client, follower):
            await known_as_lost(connection, "i")
        frame = await client.ask(action="invoke", invocation_id="i", payload=1)
        assert frame["error"]["code"] == "already_exists"
        await begin(client, "new", 1)  # it is well again
        assert (await client.receive())["type"] == "stream_end"
        assert (await record(follower, "new"))["status"] == "completed"


async def test_whoever_speaks_to_what_runs_on_a_replica_that_sleeps_is_told_so(
    start_replica: StartReplica,
) -> None:
    sleeper, other = await asyncio.gather(start_replica(), start_replica())
    async with sleeper.connect() as client, other.connect() as speaker:
        await begin(client, "i")
        await asyncio.sleep(LEASE)
        sleeper.send(signal.SIGSTOP)
        frame = await speaker.ask(action="send_input", invocation_id="i", payload=1)
        assert (frame["error"]["code"], frame["error"]["retryable"]) == ("store_unavailable", True)
        assert frame["error"]["message"] == "The replica that runs the invocation does not answer"
        sleeper.send(signal.SIGCONT)


async def test_what_ends_at_the_moment_of_waking_is_lost_all_the_same(
    start: Start, redis: RedisServer
) -> None:
    source = """\
        @agent.invoke_handler
        async def invoke(payload, context):
            log.info("entered")
            await asyncio.sleep(payload)
            return "too late"
    """
    options: dict[str, Any] = {"store__url": redis.url, "store__lease": LEASE}
    sleeper, other = [await (await start(source, **options)).listening() for _ in range(2)]
    async with sleeper.connect() as client, other.connect() as poller:
        await client.send(action="invoke", invocation_id="i", payload=LEASE + 1)
        await sleeper.line(message="entered")
        await asyncio.sleep(LEASE)
        sleeper.send(signal.SIGSTOP)
        await asyncio.sleep(IN_TIME)
        await known_as_lost(poller, "i")
        sleeper.send(signal.SIGCONT)
        assert (await client.receive())["error"]["code"] == "lost"
        assert (await record(poller, "i"))["status"] == "lost"


async def test_a_short_sleep_costs_nothing(start_replica: StartReplica) -> None:
    sleeper, other = await asyncio.gather(start_replica(), start_replica())
    async with sleeper.connect() as client, other.connect() as follower:
        await begin(client, "i", 100)
        await follower.send(action="attach_invocation", invocation_id="i")
        sleeper.send(signal.SIGSTOP)
        await asyncio.sleep(LEASE / 3)
        sleeper.send(signal.SIGCONT)
        numbers, end = await stream(follower)
        assert (numbers, end["type"]) == (list(range(1, 101)), "stream_end")


async def test_a_stopped_replica_leaves_nothing_lost(start_replica: StartReplica) -> None:
    stopped, other = await asyncio.gather(start_replica(), start_replica())
    async with stopped.connect() as client, other.connect() as follower:
        await begin(client, "i", 50)
        await follower.send(action="attach_invocation", invocation_id="i")
        assert (await follower.receive())["sequence_number"] == 1
        stopped.send(signal.SIGTERM)
        numbers, end = await stream(follower)
        assert (numbers[-1], end["type"]) == (50, "stream_end")
        assert await stopped.exit_code() == 0
        assert (await record(follower, "i"))["status"] == "completed"


# --- the start --------------------------------------------------------------------------------


async def refused(start: Start, url: str) -> str:
    """Return the one line with which a daemon refuses to start."""
    daemon = await start(COUNT, store__url=url)
    assert await daemon.exit_code() == 2
    (line,) = (await daemon.complaints()).splitlines()
    return line


async def test_a_wrong_password_is_refused(start: Start) -> None:
    with running_redis("--requirepass", "right-secret") as redis:
        url = f"redis://:wrong-secret@127.0.0.1:{redis.port}"
        for line in (await refused(start, url), await refused(start, redis.url)):
            assert "store.url" in line
            assert "secret" not in line


async def test_what_is_no_redis_is_refused(start: Start) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert "store.url" in await refused(start, f"redis://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "path",
    [
        *("/99", "/name", ":port", ":99999"),
        *("/?color=red", "/?protocol=3", "/?decode_responses=true", "/0?health_check_interval=1"),
        *("/?socket_timeout=1", "/?db=x", "/?retry_on_timeout=1", "/?ssl_cert_reqs=none"),
        *("/?ssl_ca_certs=/nowhere/ca.pem", "/?ssl_cert_reqs=nonsense"),
    ],
)
async def test_a_wrong_address_is_refused(start: Start, redis: RedisServer, path: str) -> None:
    url = redis.url + path if path.startswith("/") else f"redis://user:secret@127.0.0.1{path}"
    line = await refused(start, url)
    assert "store.url" in line
    assert "secret" not in line


async def test_an_unreachable_redis_is_waited_for(start: Start, own_redis: RedisServer) -> None:
    own_redis.stop()
    daemon = await start(COUNT, store__url=f"redis://:secret@127.0.0.1:{own_redis.port}")
    line = await daemon.line(logger="agentws.store")
    assert line["level"] == "WARNING"
    assert "secret" not in line["message"]
    await daemon.listening()
    daemon.send(signal.SIGTERM)
    assert await daemon.exit_code() == 0
