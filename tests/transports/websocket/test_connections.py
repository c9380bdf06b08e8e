"""Sockets over the wire: handshakes, limits, keep-alive, slow peers, log lines (§1, §8)."""

import asyncio
import contextlib
import json
import logging
import random
import re
import socket
import struct
import tracemalloc
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
import pytest
import websockets
from aiohttp import web
from websockets.exceptions import InvalidStatus

from agentws import Agent, InvocationContext, InvocationWebSocketHandler
from agentws.agent.handlers import InvokeHandler
from agentws.agent.loading import Served
from agentws.transports.websocket.max_age import lifetime
from tests.conftest import PATIENCE, Client, LogLines, Running, Serve
from tests.support.peers import CLOSE, PING, PONG, TEXT, FramedPeer, HttpPeer, masked

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
MIB = 1024**2
FIELD = "azure.ai.agentserver.invocations_ws."


async def echo(payload: Any, context: InvocationContext) -> Any:
    return payload


async def forever(payload: Any, context: InvocationContext) -> Any:
    await asyncio.Event().wait()


async def flood(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
    for _ in range(payload):
        yield "x" * 64 * 1024


def agent_of(invoke: InvokeHandler) -> Agent:
    agent = Agent()
    agent.invoke_handler(invoke)
    return agent


async def assert_alive(client: Client) -> None:
    assert await client.ask(action="ping") == {"type": "pong"}


def handshake_of(client: Client) -> Mapping[str, str]:
    assert client.connection.response is not None
    return client.connection.response.headers


async def refused(server: Running, path: str = "/invocations_ws/ws") -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refusal:
        await websockets.connect(server.ws + path)
    return refusal.value


def code_of(refusal: InvalidStatus) -> tuple[int, str]:
    assert refusal.response.body is not None
    return refusal.response.status_code, json.loads(refusal.response.body)["error"]["code"]


# --- the handshake (§1) -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
async def test_a_handshake_is_answered_with_its_headers(serve: Serve, path: str) -> None:
    server = await serve(agent_of(echo))
    async with server.connect(path) as client:
        headers = handshake_of(client)
        assert UUID.fullmatch(headers["x-agent-session-id"])
        assert UUID.fullmatch(headers["x-request-id"])
        assert re.fullmatch(r"agentws/\S+ \(python/3\.\d+\)", headers["x-platform-server"])
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1


async def test_the_session_of_the_query_is_told_in_the_handshake(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect("/invocations_ws/ws?agent_session_id=mine") as client:
        assert handshake_of(client)["x-agent-session-id"] == "mine"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "own"}, TRACE),
        ({"traceparent": "00-not-one", "x-request-id": "own"}, "own"),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01", "x-request-id": "own"}, "own"),
        ({"traceparent": f"00-{TRACE.upper()}-00f067aa0ba902b7-01"}, None),
        ({"x-request-id": "own"}, "own"),
        ({"x-request-id": "a b"}, None),
        ({"x-request-id": ".."}, None),
        ({"x-request-id": "a" * 257}, None),
        ({"x-request-id": ""}, None),
        ({}, None),
    ],
)
async def test_the_request_id_is_the_traces_else_the_callers_else_new(
    serve: Serve, sent: dict[str, str], expected: str | None
) -> None:
    server = await serve(agent_of(echo))
    async with server.connect(headers=sent) as client:
        told = handshake_of(client)["x-request-id"]
        assert told == expected if expected else UUID.fullmatch(told)


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upgrade": "websocket"},
        {"Connection": "Upgrade"},
        {"Connection": "Upgrade", "Upgrade": "h2c"},
        {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "8"},
    ],
)
async def test_a_get_that_opens_no_websocket_must_upgrade(
    serve: Serve, path: str, headers: dict[str, str]
) -> None:
    server = await serve(agent_of(echo))
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.http + path, headers=headers) as answer,
    ):
        assert answer.status == 426
        assert answer.headers["Upgrade"] == "websocket"
        error = (await answer.json())["error"]
    assert error["code"] == "upgrade_required"
    assert (error["source"], error["retryable"]) == ("user", False)


@pytest.mark.parametrize("asked", ["a%20b", "..", "a" * 257, "%C3%A9", "a%00", "a/b"])
async def test_a_bad_session_id_is_refused_before_the_upgrade(serve: Serve, asked: str) -> None:
    server = await serve(agent_of(echo))
    refusal = await refused(server, f"/invocations_ws/ws?agent_session_id={asked}")
    assert code_of(refusal) == (400, "invalid_request")
    assert refusal.response.body is not None
    assert b"agent_session_id" in refusal.response.body
    assert UUID.fullmatch(refusal.response.headers["x-request-id"])


async def test_an_empty_session_id_is_as_not_given(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect("/invocations_ws/ws?agent_session_id=") as client:
        assert UUID.fullmatch(handshake_of(client)["x-agent-session-id"])


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
@pytest.mark.parametrize(
    ("line", "headers", "status", "named"),
    [
        ("HTTP/1.1", {"Sec-WebSocket-Key": "short"}, 400, "Sec-WebSocket-Key"),
        ("HTTP/1.1", {"Sec-WebSocket-Key": None}, 400, "Sec-WebSocket-Key"),
        ("HTTP/1.1", {"Sec-WebSocket-Version": None}, 426, "Sec-WebSocket-Version"),
        ("HTTP/1.0", {}, 426, "HTTP/1.1"),
    ],
)
async def test_what_a_handshake_lacks_is_named(
    serve: Serve, path: str, line: str, headers: Mapping[str, str | None], status: int, named: str
) -> None:
    server = await serve(agent_of(echo))
    complete = {
        "Host": "test",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    fields = [f"{name}: {value}" for name, value in {**complete, **headers}.items() if value]
    async with HttpPeer.connect(server) as peer:
        peer.writer.write("\r\n".join([f"GET {path} {line}", *fields, "", ""]).encode())
        answered, told, body = await peer.answer()
    assert answered == status
    assert UUID.fullmatch(told["x-request-id"])
    error = json.loads(body)["error"]
    assert error["code"] == ("upgrade_required" if status == 426 else "invalid_request")
    assert named in error["message"]
    async with server.connect(path) as client:
        await assert_alive(client)


async def test_refusals_come_in_their_order(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_connections": 1})
    bad_session = "?agent_session_id=.."
    async with server.connect() as client, aiohttp.ClientSession() as session:
        url = f"{server.http}/invocations_ws/ws{bad_session}"
        async with session.post(f"{server.http}/elsewhere{bad_session}") as answer:
            assert answer.status == 404
        async with session.post(url) as answer:
            assert answer.status == 405
            assert "GET" in answer.headers["Allow"]
            assert (await answer.json())["error"]["code"] == "method_not_allowed"
        async with session.get(url) as answer:
            assert answer.status == 426
        refusal = await refused(server, f"/invocations_ws/ws{bad_session}")
        assert code_of(refusal) == (400, "invalid_request")
        refusal = await refused(server)
        assert code_of(refusal) == (503, "too_many_connections")
        await assert_alive(client)


# --- subprotocols (§1) ------------------------------------------------------------------------


class Own(InvocationWebSocketHandler):
    """An agent in class style that names subprotocols."""

    subprotocols = ("chat.v2", "chat.v1")

    async def handle_websocket(self, ws: web.WebSocketResponse, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_str(message.data)


def raw(*subprotocols: str) -> Agent:
    agent = Agent(subprotocols=subprotocols)

    @agent.ws_handler
    async def talk(ws: web.WebSocketResponse, context: InvocationContext) -> None:
        await ws.send_str(str(ws.ws_protocol))

    return agent


@pytest.mark.parametrize(
    ("agent", "path", "offered", "spoken"),
    [
        (Agent(subprotocols=["b", "a"]), "/invocations_ws/ws", ["x", "a", "b"], "b"),
        (Agent(subprotocols=["b", "a"]), "/invocations_ws/ws", ["a", "x"], "a"),
        (Agent(subprotocols=["b", "a"]), "/invocations_ws/ws", ["agentws.v1"], None),
        (Agent(subprotocols=["b", "a"]), "/invocations_ws/ws", None, None),
        (Agent(), "/invocations_ws/ws", ["x", "agentws.v1"], "agentws.v1"),
        (Agent(), "/invocations_ws/ws", ["x"], None),
        (agent_of(echo), "/invocations_ws", ["x", "agentws.v1"], "agentws.v1"),
        (raw("b", "a"), "/invocations_ws", ["a", "b"], "b"),
        (raw(), "/invocations_ws", ["agentws.v1"], None),
        (raw("b", "a"), "/invocations_ws/ws", ["a", "b"], "b"),
        (Own(), "/invocations_ws", ["chat.v1", "chat.v2"], "chat.v2"),
        (Own(), "/invocations_ws/ws", ["chat.v1"], "chat.v1"),
    ],
)
async def test_a_client_gets_the_first_subprotocol_of_the_agents_that_it_offers(
    serve: Serve, agent: Served, path: str, offered: list[Any] | None, spoken: str | None
) -> None:
    server = await serve(agent)
    async with server.connect(path, subprotocols=offered) as client:
        assert client.connection.subprotocol == spoken
        if isinstance(agent, Agent) and agent.serve_socket and path == "/invocations_ws":
            assert await client.connection.recv() == str(spoken)


# --- limits -----------------------------------------------------------------------------------


async def test_one_socket_past_the_limit_is_refused_before_the_upgrade(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_connections": 2})
    async with server.connect() as first:
        async with server.connect() as second:
            refusal = await refused(server)
            assert code_of(refusal) == (503, "too_many_connections")
            assert int(refusal.response.headers["Retry-After"]) >= 1
            assert refusal.response.headers["x-platform-error-source"] == "platform"
            error = json.loads(refusal.response.body or b"")["error"]
            assert (error["retryable"], error["source"]) == (True, "platform")
            await assert_alive(second)
        await assert_alive(first)
        async with asyncio.timeout(PATIENCE):
            while True:  # the place is free once the server has seen the close
                try:
                    async with server.connect() as third:
                        await assert_alive(third)
                        break
                except InvalidStatus:
                    await asyncio.sleep(0)


async def test_a_refused_handshake_takes_no_place(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_connections": 1})
    for _ in range(3):
        await refused(server, "/invocations_ws/ws?agent_session_id=..")
    async with server.connect() as client:
        await assert_alive(client)


async def test_a_socket_that_is_gone_takes_no_place_although_a_handler_works_for_it(
    serve: Serve, log_lines: LogLines
) -> None:
    agent = Agent()

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> None:
        await asyncio.Event().wait()

    server = await serve(agent, websocket={"max_connections": 1})
    async with server.connect() as client:
        await client.send(action="get_invocation", invocation_id="i")
        await assert_alive(client)
    assert (await ending_of(log_lines))["close_code"] == 1000
    for _ in range(3):
        async with server.connect() as client:
            await assert_alive(client)
        await ending_of(log_lines)


@pytest.mark.parametrize(
    ("settings", "same_socket"),
    [
        ({"invocations": {"max_running": 3}}, True),
        ({"invocations": {"max_running": 3}}, False),
        ({"websocket": {"max_invocations_per_connection": 3}}, True),
    ],
)
@pytest.mark.parametrize("background", [False, True])
async def test_an_invocation_past_the_limit_is_refused(
    serve: Serve, settings: dict[str, Any], same_socket: bool, background: bool
) -> None:
    server = await serve(agent_of(forever), **settings)
    async with server.connect() as client, server.connect() as other:
        for index in range(3):
            await client.send(action="invoke", invocation_id=f"i{index}", background=index == 1)
        assert (await client.receive())["type"] == "accepted"
        asking = client if same_socket else other
        frame = await asking.ask(
            action="invoke", invocation_id="i3", session_id="s", background=background
        )
        assert (frame["action"], frame["invocation_id"], frame["session_id"]) == (
            "invoke",
            "i3",
            "s",
        )
        assert frame["error"]["code"] == "too_many_invocations"
        assert (frame["error"]["retryable"], frame["error"]["source"]) == (True, "platform")
        frame = await other.ask(action="get_invocation", invocation_id="i3")
        assert frame["error"]["code"] == "not_found"
        await client.send(action="cancel_invocation", invocation_id="i1")
        await client.until(type="result")
        frame = await asking.ask(action="invoke", invocation_id="i3", background=True)
        assert frame["type"] == "accepted"


async def test_the_limit_of_one_connection_leaves_others_alone(serve: Serve) -> None:
    server = await serve(agent_of(forever), websocket={"max_invocations_per_connection": 1})
    async with server.connect() as client, server.connect() as other:
        for socket_ in (client, other):
            assert (await socket_.ask(action="invoke", background=True))["type"] == "accepted"
            frame = await socket_.ask(action="invoke", background=True)
            assert frame["error"]["code"] == "too_many_invocations"


async def test_what_a_socket_attaches_to_does_not_count_as_its_own(serve: Serve) -> None:
    server = await serve(agent_of(forever), websocket={"max_invocations_per_connection": 2})
    async with server.connect() as starter, server.connect() as client:
        for index in range(2):
            await starter.ask(action="invoke", invocation_id=f"i{index}", background=True)
            await client.send(action="attach_invocation", invocation_id=f"i{index}")
        await assert_alive(client)
        assert (await client.ask(action="invoke", background=True))["type"] == "accepted"


# --- keep-alive -------------------------------------------------------------------------------


async def test_a_peer_that_answers_no_ping_is_dropped(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent_of(echo), websocket={"heartbeat": 0.2, "app_ping_interval": 0})
    async with FramedPeer.connect(server) as silent, server.connect() as client:
        assert await silent.receive() == (PING, b"")
        await silent.dropped()
        line = await ending_of(log_lines)
        assert line == {"close_code": 1006, "error_code": "heartbeat_timeout"}
        await assert_alive(client)


async def test_a_peer_that_answers_pings_stays(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"heartbeat": 0.1, "app_ping_interval": 0})
    async with FramedPeer.connect(server) as peer:
        for _ in range(5):
            assert (await peer.receive())[0] == PING
            peer.send(PONG)
        peer.act(action="ping")
        while (received := await peer.receive())[0] == PING:
            peer.send(PONG)
        assert json.loads(received[1]) == {"type": "pong"}


async def test_a_peer_that_answers_no_ping_is_dropped_while_a_send_to_it_is_blocked(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(flood), websocket={"heartbeat": 0.2, "send_timeout": 60.0})
    async with FramedPeer.connect(server, receive_buffer=4096) as silent:
        silent.stop_reading()
        silent.act(action="invoke", payload=1000)
        line = await ending_of(log_lines)
        assert line == {"close_code": 1006, "error_code": "heartbeat_timeout"}


async def test_without_a_heartbeat_nobody_is_pinged(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"heartbeat": 0, "app_ping_interval": 0.1})
    async with FramedPeer.connect(server) as peer:
        for _ in range(3):
            opcode, data = await peer.receive()
            assert (opcode, json.loads(data)) == (TEXT, {"type": "ping"})


async def test_a_websocket_ping_is_answered_with_its_data(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with FramedPeer.connect(server) as peer:
        for data in (b"", b"data", b"x" * 125):
            peer.send(PING, data)
            assert await peer.receive() == (PONG, data)
        peer.send(PONG, b"unasked")
        peer.act(action="ping")
        assert (await peer.receive())[0] == TEXT


async def test_a_ping_message_comes_after_silence_and_only_then(serve: Serve) -> None:
    tick = 0.02

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        for number in range(30):  # twice as long as the interval
            await asyncio.sleep(tick)
            yield number

    server = await serve(agent_of(invoke), websocket={"app_ping_interval": 0.3})
    loop = asyncio.get_running_loop()
    async with server.connect() as client:
        await client.connection.send('{"action":"invoke"}')
        types: list[str] = []
        while not types or types[-1] != "stream_end":
            types.append(json.loads(await client.connection.recv())["type"])
            said_at = loop.time()
        assert "ping" not in types
        for _ in range(2):
            assert json.loads(await client.connection.recv()) == {"type": "ping"}
            silence, said_at = loop.time() - said_at, loop.time()
            assert 0.2 < silence < 2.0


async def test_what_the_client_says_does_not_put_off_the_ping_message(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"app_ping_interval": 0.1})

    async with server.connect() as client:

        async def chatter() -> None:
            while True:
                await client.send(action="pong")
                await asyncio.sleep(0.01)

        chattering = asyncio.create_task(chatter())
        async with asyncio.timeout(PATIENCE):
            assert json.loads(await client.connection.recv()) == {"type": "ping"}
        chattering.cancel()
        await asyncio.wait({chattering})


# --- the age of a connection ------------------------------------------------------------------


async def test_a_socket_is_told_of_its_age_and_then_closed(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(forever), websocket={"max_connection_age": 0.3})
    started = asyncio.get_running_loop().time()
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        frame = await client.receive()
        assert (frame["type"], frame["reason"]) == ("going_away", "max_age")
        assert 0.27 <= frame["grace_seconds"] <= 0.33  # 10 % more or less
        assert await client.closed() == 1001
        assert 0.2 < asyncio.get_running_loop().time() - started < 2.0
    assert await ending_of(log_lines) == {"close_code": 1001}
    async with server.connect() as client:  # the invocation lives on
        frame = await client.until(type="going_away")
        frame = await client.ask(action="get_invocation", invocation_id="i")
        assert frame["payload"]["status"] == "running"


def test_sockets_of_one_time_do_not_reach_their_age_at_one_time() -> None:
    ages = [lifetime(300.0) for _ in range(1000)]
    assert min(ages) >= 270
    assert max(ages) <= 330
    assert max(ages) - min(ages) > 50


async def test_the_age_ends_a_peer_that_does_not_answer_the_close(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo), websocket={"max_connection_age": 0.1})
    async with FramedPeer.connect(server) as peer:
        assert json.loads((await peer.receive())[1])["type"] == "going_away"
        assert await peer.receive() == (CLOSE, struct.pack("!H", 1001))
        assert await ending_of(log_lines) == {"close_code": 1001}
        await peer.dropped()


async def test_without_a_maximal_age_nothing_is_announced(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_connection_age": 0})
    async with server.connect() as client:
        await assert_alive(client)


# --- slow clients -----------------------------------------------------------------------------


async def test_a_client_that_stops_reading_is_aborted_and_the_others_go_on(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(flood), websocket={"send_timeout": 0.3, "heartbeat": 0})
    async with FramedPeer.connect(server, receive_buffer=4096) as slow, server.connect() as client:
        slow.stop_reading()
        slow.act(action="invoke", payload=1000, invocation_id="i")
        ending = asyncio.create_task(ending_of(log_lines))
        while not ending.done():
            await assert_alive(client)
        assert await ending == {"close_code": 1006, "error_code": "slow_client"}
        # It lost its listener, which is a disconnect: it goes on until the grace is over.
        await client.send(action="attach_invocation", invocation_id="i", starting_after=999)
        assert (await client.receive())["sequence_number"] == 1000
        assert (await client.receive())["type"] == "stream_end"


async def test_a_client_that_stops_reading_loses_only_its_own_stream(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(flood), websocket={"send_timeout": 0.3})
    async with (
        FramedPeer.connect(server, receive_buffer=4096) as slow,
        server.connect() as fast,
    ):
        slow.stop_reading()
        await fast.send(action="invoke", payload=300, invocation_id="i")
        slow.act(action="attach_invocation", invocation_id="i")
        for number in range(1, 301):
            assert (await fast.receive())["sequence_number"] == number
        assert (await fast.receive())["type"] == "stream_end"


async def test_a_slow_reader_that_keeps_reading_is_not_aborted(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(flood), websocket={"send_timeout": 0.3})
    loop = asyncio.get_running_loop()
    async with FramedPeer.connect(server, receive_buffer=16 * 1024) as slow:
        started = loop.time()
        slow.act(action="invoke", payload=150, invocation_id="i")
        for number in range(1, 151):
            _, data = await slow.receive()
            assert json.loads(data)["sequence_number"] == number
            await asyncio.sleep(0.01)
        assert json.loads((await slow.receive())[1])["type"] == "stream_end"
        assert loop.time() - started > 3 * 0.3
    assert await ending_of(log_lines) == {"close_code": 1006}


def noise_of(size: int) -> str:
    """Return a text that cannot be compressed, the same each time."""
    return random.Random(size).randbytes(size).hex()


@pytest.mark.parametrize("compression", [False, True])
async def test_a_send_that_a_slow_client_blocks_is_given_up(
    serve: Serve, log_lines: LogLines, compression: bool
) -> None:
    noise = noise_of(8 * MIB)

    async def invoke(payload: Any, context: InvocationContext) -> str:
        return noise

    server = await serve(
        agent_of(invoke),
        websocket={"send_timeout": 0.3, "heartbeat": 0, "compression": compression},
    )
    async with server.connect(compression="deflate" if compression else None) as slow:
        slow.connection.transport.pause_reading()
        await slow.send(action="invoke")
        ending = await ending_of(log_lines)
        slow.connection.transport.abort()
        assert ending == {"close_code": 1006, "error_code": "slow_client"}


@pytest.mark.parametrize("reads_again", [True, False])
async def test_a_client_that_closes_without_having_read_is_let_go(
    serve: Serve, log_lines: LogLines, reads_again: bool
) -> None:
    patience = 0.3
    server = await serve(agent_of(flood), websocket={"send_timeout": patience})
    loop = asyncio.get_running_loop()
    async with FramedPeer.connect(server, receive_buffer=4096) as slow, server.connect() as client:
        slow.stop_reading()
        slow.narrow_the_way_back()
        slow.act(action="invoke", payload=1000, invocation_id="i")
        for _ in range(20):
            await assert_alive(client)
        slow.send(CLOSE, struct.pack("!H", 4000))
        closed_at = loop.time()
        assert await ending_of(log_lines) == {"close_code": 4000}
        if reads_again:
            slow.read_again()
            await slow.dropped()
        while loop.time() < closed_at + 2 * patience:  # by then the server has given it up
            await assert_alive(client)
        slow.read_again()
        await slow.dropped()


async def test_a_client_that_answers_pings_stays_while_it_reads_much_slowly(
    serve: Serve, log_lines: LogLines
) -> None:
    polls = 1500
    server = await serve(agent_of(echo), websocket={"heartbeat": 0.4})
    async with FramedPeer.connect(server, receive_buffer=4096) as peer:
        peer.narrow_the_way_back()
        peer.act(action="invoke", payload="x" * 16 * 1024, invocation_id="big")
        for _ in range(polls):
            peer.act(action="get_invocation", invocation_id="big")
        answers = 0
        while answers < 1 + polls:
            opcode, data = await peer.receive()
            if opcode == PING:
                peer.send(PONG, data)
                continue
            answers += 1
            await asyncio.sleep(0.001)
    assert await ending_of(log_lines) == {"close_code": 1006}


FLOODS = {
    "ping messages": masked(TEXT, b'{"action":"ping"}'),
    "bad messages": masked(TEXT, b"{"),
    "polls": masked(TEXT, b'{"action":"get_invocation","invocation_id":"big"}'),
    "attaches": masked(TEXT, b'{"action":"attach_invocation","invocation_id":"big"}'),
    "refused invokes": masked(TEXT, b'{"action":"invoke","invocation_id":"big"}'),
    "WebSocket pings": masked(PING, b"x" * 125),
}


@pytest.mark.parametrize("flooding", FLOODS)
async def test_a_client_that_floods_and_never_reads_is_bounded_and_aborted(
    serve: Serve, log_lines: LogLines, flooding: str
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> str:
        return "x" * MIB

    server = await serve(agent_of(invoke), websocket={"send_timeout": 0.5, "heartbeat": 0})
    async with (
        server.connect(max_size=None) as client,
        FramedPeer.connect(server, receive_buffer=4096) as greedy,
    ):
        await client.ask(action="invoke", invocation_id="big")
        greedy.stop_reading()
        greedy.narrow_the_way_back()
        ending = asyncio.create_task(ending_of(log_lines))
        answers_are_large = flooding in ("polls", "attaches")
        if answers_are_large:
            tracemalloc.start()
        while not ending.done():
            # A few at a time, so that the server meets them in many turns of its loop.
            for _ in range(5):
                greedy.writer.write(FLOODS[flooding])
            draining = asyncio.create_task(drain_or_fail(greedy.writer))
            await asyncio.wait({ending, draining}, return_when=asyncio.FIRST_COMPLETED)
        if answers_are_large:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 96 * MIB
        assert await ending == {"close_code": 1006, "error_code": "slow_client"}
        await assert_alive(client)


async def drain_or_fail(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await writer.drain()


# --- compression ------------------------------------------------------------------------------


async def test_compression_is_offered_only_where_it_is_set(serve: Serve) -> None:
    for offered in (False, True):
        server = await serve(agent_of(echo), websocket={"compression": offered})
        async with server.connect(compression="deflate") as client:
            negotiated = "Sec-WebSocket-Extensions" in handshake_of(client)
            assert negotiated == offered
            for payload in (
                "short",
                "long" * 100_000,
                noise_of(50_000),
                "",
            ):
                assert (await client.ask(action="invoke", payload=payload))["payload"] == payload


async def test_a_compressed_stream_arrives_whole_and_in_order(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        for number in range(300):
            yield f"{number}" * (number * 20)

    server = await serve(agent_of(invoke), websocket={"compression": True})
    async with server.connect(compression="deflate") as client:
        await client.send(action="invoke")
        await client.send(action="ping")
        numbers = []
        while (message := await client.receive())["type"] != "stream_end":
            if message["type"] == "stream_chunk":
                number = message["sequence_number"] - 1
                assert message["payload"] == f"{number}" * (number * 20)
                numbers.append(number)
        assert numbers == list(range(300))


async def test_a_message_that_is_too_large_once_decompressed_is_closed_with_1009(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo), websocket={"compression": True})
    async with server.connect(compression="deflate") as client:
        await client.send(action="invoke", payload="x" * 5 * MIB)
        assert await client.closed() == 1009
    assert await ending_of(log_lines) == {"close_code": 1009, "error_code": "payload_too_large"}


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
async def test_compressed_data_that_is_corrupt_is_closed_with_1007(
    serve: Serve, log_lines: LogLines, path: str
) -> None:
    agent = agent_of(echo)

    @agent.ws_handler
    async def talk(ws: web.WebSocketResponse, context: InvocationContext) -> None:
        async for message in ws:
            await ws.send_str(message.data)

    server = await serve(agent, websocket={"compression": True})
    async with server.connect(path, compression="deflate") as client:
        client.connection.transport.write(masked(TEXT, b"\xff\xff\xff", first_bits=0xC0))
        assert await client.closed() == 1007
    assert await ending_of(log_lines) == {"close_code": 1007, "error_code": "protocol_error"}


# --- the line that every socket leaves --------------------------------------------------------

UNSENDABLE = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
"""Close codes that no frame may carry (RFC 6455 §7.4), those of Autobahn's cases 7.9 among them."""

_PLAIN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


GAVE_UP = {"internal_error", "slow_client", "heartbeat_timeout"}


async def line_of(log_lines: LogLines) -> dict[str, Any]:
    """The fields of the next line about a socket, those of every log record left out."""
    record = await log_lines.next("agentws.connection")
    fields = {name: value for name, value in vars(record).items() if name not in _PLAIN}
    gave_up = fields.get(FIELD + "error.code") in GAVE_UP
    assert record.levelno == (logging.WARNING if gave_up else logging.INFO)
    assert record.exc_info is None
    return fields


async def ending_of(log_lines: LogLines) -> dict[str, Any]:
    """Close code and error code of the next line; the others are looked at as well."""
    fields = await line_of(log_lines)
    ending = {"close_code": fields.pop(FIELD + "close_code")}
    if FIELD + "error.code" in fields:
        ending["error_code"] = fields.pop(FIELD + "error.code")
    assert fields.pop(FIELD + "session_id")
    assert fields.pop("peer") == "127.0.0.1"
    assert fields.keys() == {FIELD + "duration_ms", "invocations", "bytes_received", "bytes_sent"}
    assert all(type(value) is int and value >= 0 for value in fields.values())
    return ending


def assert_no_more_lines(log_lines: LogLines) -> None:
    assert not [record for record in log_lines.records if record.name == "agentws.connection"]


async def test_a_socket_leaves_one_line_with_these_fields(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo))
    async with server.connect("/invocations_ws/ws?agent_session_id=mine") as client:
        await assert_alive(client)
        assert_no_more_lines(log_lines)
        await client.connection.close(4321, "a reason")
    fields = await line_of(log_lines)
    duration = fields.pop(FIELD + "duration_ms")
    assert type(duration) is int
    assert 0 <= duration < 60_000
    assert fields == {
        FIELD + "session_id": "mine",
        FIELD + "close_code": 4321,
        "peer": "127.0.0.1",
        "invocations": 0,
        "bytes_received": len(json.dumps({"action": "ping"})),
        "bytes_sent": len('{"type":"pong"}'),
    }
    assert type(fields[FIELD + "close_code"]) is int
    await server.server.drain()
    assert_no_more_lines(log_lines)


@pytest.mark.parametrize("compression", [False, True])
async def test_the_line_tells_what_went_over_the_socket(
    serve: Serve, log_lines: LogLines, compression: bool
) -> None:
    server = await serve(agent_of(echo), websocket={"compression": compression})
    received = sent = 0
    async with server.connect(compression="deflate" if compression else None) as client:
        for message in (
            '{"action":"invoke","payload":"é","invocation_id":"i"}',
            b'{"action":"invoke","background":true}',
            '{"action":"invoke","invocation_id":"i"}',  # which is refused, and not counted
            "no JSON",
        ):
            await client.connection.send(message)
            received += len(message.encode() if isinstance(message, str) else message)
            answer = await client.connection.recv(decode=False)
            sent += len(answer)
    fields = await line_of(log_lines)
    assert (fields["bytes_received"], fields["bytes_sent"]) == (received, sent)
    assert fields["invocations"] == 2


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6")
async def test_the_line_names_a_peer_of_ipv4_as_such_on_a_socket_of_both_families(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo), server={"host": "*"})
    async with server.connect():
        pass
    assert vars(await log_lines.next("agentws.connection"))["peer"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("trusted", "forwarded", "peer"),
    [
        (False, ["203.0.113.7"], "127.0.0.1"),
        (True, [], "127.0.0.1"),
        (True, ["203.0.113.7"], "203.0.113.7"),
        (True, ["forged, 203.0.113.7"], "203.0.113.7"),
        (True, ["forged", "10.0.0.1 , 2001:db8::1"], "2001:db8::1"),
        (True, ["[2001:db8::1]:4711"], "[2001:db8::1]:4711"),
        (True, ["203.0.113.7,"], "127.0.0.1"),
        (True, ["a b"], "127.0.0.1"),
        (True, ["x" * 65], "127.0.0.1"),
    ],
)
async def test_the_line_names_the_peer(
    serve: Serve, log_lines: LogLines, trusted: bool, forwarded: list[str], peer: str
) -> None:
    server = await serve(agent_of(echo), server={"trust_forwarded": trusted})
    headers = [("X-Forwarded-For", value) for value in forwarded]
    async with websockets.connect(f"{server.ws}/invocations_ws/ws", additional_headers=headers):
        pass
    assert (await line_of(log_lines))["peer"] == peer


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (masked(CLOSE, struct.pack("!H", 1000)), {"close_code": 1000}),
        (masked(CLOSE, struct.pack("!H", 1001) + b"leaving"), {"close_code": 1001}),
        (masked(CLOSE, struct.pack("!H", 1011)), {"close_code": 1011}),
        (masked(CLOSE, struct.pack("!H", 3000)), {"close_code": 3000}),
        (masked(CLOSE, struct.pack("!H", 4999)), {"close_code": 4999}),
        (masked(CLOSE), {"close_code": 1005}),
        (b"", {"close_code": 1006}),
        (masked(TEXT, b"half")[:-2], {"close_code": 1006}),
        (masked(TEXT, b"\xff"), {"close_code": 1007, "error_code": "protocol_error"}),
        (masked(0x3), {"close_code": 1002, "error_code": "protocol_error"}),
        (masked(0xB), {"close_code": 1002, "error_code": "protocol_error"}),
        (masked(0x0, b"x"), {"close_code": 1002, "error_code": "protocol_error"}),
        (
            masked(TEXT, b"x", first_bits=0xF0),
            {"close_code": 1002, "error_code": "protocol_error"},
        ),
        (masked(PING, b"x" * 126), {"close_code": 1002, "error_code": "protocol_error"}),
        (masked(CLOSE, b"x"), {"close_code": 1002, "error_code": "protocol_error"}),
        *(
            (
                masked(CLOSE, struct.pack("!H", code)),
                {"close_code": 1002, "error_code": "protocol_error"},
            )
            for code in UNSENDABLE
        ),
        (
            masked(TEXT, b"x" * 1001),
            {"close_code": 1009, "error_code": "payload_too_large"},
        ),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_the_line_tells_how_a_socket_ended(
    serve: Serve, log_lines: LogLines, sent: bytes, logged: dict[str, Any]
) -> None:
    server = await serve(agent_of(echo), websocket={"max_message_size": 1000})
    async with server.connect() as other:
        async with FramedPeer.connect(server) as peer:
            peer.writer.write(sent)
            peer.writer.write_eof()
            code = logged["close_code"]
            if code in (1002, 1007, 1009):
                opcode, data = await peer.receive()
                assert (opcode, data[:2]) == (CLOSE, struct.pack("!H", code))
            elif sent[:1] == b"\x88":
                opcode, data = await peer.receive()
                assert opcode == CLOSE
            await peer.dropped()
        assert await ending_of(log_lines) == logged
        await assert_alive(other)
        assert_no_more_lines(log_lines)


async def test_a_client_that_resets_the_connection_leaves_a_1006(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(forever))
    async with FramedPeer.connect(server) as peer:
        peer.act(action="invoke")
        raw = peer.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert await ending_of(log_lines) == {"close_code": 1006}


@pytest.mark.parametrize("number", [600, 1000])  # more than the network holds would be lost there
async def test_what_arrived_before_a_client_vanished_takes_effect(
    serve: Serve, number: int
) -> None:
    started: list[int] = []
    all_started = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> None:
        started.append(payload)
        if len(started) == number:
            all_started.set()

    server = await serve(agent_of(invoke), websocket={"max_invocations_per_connection": number})
    async with FramedPeer.connect(server) as peer:
        actions = (
            b'{"action":"invoke","background":true,"payload":%d}' % index for index in range(number)
        )
        peer.writer.write(b"".join(masked(TEXT, action) for action in actions))
        peer.writer.transport.close()
        async with asyncio.timeout(PATIENCE):
            await all_started.wait()
    assert started == list(range(number))


async def test_a_client_that_is_gone_right_after_its_handshake_leaves_one_line(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo))
    for linger in (0, 1):
        _, writer = await asyncio.open_connection("127.0.0.1", server.server.port)
        writer.write(
            b"GET /invocations_ws/ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", linger, 0))
        writer.transport.abort()
        ending = await ending_of(log_lines)
        assert ending.pop("close_code") == 1006
        assert ending.get("error_code", "accept_failed") == "accept_failed"
    async with server.connect() as client:
        await assert_alive(client)
        assert_no_more_lines(log_lines)


async def test_a_refused_handshake_leaves_no_line(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent_of(echo))
    await refused(server, "/invocations_ws/ws?agent_session_id=..")
    async with server.connect() as client:
        await client.connection.close()
    assert await ending_of(log_lines) == {"close_code": 1000}
    assert_no_more_lines(log_lines)


async def test_a_shutdown_leaves_1001_for_every_socket(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as first, server.connect() as second:
        await asyncio.gather(assert_alive(first), assert_alive(second))
        await server.server.drain()
        assert await first.closed() == 1001
        assert await second.closed() == 1001
    for _ in range(2):
        assert await ending_of(log_lines) == {"close_code": 1001}
    assert_no_more_lines(log_lines)


async def test_no_text_of_an_exception_is_in_the_line(serve: Serve, log_lines: LogLines) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        raise ValueError("hunter2")

    server = await serve(agent_of(invoke))
    async with server.connect() as client:
        await client.ask(action="invoke")
        await client.connection.close()
    record = await log_lines.next("agentws.connection")
    assert "hunter2" not in repr(vars(record)) + record.getMessage()
    assert FIELD + "error.code" not in vars(record)  # the invocation failed, the socket did not
