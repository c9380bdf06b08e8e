"""What hostile peers can do to others on the same daemon: next to nothing (§8)."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from agentws import InvocationContext
from agentws.transports.http import bodies, http_api
from agentws.transports.websocket.framed_ws import MOST_WAITING_ACTIONS
from tests.conftest import Address, LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.support.attackers import ATTACKS, MANY
from tests.support.http_client import JSON, Session, refusal
from tests.support.peers import TEXT, FramedPeer, HttpPeer, masked
from tests.support.processes import ROOT, Daemon, serving

LONGEST = 0.05
"""Seconds within which 99 of 100 echoes come back to somebody else."""

ECHOES = 200
ROUNDS = 3
"""How often that is measured at most, as the machine may be busy with other things."""

MOST_GROWTH = 64 * 1024**2
"""Bytes by which the daemon may grow under an attack."""

Start = Callable[..., Awaitable[Daemon]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start daemons to be attacked; keywords set options, such as websocket__heartbeat."""
    daemons: list[Daemon] = []

    async def begin(**options: Any) -> Daemon:
        daemon = await serving(
            *("-m", "agentws", "serve", "--host", "127.0.0.1", "--port", "0"),
            *("--handler", "tests.support.victim:agent"),
            invocations__retention=1,
            **options,
        )
        daemons.append(daemon)
        return daemon

    yield begin
    for daemon in daemons:
        await daemon.kill()


@asynccontextmanager
async def attacking(daemon: Daemon, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Let a hostile peer loose on a daemon."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.attackers", name, str(daemon.port)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    await process.communicate()


async def slowest_echoes(peer: FramedPeer) -> float:
    """Return the time in which 99 of 100 echoes come back."""
    times = []
    for _ in range(ECHOES):
        asked_at = time.perf_counter()
        peer.act(action="invoke")
        while b'"stream_end"' not in (await peer.receive())[1]:
            pass
        times.append(time.perf_counter() - asked_at)
        await asyncio.sleep(0.002)
    return sorted(times)[ECHOES * 99 // 100 - 1]


async def errors_in_log(daemon: Daemon) -> list[bytes]:
    """Read what the daemon writes until its end, and return what it takes for errors."""
    assert daemon.process.stdout is not None
    return [line async for line in daemon.process.stdout if b'"level":"ERROR"' in line]


@pytest.mark.parametrize("attack", ATTACKS)
async def test_others_have_their_echo_in_time(start: Start, attack: str) -> None:
    daemon = await start()
    log = asyncio.create_task(errors_in_log(daemon))
    memory = psutil.Process(daemon.process.pid).memory_info
    before = memory().rss
    async with FramedPeer.connect(Address(daemon.port)) as peer, attacking(daemon, attack):
        measured = [await slowest_echoes(peer)]
        while measured[-1] > LONGEST and len(measured) < ROUNDS:
            measured.append(await slowest_echoes(peer))
        assert min(measured) <= LONGEST, measured
    assert memory().rss - before < MOST_GROWTH
    daemon.process.kill()
    assert await log == []  # what peers do is no error of the daemon's


async def test_peers_that_fell_silent_without_a_word_are_dropped(start: Start) -> None:
    """A stopped process answers no ping and sends no FIN, as after a cut of the network."""
    daemon = await start(websocket__heartbeat=1)
    async with attacking(daemon, "one_byte_a_second") as attacker:
        attacker.send_signal(signal.SIGSTOP)
        for _ in range(MANY):
            line = await daemon.line(logger="agentws.connection")
            assert line["azure.ai.agentserver.invocations_ws.error.code"] == "heartbeat_timeout"


# --- what holds them off ----------------------------------------------------------------------


async def test_a_handshake_that_is_never_finished_is_dropped(serve: Serve) -> None:
    server = await serve(agent_of(echo), http={"keepalive_timeout": 0.2})
    async with HttpPeer.connect(server) as silent, HttpPeer.connect(server) as slow:
        slow.writer.write(b"GET /invocations_ws/ws HTTP/1.1\r\nHost: a\r\nUpgrade: webso")
        await silent.dropped()
        await slow.dropped()


async def test_a_body_that_does_not_come_is_not_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_TIME", 0.2)
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "Content-Length: 100", body=b"[")
        status, _, body = await peer.answer()
        assert (status, b"did not come within" in body) == (400, True)
        await peer.dropped()


async def test_of_100_000_invokes_of_one_socket_64_run(serve: Serve) -> None:
    number, limit = 100_000, 64
    started = 0

    async def forever(payload: object, context: InvocationContext) -> None:
        nonlocal started
        started += 1
        await asyncio.Event().wait()

    server = await serve(agent_of(forever), websocket={"max_invocations_per_connection": limit})
    async with FramedPeer.connect(server) as peer, server.connect() as client:
        peer.writer.write(masked(TEXT, b'{"action":"invoke"}') * number)
        refused, cut = 0, b""
        async with asyncio.timeout(60):
            while refused < number - limit:
                data = cut + await peer.reader.read(1 << 20)
                assert data
                refused += data.count(b'"too_many_invocations"')
                cut = data[-21:]  # one byte less than what is counted
        assert started == limit
        await client.send(action="invoke")
        assert (await client.ask(action="ping"))["type"] == "pong"
        assert started == limit + 1


async def test_a_request_that_is_not_http_is_no_error_of_ours(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        peer.writer.write(b"\x16\x03\x01 api-key: s3cret\r\n\r\n")
        assert (await peer.answer())[0] == 400
    line = await log_lines.next("agentws.access")
    assert (line.levelname, line.__dict__["status"]) == ("INFO", 400)
    assert not any("s3cret" in str(record.__dict__) for record in log_lines.records)


async def test_questions_that_wait_for_a_handler_are_bounded(serve: Serve) -> None:
    gate = asyncio.Event()
    agent = agent_of(echo)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> bool:
        return await gate.wait()

    server = await serve(agent)
    async with server.connect(max_queue=None) as client:
        for _ in range(MOST_WAITING_ACTIONS):
            await client.send(action="get_invocation", invocation_id="i")
        assert await client.ask(action="ping") == {"type": "pong"}
        frame = await client.ask(action="get_invocation", invocation_id="past")
        assert (frame["error"]["code"], frame["invocation_id"]) == ("too_many_invocations", "past")
        gate.set()
        for _ in range(MOST_WAITING_ACTIONS):
            assert (await client.receive())["type"] == "result"
        assert (await client.ask(action="get_invocation", invocation_id="i"))["type"] == "result"


@pytest.mark.parametrize(("surplus", "status"), [(0, 200), (1, 413)])
async def test_a_stream_that_is_collected_for_one_answer_is_bounded(
    serve: Serve,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    surplus: int,
    status: int,
) -> None:
    monkeypatch.setattr(http_api, "MOST_COLLECTED", 1000)

    async def invoke(payload: object, context: InvocationContext) -> AsyncGenerator[str, None]:
        for length in (498, 498 + surplus):  # and two quotation marks each
            yield "x" * length

    server = await serve(agent_of(invoke))
    async with session.post(f"{server.http}/invocations", headers=JSON) as answer:
        assert answer.status == status
        if status != 200:
            await refusal(answer, status, "payload_too_large")
