"""What the network does to a client, with real servers and with what is none."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentws.client import ConnectionFailed, Lost, Reconnected, connect
from tests.client.conftest import Connect
from tests.conftest import Address, Serve
from tests.support.agents import Gate, agent_of, echo, soon
from tests.support.certificates import certificate
from tests.support.cutting import cutting
from tests.support.proxy import fronted

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[Address, list[bytes]]]:
    """Answer each connection's first request with bytes, the last ones again; collect requests."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # a client may have given up
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answers[min(len(requests), len(answers)) - 1])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Address(server.sockets[0].getsockname()[1]), requests


async def test_a_loss_is_told_with_what_it_took(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    async with cutting([server], seed=1) as cutter, connect_to(cutter) as client:
        cutter.is_calm = True
        events = client.invoke([1, 2]).events()
        await anext(events)
        cutter.cut_all()
        event = await anext(events)
        assert isinstance(event, Reconnected)
        assert event.attempts >= 1
        assert 0 < event.seconds < 1
        gate.opened.set()
        await anext(events)


async def test_what_a_server_forgot_is_lost_and_not_run_again(
    serve: Serve, connect_to: Connect
) -> None:
    first, second = Gate(), Gate()
    before, after = await serve(agent_of(first.stream)), await serve(agent_of(second.stream))
    async with cutting([before, after], seed=1) as cutter, connect_to(cutter) as client:
        cutter.is_calm = True
        reading = aiter(client.invoke([1, 2]))
        await anext(reading)
        cutter.cut_all()
        with pytest.raises(Lost, match="not_found"):
            await anext(reading)
    assert not second.entered.is_set()


async def test_a_large_result_arrives(serve: Serve, connect_to: Connect) -> None:
    server = await serve(agent_of(echo), websocket={"max_message_size": 8 * 1024**2})
    async with connect_to(server) as client:
        large = "x" * 6 * 1024**2
        assert await client.invoke(large) == large


async def test_a_payload_that_is_too_large_fails_alone(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), websocket={"max_message_size": 64 * 1024})
    async with connect_to(server) as client:
        small = client.invoke("small")
        await soon(gate.entered)
        with pytest.raises(Exception, match=r"payload_too_large: .* Send less"):
            await client.invoke("x" * 128 * 1024)
        gate.opened.set()
        assert await small == "small"


REDIRECTION = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"


async def test_credentials_are_not_carried_elsewhere(connect_to: Connect) -> None:
    async with answering(b"") as (elsewhere, stolen):
        answer = REDIRECTION % f"{elsewhere.http}/invocations_ws/ws".encode()
        async with (
            answering(answer) as (server, requests),
            connect_to(server, api_key="secret", connect_timeout=1) as client,
        ):
            with pytest.raises(ConnectionFailed, match="307"):
                await client.invoke(1)
            assert b"secret" in requests[0]
        assert stolen == []


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
    ],
)
async def test_what_is_no_server_is_given_up(connect_to: Connect, answer: bytes) -> None:
    async with (
        answering(answer) as (server, requests),
        connect_to(server, connect_timeout=0.3) as client,
    ):
        with pytest.raises(ConnectionFailed):
            await client.invoke(1)
        assert len(requests) > 1


@pytest.mark.parametrize("options", [{"headers": {"x": "a\r\nb"}}, {"token": "a\nb"}])
async def test_what_no_header_can_hold_fails_at_once(
    serve: Serve, connect_to: Connect, options: dict[str, Any]
) -> None:
    server = await serve(agent_of(echo))
    async with connect_to(server, **options) as client:
        with pytest.raises(ConnectionFailed, match="ValueError"):
            await client.invoke(1)


# --- TLS ---


async def test_whom_to_trust_is_the_users_to_say(serve: Serve, tmp_path: Path) -> None:
    server = await serve(agent_of(echo))
    async with fronted(server, ssl=certificate(tmp_path)) as front:
        url = f"https://localhost:{front.port}"
        trusting = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        async with connect(url, ssl=trusting) as client:
            assert await client.invoke(1) == 1
        async with connect(url, connect_timeout=2) as client:  # time for a busy machine
            with pytest.raises(ConnectionFailed, match="certificate"):
                await client.invoke(1)
