"""The access log: a line an answer."""

import json

import pytest

from tests.conftest import LogLines, Serve
from tests.support.agents import Gate, agent_of, echo, soon
from tests.support.http_client import SSE, Session, event
from tests.support.peers import HttpPeer


async def test_every_answer_leaves_a_line_without_the_query(
    serve: Serve, session: Session, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo))
    headers = {"x-request-id": "mine"}
    async with session.get(f"{server.http}/nowhere?key=hunter2", headers=headers):
        pass
    line = vars(await log_lines.next("agentws.access"))
    assert (line["method"], line["path"], line["status"]) == ("GET", "/nowhere", 404)
    assert line["request_id"] == "mine"
    assert line["duration_ms"] >= 0
    assert "hunter2" not in json.dumps(line, default=repr)


async def test_the_access_log_can_be_turned_off(
    serve: Serve, session: Session, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo), server={"access_log": False})
    async with session.get(f"{server.http}/liveness"):
        pass
    await server.server.drain()
    assert not [record for record in log_lines.records if record.name == "agentws.access"]


@pytest.mark.parametrize("by_reset", [False, True])
async def test_who_leaves_before_the_answer_has_a_line_with_499(
    serve: Serve, log_lines: LogLines, by_reset: bool
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "x-agent-invocation-id: i")
        await soon(gate.entered)
        if by_reset:
            peer.vanish()
    line = vars(await log_lines.next("agentws.access"))
    assert (line["status"], line["invocation_id"]) == (499, "i")
    assert "cut" not in line


async def test_who_leaves_amid_an_answer_has_a_line_that_says_so(
    serve: Serve, session: Session, log_lines: LogLines
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    async with session.post(f"{server.http}/invocations", json=["a"], headers=SSE) as answer:
        await event(answer)
        answer.close()
    line = vars(await log_lines.next("agentws.access"))
    assert (line["status"], line["cut"]) == (200, True)
