"""The access log: a line an answer."""

import json

from tests.conftest import LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.support.http_client import Session


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
