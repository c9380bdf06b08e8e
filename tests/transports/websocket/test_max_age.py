"""The age of a connection: it is told, and then ends the socket (§8)."""

import json
import struct

from agentws.transports.websocket.max_age import lifetime
from tests.conftest import LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.support.peers import CLOSE, FramedPeer
from tests.transports.websocket.conftest import assert_alive, ending_of, forever, seconds


async def test_a_socket_is_told_of_its_age_and_then_closed(
    serve: Serve, log_lines: LogLines
) -> None:
    server = await serve(agent_of(forever), websocket={"max_connection_age": 0.3})
    started = seconds()
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        frame = await client.receive()
        assert (frame["type"], frame["reason"]) == ("going_away", "max_age")
        assert 0.27 <= frame["grace_seconds"] <= 0.33  # 10 % more or less
        assert await client.closed() == 1001
        assert 0.2 < seconds() - started < 2.0
    assert await ending_of(log_lines) == (1001, None)
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
        assert await ending_of(log_lines) == (1001, None)
        await peer.dropped()


async def test_without_a_maximal_age_nothing_is_announced(serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_connection_age": 0})
    async with server.connect() as client:
        await assert_alive(client)
