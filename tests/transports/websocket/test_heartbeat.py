"""Pings of WebSocket: who answers none is dropped (§8)."""

import json

from tests.conftest import LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.support.peers import PING, PONG, TEXT, FramedPeer
from tests.transports.websocket.conftest import assert_alive, ending_of, flood


async def test_a_peer_that_answers_no_ping_is_dropped(serve: Serve, log_lines: LogLines) -> None:
    server = await serve(agent_of(echo), websocket={"heartbeat": 0.2, "app_ping_interval": 0})
    async with FramedPeer.connect(server) as silent, server.connect() as client:
        assert await silent.receive() == (PING, b"")
        await silent.dropped()
        assert await ending_of(log_lines) == (1006, "heartbeat_timeout")
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
        assert await ending_of(log_lines) == (1006, "heartbeat_timeout")


async def test_a_websocket_ping_is_answered_with_its_data(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with FramedPeer.connect(server) as peer:
        for data in (b"", b"data", b"x" * 125):
            peer.send(PING, data)
            assert await peer.receive() == (PONG, data)
        peer.send(PONG, b"unasked")
        peer.act(action="ping")
        assert (await peer.receive())[0] == TEXT
