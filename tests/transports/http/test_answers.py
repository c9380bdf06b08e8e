"""What every answer carries, and who names the request (§1)."""

import platform
import re
from collections.abc import Awaitable

import aiohttp
import pytest

from agentws import __version__
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, each, echo
from tests.support.http_client import ASYNC, JSON, ROUTES, SSE, UUID, Session, named
from tests.support.peers import HttpPeer


async def test_every_answer_carries_its_headers(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), invocations={"max_running": 2})
    url = f"{server.http}/invocations"
    poll, cancel = f"{url}/i", f"{url}/i/cancel"
    invoked = {"x-agent-invocation-id", "x-agent-session-id"}
    about = {"x-agent-invocation-id"}
    names: set[str] = set()

    async def check(
        status: int, carried: set[str], answering: Awaitable[aiohttp.ClientResponse]
    ) -> None:
        answer = await answering
        assert answer.status == status
        assert re.fullmatch(r"agentws/\S+ \(python/3\.\d+\)", answer.headers["x-platform-server"])
        assert __version__ in answer.headers["x-platform-server"]
        assert UUID.fullmatch(answer.headers["x-request-id"])
        names.add(answer.headers["x-request-id"])
        for header in invoked:
            assert (header in answer.headers) == (header in carried)
        if (
            "x-agent-invocation-id" in carried
            and status != 202
            and answer.url.path != "/invocations"
        ):
            assert answer.headers["x-agent-invocation-id"] == "i"
        assert ("x-platform-error-source" in answer.headers) == (status >= 400)
        assert ("Retry-After" in answer.headers) == (status == 429)
        answer.close()

    checks: list[tuple[int, set[str], Awaitable[aiohttp.ClientResponse]]] = [
        (202, invoked, session.post(url, json=[1], headers=named("i", **ASYNC))),
        (409, invoked, session.post(url, json=[1], headers=named("i"))),
        (200, about, session.get(poll)),
        (200, about, session.get(poll, headers=SSE)),
        (400, about, session.get(poll, headers={**SSE, "Last-Event-ID": "x"})),
        (404, about, session.get(poll, headers={"x-agent-user-id": "eve"})),
        (405, set(), session.get(cancel)),
        (200, invoked, session.post(url, json=[1])),
        (429, invoked, session.post(url, json=[1])),
        (200, about, session.post(cancel)),
        (409, about, session.post(cancel)),
        (400, {"x-agent-session-id"}, session.post(url, data=b"nonsense")),
        (400, invoked, session.post(url, data=b"nonsense", headers=named("i"))),
    ]
    for status, carried, answering in checks:
        await check(status, carried, answering)
    assert len(names) == len(checks)


@pytest.mark.parametrize("path", [*ROUTES, "/nowhere", "/invocations_ws/ws"])
async def test_every_answer_names_the_request_and_the_server(
    serve: Serve, session: Session, path: str
) -> None:
    server = await serve(agent_of(echo))
    names = set()
    python = "{}.{}".format(*platform.python_version_tuple()[:2])
    for method in ("GET", "POST"):
        async with session.request(method, server.http + path) as answer:
            assert UUID.fullmatch(answer.headers["x-request-id"])
            names.add(answer.headers["x-request-id"])
            told = answer.headers["x-platform-server"]
            assert told == f"agentws/{__version__} (python/{python})"
    assert len(names) == 2


async def test_the_trace_of_the_caller_names_the_request(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "x-request-id": "mine"}
    url = f"{server.http}/invocations"
    for more in ({}, JSON, ASYNC):
        async with session.post(url, json=[1], headers={**headers, **more}) as answer:
            assert answer.headers["x-request-id"] == trace
    async with session.post(url, json=[1], headers={"x-request-id": "mine"}) as answer:
        assert answer.headers["x-request-id"] == "mine"


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "own"}, TRACE),
        ({"traceparent": f"01-{TRACE}-00f067aa0ba902b7-01-more"}, TRACE),
        ({"traceparent": f"ff-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "own"}, "own"),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01", "x-request-id": "own"}, "own"),
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01-more", "x-request-id": "own"}, "own"),
        ({"x-request-id": "A.b:c_d-1"}, "A.b:c_d-1"),
        ({"x-request-id": "a" * 256}, "a" * 256),
        ({"x-request-id": "a" * 257}, None),
        ({"x-request-id": "a/b"}, None),
        ({"x-request-id": "..."}, None),
        ({"x-request-id": "é"}, None),
    ],
)
async def test_the_request_id_is_the_traces_else_the_callers_else_new(
    serve: Serve, session: Session, sent: dict[str, str], expected: str | None
) -> None:
    server = await serve(agent_of(echo))
    for path in ("/liveness", "/nowhere"):
        async with session.get(server.http + path, headers=sent) as answer:
            told = answer.headers["x-request-id"]
            assert told == expected if expected else UUID.fullmatch(told)


@pytest.mark.parametrize(
    "request_",
    [
        b"HELLO\r\n\r\n",
        b"GET /liveness HTTP/1.1\r\nno colon\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\r\n\r\n",
    ],
    ids=repr,
)
async def test_what_is_no_http_is_refused_and_harms_nobody(
    serve: Serve, session: Session, request_: bytes
) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        peer.writer.write(request_)
        answer = await peer.rest()
    status_line, _, _ = answer.partition(b"\r\n")
    assert status_line.startswith(b"HTTP/1.")
    assert b" 400 " in status_line
    assert b"Traceback" not in answer
    async with session.get(f"{server.http}/liveness") as alive:
        assert alive.status == 200
