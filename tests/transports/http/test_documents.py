"""The documents that an agent's types make, as they are served."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from msgspec import Struct
from openapi_spec_validator import OpenAPIV31SpecValidator

from agentws import Agent, InvocationContext
from tests.conftest import Serve
from tests.support.agents import agent_of
from tests.support.http_client import ASYNCAPI, OPENAPI, Session, refusal


class Question(Struct):
    """What is asked."""

    message: str


class Token(Struct):
    token: str


async def stream(payload: Question, context: InvocationContext) -> AsyncGenerator[Token, None]:
    """Answer word by word."""
    yield Token(payload.message)


async def says_nothing(payload: dict, context: Any) -> Any:  # type: ignore[type-arg]
    return payload


async def document_at(session: Session, url: str, **headers: str) -> Any:
    async with session.get(url, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        return await answer.json()


async def test_types_make_the_openapi_document_at_both_places(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(stream), agent={"name": "words", "version": "7"})
    one, other = [await document_at(session, server.http + path) for path in OPENAPI]
    assert one == other
    OpenAPIV31SpecValidator(one).validate()
    assert one["info"] == {"title": "words", "version": "7"}
    invoke = one["paths"]["/invocations"]["post"]
    assert invoke["summary"] == "Answer word by word."
    payload = invoke["requestBody"]["content"]["application/json"]["schema"]
    assert payload == {"$ref": "#/components/schemas/Question"}


async def test_an_agent_without_a_name_has_a_document_all_the_same(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(stream))
    document = await document_at(session, server.http + OPENAPI[0])
    OpenAPIV31SpecValidator(document).validate()


@pytest.mark.parametrize("path", OPENAPI)
async def test_annotations_that_say_nothing_make_no_openapi_document(
    serve: Serve, session: Session, path: str
) -> None:
    server = await serve(agent_of(says_nothing))
    async with session.get(server.http + path) as answer:
        await refusal(answer, 404, "not_found")


@pytest.mark.parametrize("registered", [{"openapi": "3.1.0", "asyncapi": "3.0.0"}, {}])
async def test_what_the_agent_registered_wins(
    serve: Serve, session: Session, registered: dict[str, Any]
) -> None:
    agent = Agent(openapi=registered, asyncapi=registered)
    agent.invoke_handler(stream)
    server = await serve(agent)
    for path in (*OPENAPI, *ASYNCAPI):
        assert await document_at(session, server.http + path) == registered


async def test_what_handlers_of_the_agent_answer_is_not_described(
    serve: Serve, session: Session
) -> None:
    agent = agent_of(stream)

    @agent.get_invocation_handler
    async def poll(context: InvocationContext) -> str:
        return "no record"

    document = await document_at(session, (await serve(agent)).http + OPENAPI[0])
    polled = document["paths"]["/invocations/{id}"]["get"]["responses"]["200"]
    assert polled["content"]["application/json"]["schema"] == {}


async def test_types_are_the_payloads_of_the_asyncapi_document(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(stream))
    one, other = [await document_at(session, server.http + path) for path in ASYNCAPI]
    assert one == other
    schemas = one["components"]["schemas"]
    for frame, name in (("Invoke", "Question"), ("StreamChunk", "Token")):
        payload = schemas[frame]["properties"]["payload"]
        assert payload == {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize(
    ("headers", "server"),
    [
        ({}, None),
        ({"Host": "agents.example.com"}, ("agents.example.com", "ws")),
        (
            {"Host": "agents.example.com:443", "X-Forwarded-Proto": "https"},
            ("agents.example.com:443", "wss"),
        ),
        ({"Host": "a", "X-Forwarded-Proto": "HTTPS, http"}, ("a", "wss")),
        ({"Host": "a", "X-Forwarded-Proto": "http"}, ("a", "ws")),
    ],
)
async def test_the_asyncapi_document_names_the_server_that_was_asked_for_it(
    serve: Serve, session: Session, headers: dict[str, str], server: tuple[str, str] | None
) -> None:
    running = await serve(agent_of(stream))
    document = await document_at(session, running.http + ASYNCAPI[0], **headers)
    (found,) = document["servers"].values()
    host, protocol = server or (running.http.removeprefix("http://"), "ws")
    assert found == {"host": host, "protocol": protocol}
