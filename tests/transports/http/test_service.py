"""HTTP without invocations: probes, documents, and what every answer has in common (§1, §6)."""

import asyncio
import json
import platform
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jsonschema
import pytest
from websockets.exceptions import InvalidStatus

from agentws import Agent, InvocationContext, __version__
from tests.conftest import PATIENCE, LogLines, Running, Serve
from tests.support.peers import HttpPeer

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ASYNCAPI = "/invocations_ws/docs/asyncapi.json"
ASYNCAPIS = [ASYNCAPI, "/invocations/docs/asyncapi.json"]
OPENAPI = ["/invocations/docs/openapi.json", "/invocations_ws/docs/openapi.json"]
ROUTES = ["/readiness", "/liveness", *ASYNCAPIS, *OPENAPI]


@pytest.fixture(autouse=True)
def nothing_unforeseen() -> None:
    """Here, something is: aiohttp logs what is no HTTP as an error of its own."""


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def echoing(openapi: dict[str, Any] | None = None) -> Agent:
    agent = Agent(openapi)

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return payload

    return agent


# --- probes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "status"), [("/readiness", "healthy"), ("/liveness", "alive")])
async def test_a_probe_says_that_all_is_well(
    serve: Serve, session: aiohttp.ClientSession, path: str, status: str
) -> None:
    server = await serve(echoing())
    async with session.get(server.http + path) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert await answer.json() == {"status": status}
    async with session.head(server.http + path) as answer:
        assert answer.status == 200
        assert await answer.read() == b""


# --- documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OPENAPI)
async def test_the_openapi_document_is_what_the_agent_registered(
    serve: Serve, session: aiohttp.ClientSession, path: str
) -> None:
    document = {"openapi": "3.1.0", "info": {"title": "é", "version": "1"}, "paths": {}}
    server = await serve(echoing(document))
    async with session.get(server.http + path) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == document


@pytest.mark.parametrize("path", OPENAPI)
async def test_without_an_openapi_document_there_is_none(
    serve: Serve, session: aiohttp.ClientSession, path: str
) -> None:
    server = await serve(echoing())
    async with session.get(server.http + path) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "not_found"


async def test_an_empty_openapi_document_is_one(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(echoing({}))
    async with session.get(server.http + OPENAPI[0]) as answer:
        assert (answer.status, await answer.json()) == (200, {})


@pytest.mark.parametrize("path", ASYNCAPIS)
@pytest.mark.parametrize("document", [{"asyncapi": "3.0.0", "info": {"title": "é"}}, {}])
async def test_the_asyncapi_document_is_what_the_agent_registered(
    serve: Serve, session: aiohttp.ClientSession, path: str, document: dict[str, Any]
) -> None:
    server = await serve(Agent(asyncapi=document))
    async with session.get(server.http + path) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == document


async def test_without_an_asyncapi_document_the_socket_is_described_at_both_places(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(echoing())
    documents = []
    for path in ASYNCAPIS:
        async with session.get(server.http + path) as answer:
            documents.append(await answer.json())
    assert documents[0] == documents[1]
    assert documents[0]["asyncapi"] == "3.0.0"


async def asyncapi_of(server: Running, session: aiohttp.ClientSession) -> Any:
    async with session.get(server.http + ASYNCAPI) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        return await answer.json()


def resolved(document: Any, reference: dict[str, str]) -> Any:
    target = document
    for part in reference["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return target


def payloads(document: Any, action: str) -> dict[str, Any]:
    """The payload schema of each message that is received or sent, by the message's name."""
    (operation,) = [
        operation for operation in document["operations"].values() if operation["action"] == action
    ]
    messages = [
        resolved(document, resolved(document, reference)) for reference in operation["messages"]
    ]
    return {message["name"]: message["payload"] for message in messages}


async def test_the_asyncapi_document_names_every_action_and_frame(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    document = await asyncapi_of(await serve(echoing()), session)
    assert document["asyncapi"].startswith("3.0.")
    assert document["info"]["version"] == __version__
    (channel,) = document["channels"].values()
    assert channel["address"] == "/invocations_ws/ws"
    assert set(payloads(document, "receive")) == {
        "invoke",
        "get_invocation",
        "cancel_invocation",
        "attach_invocation",
        "ping",
        "pong",
    }
    assert set(payloads(document, "send")) == {
        "result",
        "stream_chunk",
        "stream_end",
        "accepted",
        "error",
        "going_away",
        "ping",
        "pong",
    }


async def test_what_is_said_on_the_socket_is_as_the_asyncapi_document_describes_it(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(echoing())
    document = await asyncapi_of(server, session)

    def check(direction: str, name: str, message: dict[str, Any]) -> None:
        schema = {**payloads(document, direction)[name], "components": document["components"]}
        jsonschema.validate(message, schema)

    async with server.connect() as client:
        messages: list[dict[str, Any]] = [
            {"action": "invoke", "payload": [1], "invocation_id": "i"},
            {"action": "invoke", "invocation_id": "i"},
            {"action": "get_invocation", "invocation_id": "i"},
            {"action": "ping"},
        ]
        for message in messages:
            check("receive", message["action"], message)
            frame = await client.ask(**message)
            check("send", frame["type"], frame)
    with pytest.raises(jsonschema.ValidationError):
        check("receive", "get_invocation", {"action": "get_invocation"})
    with pytest.raises(jsonschema.ValidationError):
        check("receive", "invoke", {"action": "invoke", "background": "yes"})


# --- routes -----------------------------------------------------------------------------------


async def test_a_trailing_slash_makes_no_difference(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(echoing({}), auth={"api_keys": ("key",)})
    for path in ("/readiness/", "/liveness/"):
        async with session.get(server.http + path) as answer:
            assert answer.status == 200
    key = {"api-key": "key", "x-agent-invocation-id": "i"}
    for path in (f"{ASYNCAPI}/", f"{OPENAPI[0]}/", f"{OPENAPI[1]}/"):
        async with session.get(server.http + path) as answer:
            assert answer.status == 401
        async with session.get(server.http + path, headers=key) as answer:
            assert answer.status == 200
    async with session.post(f"{server.http}/invocations/?a=b", json=[1], headers=key) as answer:
        assert (answer.status, await answer.json()) == (200, [1])
    async with session.get(f"{server.http}/invocations/i/", headers=key) as answer:
        assert (await answer.json())["invocation_id"] == "i"
    async with session.post(f"{server.http}/invocations/i/cancel/", headers=key) as answer:
        assert (await answer.json())["error"]["code"] == "already_finished"
    async with session.delete(f"{server.http}/invocations/i/") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize("path", ["/invocations_ws/ws/", "/invocations_ws/"])
async def test_a_socket_opens_with_a_trailing_slash(
    serve: Serve, session: aiohttp.ClientSession, path: str
) -> None:
    server = await serve(echoing(), auth={"api_keys": ("key",), "query_parameter": "access"})
    async with session.get(server.http + path) as answer:
        assert answer.status == 426
    with pytest.raises(InvalidStatus, match="401"):
        async with server.connect(path):
            pass
    async with server.connect(f"{path}?access=key") as client:
        assert (await client.ask(action="ping"))["type"] == "pong"


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/nowhere/",
        "/readiness//",
        "//readiness",
        "/invocations/a//",
        "/%ff%00",
        "//",
    ],
)
async def test_an_unknown_route_is_not_found(
    serve: Serve, session: aiohttp.ClientSession, path: str
) -> None:
    server = await serve(echoing())
    async with session.get(server.http + path) as answer:
        assert answer.status == 404
        assert answer.content_type == "application/json"
        assert answer.headers["x-platform-error-source"] == "user"
        error = (await answer.json())["error"]
    assert error.keys() == {"code", "message", "retryable", "source"}
    assert (error["code"], error["retryable"], error["source"]) == ("not_found", False, "user")
    assert isinstance(error["message"], str)


@pytest.mark.parametrize("path", [*ROUTES, "/invocations_ws/ws", "/invocations_ws"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_method_that_a_route_does_not_have_is_not_allowed(
    serve: Serve, session: aiohttp.ClientSession, path: str, method: str
) -> None:
    server = await serve(echoing())
    async with session.request(method, server.http + path) as answer:
        assert answer.status == 405
        allowed = {name.strip() for name in answer.headers["Allow"].split(",")}
        assert "GET" in allowed
        assert method not in allowed
        assert answer.headers["x-platform-error-source"] == "user"
        error = (await answer.json())["error"]
    assert error["code"] == "method_not_allowed"
    assert (error["retryable"], error["source"]) == (False, "user")


async def test_an_expectation_that_is_not_met_is_an_error_as_any_other(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    server = await serve(echoing())
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
    server = await serve(echoing(), auth={"api_keys": ("key",)})
    async with HttpPeer.connect(server) as peer:
        peer.request(line, f"Expect: {wish}", "Content-Length: 2")
        answered, headers, body = await peer.answer()
    assert answered == status
    assert UUID.fullmatch(headers["x-request-id"])
    assert "error" in json.loads(body)
    assert headers["connection"] == "close"  # the body may follow, or not
    assert not [record for record in log_lines.records if record.exc_info]


async def test_odd_expectations_are_refused_once_admitted(serve: Serve) -> None:
    server = await serve(echoing())
    for wish in ("\xff\xfe", "100-continue, wonders", "wonders"):
        async with HttpPeer.connect(server) as peer:
            peer.request("GET /liveness", f"Expect: {wish}")
            assert (await peer.answer())[0] == 417


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
    serve: Serve, session: aiohttp.ClientSession, request_: bytes
) -> None:
    server = await serve(echoing())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.server.port)
    writer.write(request_)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    status_line, _, _ = answer.partition(b"\r\n")
    assert status_line.startswith(b"HTTP/1.")
    assert b" 400 " in status_line
    assert b"Traceback" not in answer
    async with session.get(f"{server.http}/liveness") as alive:
        assert alive.status == 200


# --- headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*ROUTES, "/nowhere", "/invocations_ws/ws"])
async def test_every_answer_names_the_request_and_the_server(
    serve: Serve, session: aiohttp.ClientSession, path: str
) -> None:
    server = await serve(echoing())
    names = set()
    python = "{}.{}".format(*platform.python_version_tuple()[:2])
    for method in ("GET", "POST"):
        async with session.request(method, server.http + path) as answer:
            assert UUID.fullmatch(answer.headers["x-request-id"])
            names.add(answer.headers["x-request-id"])
            told = answer.headers["x-platform-server"]
            assert told == f"agentws/{__version__} (python/{python})"
    assert len(names) == 2


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
    serve: Serve, session: aiohttp.ClientSession, sent: dict[str, str], expected: str | None
) -> None:
    server = await serve(echoing())
    for path in ("/liveness", "/nowhere"):
        async with session.get(server.http + path, headers=sent) as answer:
            told = answer.headers["x-request-id"]
            assert told == expected if expected else UUID.fullmatch(told)


# --- the access log ---------------------------------------------------------------------------


async def test_every_answer_leaves_a_line_without_the_query(
    serve: Serve, session: aiohttp.ClientSession, log_lines: LogLines
) -> None:
    server = await serve(echoing())
    headers = {"x-request-id": "mine"}
    async with session.get(f"{server.http}/nowhere?key=hunter2", headers=headers):
        pass
    line = vars(await log_lines.next("agentws.access"))
    assert (line["method"], line["path"], line["status"]) == ("GET", "/nowhere", 404)
    assert line["request_id"] == "mine"
    assert line["duration_ms"] >= 0
    assert "hunter2" not in json.dumps(line, default=repr)


async def test_the_access_log_can_be_turned_off(
    serve: Serve, session: aiohttp.ClientSession, log_lines: LogLines
) -> None:
    server = await serve(echoing(), server={"access_log": False})
    async with session.get(f"{server.http}/liveness"):
        pass
    await server.server.drain()
    assert not [record for record in log_lines.records if record.name == "agentws.access"]
