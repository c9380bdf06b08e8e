"""Results that are written whole: they are told from those that aiohttp writes by nothing."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from agentws import InvocationContext
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, echo, soon
from tests.support.http_client import MIB
from tests.support.peers import HttpPeer, exchange

ABOUT_ITSELF = {"date", "connection"}
IDS = ("x-request-id: r", "x-agent-invocation-id: i", "Content-Length: 8")


@pytest.mark.parametrize("reason", ["Connection: close", "Origin: http://page.example"])
async def test_an_answer_has_the_same_fields_whoever_writes_it(serve: Serve, reason: str) -> None:
    async def answered(*headers: str) -> tuple[int, dict[str, str], bytes]:
        server = await serve(agent_of(echo), http={"cors_origins": ["http://page.example"]})
        line = "POST /invocations?agent_session_id=s"
        status, fields, body = await exchange(server, line, *IDS, *headers, body=b'{"a": 1}')
        sent_at = parsedate_to_datetime(fields["date"]).timestamp()
        assert sent_at == pytest.approx(time.time(), abs=5)
        return status, {k: v for k, v in fields.items() if k not in ABOUT_ITSELF}, body

    status, whole, body = await answered()
    assert (status, body) == (200, b'{"a":1}')
    assert (whole["x-request-id"], whole["x-agent-invocation-id"]) == ("r", "i")
    assert (whole["x-agent-session-id"], whole["content-type"]) == ("s", "application/json")
    _, other, other_body = await answered(reason)
    assert {name: other[name] for name in whole} == whole
    assert ("access-control-allow-origin" in other) == reason.startswith("Origin")
    assert other_body == body


@pytest.mark.parametrize(("version", "told"), [("1.0", None), ("1.1", "close")])
async def test_a_client_that_closes_is_told_so(
    serve: Serve, version: str, told: str | None
) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        head = f"POST /invocations HTTP/{version}\r\nHost: a\r\nConnection: close\r\n"
        peer.writer.write(f"{head}Content-Length: 1\r\n\r\n7".encode())
        status, fields, body = await peer.answer()
        assert (status, fields.get("connection"), body) == (200, told, b"7")
        assert await peer.rest() == b""


async def test_one_that_is_answered_while_the_daemon_drains_is_told_to_go(
    serve: Serve,
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "Content-Length: 1", body=b"7")
        await soon(gate.entered)
        async with server.draining():
            gate.opened.set()
            _, fields, body = await peer.answer()
            assert (fields["connection"], body) == ("close", b"7")


async def test_a_large_result_waits_for_its_reader(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> str:
        return "x" * 8 * MIB

    server = await serve(agent_of(invoke))
    async with HttpPeer.connect(server, receive_buffer=4096) as peer:
        for _ in range(2):
            peer.request("POST /invocations", "Content-Length: 1", body=b"1")
        for _ in range(2):
            status, _, body = await peer.answer()
            assert (status, len(body)) == (200, 8 * MIB + 2)
