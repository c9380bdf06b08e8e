"""Where a server listens, and how large the head of a request may be."""

import asyncio
import re
import socket

import aiohttp
import pytest

from agentws import Agent
from agentws.daemon.listening import BindError
from tests.conftest import PATIENCE, Serve
from tests.support.http_client import Session
from tests.support.peers import HttpPeer
from tests.support.ports import taken_port


async def answering(session: Session, port: int) -> set[str]:
    """Return the addresses that answer."""
    found = set()
    for address in ("127.0.0.1", "[::1]"):
        try:
            async with session.get(f"http://{address}:{port}/liveness") as answer:
                found.add(address if answer.status == 200 else "")
        except aiohttp.ClientConnectionError:
            pass
    return found


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("", {"127.0.0.1", "[::1]"}),
        ("*", {"127.0.0.1", "[::1]"}),
        ("::", {"127.0.0.1", "[::1]"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("::1", {"[::1]"}),
        ("127.0.0.1", {"127.0.0.1"}),
    ],
)
async def test_a_server_answers_on_every_address_of_its_host(
    serve: Serve, session: Session, host: str, addresses: set[str]
) -> None:
    server = await serve(Agent(), server={"host": host})
    assert await answering(session, server.port) == addresses


@pytest.mark.parametrize("host", ["", "*"])
async def test_without_ipv6_every_address_is_one_of_ipv4(
    serve: Serve, session: Session, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    server = await serve(Agent(), server={"host": host})
    assert await answering(session, server.port) == {"127.0.0.1"}


@pytest.mark.parametrize("host", ["127.0..1", "a..b", "x" * 64])
async def test_what_is_no_name_of_a_host_is_refused(serve: Serve, host: str) -> None:
    with pytest.raises(BindError, match=rf"^cannot listen on {re.escape(host)} "):
        await serve(Agent(), server={"host": host})


async def test_an_address_that_is_taken_is_told_as_it_was_meant(serve: Serve) -> None:
    with taken_port("0.0.0.0") as port, pytest.raises(BindError) as failure:
        await serve(Agent(), server={"host": "", "port": port})
    assert str(failure.value).startswith(f"cannot listen on * port {port}: ")


async def test_an_address_that_is_taken_is_told_before_the_startup_handler_runs(
    serve: Serve,
) -> None:
    agent, begun = Agent(), asyncio.Event()

    @agent.startup_handler
    async def start() -> None:
        begun.set()

    with taken_port() as port, pytest.raises(BindError, match=f"127.0.0.1 port {port}"):
        await serve(agent, server={"port": port})
    assert not begun.is_set()


# --- the size of what comes before a body -----------------------------------------------------

FIELD = 16 * 1024
MOST_FIELDS = 128


def field(number: int, size: int = FIELD) -> str:
    """A header field whose name and value have so many bytes together."""
    name = f"x-field-{number:03}"
    return f"{name}: {'v' * (size - len(name))}"


@pytest.mark.parametrize(
    ("line", "fields", "status"),
    [
        ("GET /liveness", [field(1)], 200),
        ("GET /liveness", [field(1), field(2), field(3)], 200),
        ("GET /liveness", [field(number, 64) for number in range(MOST_FIELDS - 1)], 200),
        (f"GET /liveness?{'q' * (FIELD - len('/liveness?'))}", [], 200),
        ("GET /liveness", [field(1, FIELD + 64)], 400),
        ("GET /liveness", [field(number, 64) for number in range(MOST_FIELDS)], 400),
        (f"GET /liveness?{'q' * FIELD}", [], 400),
    ],
    ids=["a field", "three", "many", "a line", "too long", "too many", "too long a line"],
)
async def test_header_fields_have_room_for_16_kib_each(
    serve: Serve, line: str, fields: list[str], status: int
) -> None:
    server = await serve(Agent())
    async with HttpPeer.connect(server) as peer:
        peer.request(line, *fields)
        async with asyncio.timeout(PATIENCE):
            assert int((await peer.reader.readline()).split()[1]) == status
