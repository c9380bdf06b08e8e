"""The line that every socket leaves: how it ended, and what went over it (§9)."""

import asyncio
import json
import socket
import struct
from typing import Any

import pytest
import websockets

from agentws import InvocationContext
from tests.conftest import PATIENCE, LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.support.peers import CLOSE, PING, TEXT, FramedPeer, masked
from tests.transports.websocket.conftest import (
    FIELD,
    FRAMED,
    assert_alive,
    assert_no_more_lines,
    ending_of,
    forever,
    line_of,
    refusal,
)

UNSENDABLE = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
"""Close codes that no frame may carry (RFC 6455 §7.4), those of Autobahn's cases 7.9 among them."""


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
        assert await ending_of(log_lines) == (code, logged.get("error_code"))
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
    assert await ending_of(log_lines) == (1006, None)


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
        assert await ending_of(log_lines) in [(1006, None), (1006, "accept_failed")]
    async with server.connect() as client:
        await assert_alive(client)
        assert_no_more_lines(log_lines)


async def test_a_refused_handshake_leaves_no_line(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent_of(echo))
    await refusal(server, f"{FRAMED}?agent_session_id=..")
    async with server.connect() as client:
        await client.connection.close()
    assert await ending_of(log_lines) == (1000, None)
    assert_no_more_lines(log_lines)


async def test_a_shutdown_leaves_1001_for_every_socket(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as first, server.connect() as second:
        await asyncio.gather(assert_alive(first), assert_alive(second))
        await server.server.drain()
        assert await first.closed() == 1001
        assert await second.closed() == 1001
    for _ in range(2):
        assert await ending_of(log_lines) == (1001, None)
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
