"""Probes, and the documents that describe an agent."""

from typing import Any

import jsonschema
import pytest

from agentws import Agent, __version__
from tests.conftest import Running, Serve
from tests.support.agents import agent_of, echo
from tests.support.documents import resolve
from tests.support.http_client import ASYNCAPI, OPENAPI, ROUTES, Session, methods_of, refusal


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/readiness", {"status": "healthy", "checks": {"store": "ok"}}),
        ("/liveness", {"status": "alive"}),
    ],
)
async def test_a_probe_says_that_all_is_well(
    serve: Serve, session: Session, path: str, body: dict[str, Any]
) -> None:
    server = await serve(agent_of(echo))
    async with session.get(server.http + path) as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert await answer.json() == body
    async with session.head(server.http + path) as answer:
        assert answer.status == 200
        assert await answer.read() == b""


@pytest.mark.parametrize("path", [*ROUTES, "/invocations_ws/ws", "/invocations_ws"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_method_that_a_route_does_not_have_is_not_allowed(
    serve: Serve, session: Session, path: str, method: str
) -> None:
    server = await serve(agent_of(echo))
    async with session.request(method, server.http + path) as answer:
        assert (await refusal(answer, 405, "method_not_allowed"))["source"] == "user"
        allowed = methods_of(answer)
        assert "GET" in allowed
        assert method not in allowed


# --- documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OPENAPI)
async def test_the_openapi_document_is_what_the_agent_registered(
    serve: Serve, session: Session, path: str
) -> None:
    document = {"openapi": "3.1.0", "info": {"title": "é", "version": "1"}, "paths": {}}
    server = await serve(Agent(document))
    async with session.get(server.http + path) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == document


@pytest.mark.parametrize("path", OPENAPI)
async def test_without_an_openapi_document_there_is_none(
    serve: Serve, session: Session, path: str
) -> None:
    server = await serve(agent_of(echo))
    async with session.get(server.http + path) as answer:
        await refusal(answer, 404, "not_found")


async def test_an_empty_openapi_document_is_one(serve: Serve, session: Session) -> None:
    server = await serve(Agent({}))
    async with session.get(server.http + OPENAPI[0]) as answer:
        assert (answer.status, await answer.json()) == (200, {})


@pytest.mark.parametrize("path", ASYNCAPI)
@pytest.mark.parametrize("document", [{"asyncapi": "3.0.0", "info": {"title": "é"}}, {}])
async def test_the_asyncapi_document_is_what_the_agent_registered(
    serve: Serve, session: Session, path: str, document: dict[str, Any]
) -> None:
    server = await serve(Agent(asyncapi=document))
    async with session.get(server.http + path) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == document


async def test_without_an_asyncapi_document_the_socket_is_described_at_both_places(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(echo))
    documents = []
    for path in ASYNCAPI:
        async with session.get(server.http + path) as answer:
            documents.append(await answer.json())
    assert documents[0] == documents[1]
    assert documents[0]["asyncapi"] == "3.0.0"


async def asyncapi_of(server: Running, session: Session) -> Any:
    async with session.get(server.http + ASYNCAPI[0]) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        return await answer.json()


def payloads(document: Any, action: str) -> dict[str, list[Any]]:
    """The payload schemas of the messages that are received or sent, by the messages' names."""
    (operation,) = [
        operation for operation in document["operations"].values() if operation["action"] == action
    ]
    messages = [
        resolve(document, resolve(document, reference["$ref"])["$ref"])
        for reference in operation["messages"]
    ]
    found: dict[str, list[Any]] = {}
    for message in messages:
        found.setdefault(message["name"], []).append(message["payload"])
    return found


async def test_the_asyncapi_document_names_every_action_and_frame(
    serve: Serve, session: Session
) -> None:
    document = await asyncapi_of(await serve(agent_of(echo)), session)
    assert document["asyncapi"].startswith("3.0.")
    assert document["info"]["version"] == __version__
    for channel in document["channels"].values():
        assert channel["address"] == "/invocations_ws/ws"
    assert set(payloads(document, "receive")) == {
        "invoke",
        "get_invocation",
        "cancel_invocation",
        "attach_invocation",
        "detach_invocation",
        "send_input",
        "list_invocations",
        "ping",
        "pong",
    }
    assert set(payloads(document, "send")) == {
        "result",
        "stream_chunk",
        "stream_end",
        "input_required",
        "input_received",
        "accepted",
        "invocations",
        "error",
        "going_away",
        "ping",
        "pong",
    }


async def test_what_is_said_on_the_socket_is_as_the_asyncapi_document_describes_it(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(echo))
    document = await asyncapi_of(server, session)

    def check(direction: str, name: str, message: dict[str, Any]) -> None:
        described = payloads(document, direction)[name]
        schema = {"oneOf": described, "components": document["components"]}
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
