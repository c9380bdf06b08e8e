"""Behind a gateway: two daemons and one Redis, with Debian's nginx in front, its times scaled."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import websockets
from yarl import URL

from agentws import Agent, InvocationContext, InvocationError
from tests.conftest import PATIENCE, Client, Running, Serve
from tests.deploy.nginx import running_nginx
from tests.deploy.programs import need
from tests.deploy.replicas import Replicas
from tests.support.processes import Start
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.gateway

IDLE = "2s"
"""What the gateway's 240 s without traffic are scaled to."""

PINGS = 0.3
"""What the daemon's 30 s between pings are scaled to, in seconds."""

LONGER = 3.5
"""Seconds that are longer than the gateway lets anything be silent."""

BUFFERING = pytest.mark.parametrize("buffering", ["on", "off"])


class Site(Replicas):
    """Two replicas, with nginx in front of them."""

    def gateway(self, **changes: str) -> Any:
        """Run nginx in front of them, with an idle time-out that is scaled down."""
        edits = {"240s": IDLE}
        edits |= {f"proxy_{name} off;": f"proxy_{name} {to};" for name, to in changes.items()}
        return running_nginx(self.folder, *self.ports, changes=edits)


@pytest.fixture
def site(tmp_path: Path, serve: Serve, redis: RedisServer) -> Site:
    need("nginx")
    return Site(tmp_path, serve, redis)


async def take(client: Client, last: int, after: int = 0) -> None:
    """Receive the chunks after one number, up to another."""
    for number in range(after + 1, last + 1):
        frame = await client.until(type="stream_chunk")
        assert (frame["sequence_number"], frame["payload"]) == (number, number)


# --- silence ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pings",
    [
        # Half of the time that is between them is what the peer has to answer in.
        pytest.param({"heartbeat": 3 * PINGS, "app_ping_interval": 0.0}, id="heartbeat"),
        pytest.param({"heartbeat": 0.0, "app_ping_interval": PINGS}, id="app_ping_interval"),
    ],
)
@BUFFERING
async def test_an_idle_socket_survives_by_pings(
    site: Site, pings: dict[str, float], buffering: str
) -> None:
    await site.open(websocket=pings)
    async with site.gateway(buffering=buffering) as gateway, gateway.connect() as client:
        await asyncio.sleep(LONGER)  # silence is what is tested
        await client.send(action="invoke", payload={"count": 3, "pause": 0.0})
        await take(client, 3)
        assert (await client.receive())["type"] == "stream_end"


async def test_without_pings_the_gateway_cuts_an_idle_socket(site: Site) -> None:
    await site.open(websocket={"heartbeat": 0.0, "app_ping_interval": 0.0})
    async with site.gateway() as gateway, gateway.connect() as client:
        assert await client.closed() == 1006


async def test_a_stream_that_is_silent_for_long_survives_by_pings(site: Site) -> None:
    await site.open(websocket={"app_ping_interval": PINGS})
    async with site.gateway() as gateway, gateway.connect() as client:
        await client.send(action="invoke", payload={"count": 2, "pause": LONGER})
        await take(client, 2)


# --- cuts -------------------------------------------------------------------------------------


async def test_a_socket_cut_for_its_age_resumes_by_attach_and_loses_nothing(
    site: Site,
) -> None:
    await site.open(websocket={"max_connection_age": 0.5})
    async with site.gateway() as gateway:
        async with gateway.connect() as client:
            payload = {"count": 40, "pause": 0.05}
            await client.send(action="invoke", invocation_id="i", payload=payload)
            taken, ended = await until_closed(client)
        cuts = 0
        while not ended:
            cuts += 1
            async with gateway.connect() as client:
                await client.send(
                    action="attach_invocation", invocation_id="i", starting_after=taken
                )
                taken, ended = await until_closed(client, taken)
    assert taken == 40
    assert cuts >= 2


async def until_closed(client: Client, taken: int = 0) -> tuple[int, bool]:
    """Follow a stream; return the last number, and whether it has ended."""
    told = False
    try:
        while (frame := await client.receive())["type"] != "stream_end":
            if frame["type"] == "going_away":
                assert frame["reason"] == "max_age"
                told = True
            else:
                assert frame["sequence_number"] == taken + 1
                taken += 1
    except websockets.ConnectionClosed:
        assert told
        assert await client.closed() == 1001
        return taken, False
    return taken, True


async def test_a_socket_cut_by_the_gateway_resumes_by_attach_on_either_replica(
    site: Site,
) -> None:
    await site.open()
    async with site.gateway() as gateway:
        async with gateway.connect() as client:
            payload = {"count": 30, "pause": 0.05}
            await client.send(action="invoke", invocation_id="i", payload=payload)
            await take(client, 3)
            await gateway.reload()
            assert await client.closed() == 1006
        await asyncio.gather(*(attach(replica) for replica in (gateway, *site.replicas)))


async def attach(address: Any) -> None:
    async with address.connect() as client:
        await client.send(action="attach_invocation", invocation_id="i", starting_after=3)
        await take(client, 30, after=3)
        assert (await client.receive())["type"] == "stream_end"


# --- HTTP -------------------------------------------------------------------------------------


@BUFFERING
async def test_events_arrive_as_they_come(site: Site, buffering: str) -> None:
    await site.open()
    async with (
        site.gateway(buffering=buffering) as gateway,
        aiohttp.ClientSession(gateway.http) as session,
        session.post("/invocations", json={"count": 2, "pause": 3600}) as answer,
    ):
        assert answer.headers["x-agent-invocation-id"]
        async with asyncio.timeout(PATIENCE):
            assert await anext(data_of(answer)) == 1


async def test_an_event_stream_that_is_silent_for_long_survives_by_comments(
    site: Site,
) -> None:
    await site.open(http={"sse_keepalive_interval": PINGS})
    async with (
        site.gateway() as gateway,
        aiohttp.ClientSession(gateway.http) as session,
        session.post("/invocations", json={"count": 2, "pause": LONGER}) as answer,
    ):
        assert [number async for number in data_of(answer)][:2] == [1, 2]


async def test_without_comments_the_gateway_cuts_a_silent_event_stream(site: Site) -> None:
    await site.open(http={"sse_keepalive_interval": 0.0})
    async with (
        site.gateway() as gateway,
        aiohttp.ClientSession(gateway.http) as session,
        session.post("/invocations", json={"count": 1, "pause": 3600}) as answer,
    ):
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_an_event_stream_is_taken_up_on_either_replica(site: Site) -> None:
    await site.open()
    async with site.gateway() as gateway, aiohttp.ClientSession() as session:
        url, payload = f"{gateway.http}/invocations", {"count": 20, "pause": 0.05}
        async with session.post(url, json=payload) as answer:
            assert await anext(data_of(answer)) == 1
            invocation_id = answer.headers["x-agent-invocation-id"]
        headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
        for address in (gateway, *site.replicas):
            url = f"{address.http}/invocations/{invocation_id}"
            async with session.get(url, headers=headers) as answer:
                assert [it async for it in data_of(answer)][:-1] == list(range(2, 21))


async def data_of(answer: aiohttp.ClientResponse) -> AsyncGenerator[Any, None]:
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


async def test_a_token_of_16_kib_gets_through(site: Site) -> None:
    await site.open(auth={"api_keys": ("k" * 16_000,)})
    headers = {"Authorization": "Bearer " + "k" * 16_000}
    async with (
        site.gateway() as gateway,
        aiohttp.ClientSession(gateway.http, headers=headers) as session,
        session.post("/invocations", json={"count": 1, "pause": 0}) as answer,
    ):
        assert answer.status == 200


async def test_connections_are_kept_and_used_again_on_both_sides(site: Site) -> None:
    await site.open()
    headers = {"Accept": "application/json"}
    async with (
        site.gateway() as gateway,
        aiohttp.ClientSession(
            gateway.http, connector=aiohttp.TCPConnector(limit=1), headers=headers
        ) as session,
    ):
        for _ in range(20):
            payload = {"count": 1, "pause": 0}
            async with session.post("/invocations", json=payload) as answer:
                assert await answer.json() == [1]
        assert connections_to(gateway.port) == 1
        assert sum(connections_to(replica.port) for replica in site.replicas) <= 2


def connections_to(port: int) -> int:
    return sum(
        connection.status == psutil.CONN_ESTABLISHED
        for connection in psutil.net_connections("tcp4")
        if connection.raddr and connection.raddr.port == port
    )


# --- what is refused --------------------------------------------------------------------------


def refusing(status: int) -> tuple[Agent, list[str]]:
    """Return an agent that answers everything with a status, and the list of what it was asked."""
    agent, asked = Agent(), list[str]()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        asked.append("invoke")
        raise InvocationError("mine", "It is the agent's own", status)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> None:
        asked.append("get")
        raise InvocationError("mine", "It is the agent's own", status)

    return agent, asked


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_the_agent_answers_is_the_clients_and_runs_once(site: Site, status: int) -> None:
    agent, asked = refusing(status)
    await site.open(agent)
    async with site.gateway() as gateway, aiohttp.ClientSession(gateway.http) as session:
        headers = {"x-agent-invocation-id": "i"}
        for method, path in (("POST", "/invocations"), ("GET", "/invocations/i")):
            async with session.request(method, path, headers=headers) as answer:
                assert answer.status == status
                assert (await answer.json())["error"]["code"] == "mine"
    assert asked == ["invoke", "get"]


@asynccontextmanager
async def draining(replica: Running) -> AsyncIterator[None]:
    """Let a replica drain, which it does as long as something runs on it."""
    url, headers = f"{replica.http}/invocations", {"x-agent-invocation-id": "i"}
    payload = {"count": 2, "pause": 3600}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(url, json=payload) as answer:
            drain = asyncio.create_task(replica.server.drain())
            async with session.get(f"{replica.http}/readiness") as probe:
                assert (await probe.json())["status"] == "draining"
            yield
            async with session.post(f"{url}/i/cancel") as cancelled:
                assert cancelled.status == 200
            await answer.read()
        await drain


async def test_a_replica_that_drains_is_a_503_after_which_the_other_is_asked(
    site: Site,
) -> None:
    await site.open(server={"shutdown_grace": 3600.0})
    async with (
        site.gateway() as gateway,
        aiohttp.ClientSession(gateway.http) as session,
        draining(site.replicas[0]),
    ):
        statuses = []
        for _ in range(8):
            async with session.post("/invocations", json={"count": 0, "pause": 0}) as answer:
                statuses.append(answer.status)
                if answer.status == 503:
                    assert answer.headers["Retry-After"] == "1"
                    assert (await answer.json())["error"]["code"] == "shutting_down"
        assert statuses in ([200, 503] * 4, [503, 200] * 4)


async def test_a_post_with_a_key_is_taken_by_the_other_replica(site: Site) -> None:
    await site.open(server={"shutdown_grace": 3600.0})
    async with (
        site.gateway() as gateway,
        aiohttp.ClientSession(gateway.http) as session,
        draining(site.replicas[0]),
    ):
        for number in range(8):
            headers = {"Idempotency-Key": f"key-{number}", "Accept": "application/json"}
            body = {"count": 2, "pause": 0}
            for _ in range(2):  # the second time, by what has run
                async with session.post("/invocations", json=body, headers=headers) as answer:
                    assert (answer.status, await answer.json()) == (200, [1, 2])


@pytest.mark.parametrize("status", [500, 503])
async def test_what_a_post_with_a_key_is_answered_has_run_once(site: Site, status: int) -> None:
    agent, asked = refusing(status)
    await site.open(agent)
    async with (
        site.gateway() as gateway,
        aiohttp.ClientSession(gateway.http) as session,
        session.post("/invocations", headers={"Idempotency-Key": "i"}) as answer,
    ):
        assert answer.status == status
        assert (await answer.json())["error"]["code"] == "mine"
    assert asked == ["invoke"]


async def test_a_handshake_that_a_replica_refuses_is_taken_by_the_other(site: Site) -> None:
    await site.open(server={"shutdown_grace": 3600.0})
    async with site.gateway() as gateway, draining(site.replicas[0]):
        for _ in range(4):
            async with gateway.connect() as client:
                assert (await client.ask(action="ping"))["type"] == "pong"


async def test_a_replica_that_is_gone_is_passed_over(site: Site) -> None:
    await site.open()
    await site.replicas[0].server.drain()
    async with site.gateway() as gateway, aiohttp.ClientSession(gateway.http) as session:
        for _ in range(4):
            async with session.post("/invocations", json={"count": 1, "pause": 0}) as answer:
                assert answer.status == 200
            async with gateway.connect() as client:
                assert (await client.ask(action="ping"))["type"] == "pong"


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/%6detrics"])
async def test_what_prometheus_reads_stays_inside(tmp_path: Path, launch: Start, path: str) -> None:
    need("nginx")
    # A process of its own: what is measured is measured for a whole process.
    daemon = await launch("", telemetry__prometheus="true")
    async with (
        running_nginx(tmp_path, daemon.port, daemon.port) as gateway,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"http://127.0.0.1:{daemon.port}/metrics") as answer:
            assert answer.status == 200
        async with session.get(URL(gateway.http + path, encoded=True)) as answer:
            assert answer.status == 404


# --- what is absent ---------------------------------------------------------------------------


async def test_a_daemon_does_not_wait_for_its_gateway_nor_the_gateway_for_it(
    site: Site,
) -> None:
    await site.open()
    async with site.gateway() as gateway, aiohttp.ClientSession(gateway.http) as session:
        async with session.get("/readiness") as answer:
            assert answer.status == 200
        await asyncio.gather(*(replica.server.drain() for replica in site.replicas))
        async with session.get("/readiness") as answer:
            assert answer.status == 502
