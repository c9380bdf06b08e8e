"""Clients that wait to be asked for the body, or expect what nobody offers (RFC 9110 §10.1.1)."""

import json

import pytest

from tests.conftest import LogLines, Serve
from tests.support.agents import agent_of, echo
from tests.support.http_client import UUID, Session
from tests.support.peers import HttpPeer, exchange

EXPECTING = ("Expect: 100-continue", "Content-Length: 3")


async def test_the_body_of_a_client_that_waits_is_asked_for(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        for _ in range(2):
            peer.request("POST /invocations", *EXPECTING)
            assert (await peer.answer())[0] == 100
            peer.writer.write(b"[1]")
            status, headers, body = await peer.answer()
            assert (status, body) == (200, b"[1]")
            assert "connection" not in headers


async def test_no_body_is_asked_for_that_will_be_refused(serve: Serve) -> None:
    server = await serve(
        agent_of(echo), http={"max_body_size": 2}, auth={"api_keys": ("open-sesame",)}
    )
    for headers, status in (((), 401), (("api-key: open-sesame",), 413)):
        answered, told, _ = await exchange(server, "POST /invocations", *EXPECTING, *headers)
        assert (answered, told["connection"]) == (status, "close")


async def test_no_body_is_asked_for_that_has_no_bytes(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    asked = ("Expect: 100-continue", "Content-Length: 0")
    assert (await exchange(server, "POST /invocations", *asked))[::2] == (200, b"{}")


async def test_nobody_waits_to_be_asked_in_http_1_0(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        peer.writer.write(
            b"POST /invocations HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n[1]"
        )
        assert (await peer.answer())[::2] == (200, b"[1]")


async def test_an_expectation_that_is_not_met_is_an_error_as_any_other(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(echo))
    async with session.get(f"{server.http}/liveness", headers={"Expect": "wonders"}) as answer:
        assert answer.status == 417
        assert UUID.fullmatch(answer.headers["x-request-id"])
        assert (await answer.json())["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("wish", ["\xff\xfe", "wonders", "100-continue, wonders", "100-Continue"])
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /nowhere", 404),
        ("GET /a%0ab", 404),
        ("GET /", 404),
        ("OPTIONS *", 404),
        ("PUT /readiness", 405),
        ("GET /invocations/docs/openapi.json", 401),
        ("POST /invocations", 401),
    ],
)
async def test_no_expectation_comes_before_route_and_admission(
    serve: Serve, line: str, status: int, wish: str, log_lines: LogLines
) -> None:
    server = await serve(agent_of(echo), auth={"api_keys": ("key",)})
    answered, headers, body = await exchange(server, line, f"Expect: {wish}", "Content-Length: 2")
    assert answered == status
    assert UUID.fullmatch(headers["x-request-id"])
    assert "error" in json.loads(body)
    assert headers["connection"] == "close"  # the body may follow, or not
    assert not [record for record in log_lines.records if record.exc_info]


async def test_odd_expectations_are_refused_once_admitted(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    for wish in ("\xff\xfe", "100-continue, wonders", "wonders"):
        assert (await exchange(server, "GET /liveness", f"Expect: {wish}"))[0] == 417
