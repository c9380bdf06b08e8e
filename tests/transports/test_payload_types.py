"""Payloads of declared types on the wire: converted on every transport, refused before all else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pydantic
import pytest
from msgspec import Meta, Struct

from agentws import Agent, InvocationContext, InvocationError
from tests.conftest import Client, Frame, Serve
from tests.support.http_client import Session, named, refusal


class Question(Struct):
    message: Annotated[str, Meta(max_length=5)]

    def __post_init__(self) -> None:
        if self.message == "dirty":
            raise InvocationError("language", "Mind your language", 422)
        if self.message == "crash":
            raise RuntimeError("a secret")


class Model(pydantic.BaseModel):
    number: int = pydantic.Field(gt=0)


class Asked:
    """An agent that remembers what it was asked, and answers when it is let go."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)
        self.questions: list[object] = []
        self.may_answer = asyncio.Event()

    async def invoke(self, payload: Question, context: InvocationContext) -> Question:
        self.questions.append(payload)
        await self.may_answer.wait()
        return payload


@pytest.fixture
def asked() -> Asked:
    return Asked()


RIGHT = {"message": "hello"}
WRONG = {"message": 5}
COMPLAINT = "payload: Expected `str`, got `int` - at `$.message`"


async def ended(client: Client, invocation_id: str) -> Frame:
    return await client.until(type="result", invocation_id=invocation_id)


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
async def test_on_a_socket_the_handler_gets_its_type(serve: Serve, asked: Asked, path: str) -> None:
    asked.may_answer.set()
    server = await serve(asked.agent)
    async with server.connect(path) as client:
        frame = await client.ask(action="invoke", payload=RIGHT)
    assert (frame["type"], frame["payload"]) == ("result", RIGHT)
    assert asked.questions == [Question("hello")]


async def test_over_http_the_handler_gets_its_type(
    serve: Serve,
    session: Session,
    asked: Asked,
) -> None:
    asked.may_answer.set()
    server = await serve(asked.agent)
    async with session.post(f"{server.http}/invocations", json=RIGHT) as answer:
        assert (answer.status, await answer.json()) == (200, RIGHT)
    assert asked.questions == [Question("hello")]


@pytest.mark.parametrize("background", [False, True])
async def test_on_a_socket_a_payload_that_does_not_fit_is_refused_and_the_id_stays_free(
    serve: Serve, asked: Asked, background: bool
) -> None:
    asked.may_answer.set()
    server = await serve(asked.agent)
    async with server.connect() as client:
        invoke = {"action": "invoke", "invocation_id": "i", "session_id": "s"}
        frame = await client.ask(**invoke, payload=WRONG, background=background, query_id="q")
        assert frame == {
            "type": "error",
            "action": "invoke",
            "invocation_id": "i",
            "session_id": "s",
            "query_id": "q",
            "error": {
                "code": "invalid_request",
                "message": COMPLAINT,
                "retryable": False,
                "source": "user",
            },
        }
        polled = await client.ask(action="get_invocation", invocation_id="i")
        assert polled["error"]["code"] == "not_found"
        assert (await client.ask(**invoke, payload=RIGHT))["payload"] == RIGHT
    assert asked.questions == [Question("hello")]


@pytest.mark.parametrize(
    "headers", [{}, {"Prefer": "respond-async"}, {"Accept": "text/event-stream"}]
)
async def test_over_http_a_payload_that_does_not_fit_is_refused_and_the_id_stays_free(
    serve: Serve,
    session: Session,
    asked: Asked,
    headers: dict[str, str],
) -> None:
    asked.may_answer.set()
    server = await serve(asked.agent)
    url = f"{server.http}/invocations"
    async with session.post(url, json=WRONG, headers=named("i", **headers)) as answer:
        error = await refusal(answer, 400, "invalid_request")
        assert error["message"] == COMPLAINT
        assert answer.headers["x-agent-invocation-id"] == "i"
    async with session.get(f"{url}/i") as answer:
        await refusal(answer, 404, "not_found")
    async with session.post(url, json=RIGHT, headers=named("i")) as answer:
        assert await answer.json() == RIGHT
    assert asked.questions == [Question("hello")]


async def test_an_absent_payload_is_an_empty_object_and_checked_like_one(
    serve: Serve,
    session: Session,
    asked: Asked,
) -> None:
    server = await serve(asked.agent)
    missing = "payload: Object missing required field `message`"
    async with server.connect() as client:
        assert (await client.ask(action="invoke"))["error"]["message"] == missing
    async with session.post(f"{server.http}/invocations") as answer:
        assert (await refusal(answer, 400, "invalid_request"))["message"] == missing


async def test_what_a_type_raises_is_told_like_what_a_handler_raises(
    serve: Serve,
    session: Session,
    asked: Asked,
) -> None:
    server = await serve(asked.agent)
    async with server.connect() as client:
        frame = await client.ask(action="invoke", payload={"message": "crash"})
        assert frame["error"]["code"] == "internal_error"
        assert "secret" not in str(frame)
        assert await client.ask(action="ping") == {"type": "pong"}
    async with session.post(f"{server.http}/invocations", json={"message": "dirty"}) as answer:
        await refusal(answer, 422, "language")
    assert asked.questions == []


async def test_pydantic_names_place_and_text_on_both_transports(
    serve: Serve,
    session: Session,
) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: list[Model], context: InvocationContext) -> AsyncIterator[Model]:
        for model in payload:
            yield model

    server = await serve(agent)
    complaint = "payload: 1.number: Input should be greater than 0"
    wrong = [{"number": 1}, {"number": 0}]
    async with server.connect() as client:
        frame = await client.ask(action="invoke", payload=wrong)
        assert frame["error"]["message"] == complaint
        frame = await client.ask(action="invoke", payload=wrong[:1])
        assert (frame["type"], frame["payload"]) == ("stream_chunk", {"number": 1})
    async with session.post(f"{server.http}/invocations", json=wrong) as answer:
        assert (await refusal(answer, 400, "invalid_request"))["message"] == complaint


# The order of checks (§5)


async def test_a_malformed_field_is_told_before_the_payload(serve: Serve, asked: Asked) -> None:
    server = await serve(asked.agent)
    async with server.connect() as client:
        frame = await client.ask(action="invoke", payload=WRONG, invocation_id="a b")
        assert frame["error"]["message"].startswith("invocation_id must be ")


@pytest.mark.parametrize("fields", [{}, {"if_exists": "attach"}])
async def test_the_payload_is_told_before_an_id_that_exists(
    serve: Serve, asked: Asked, fields: dict[str, Any]
) -> None:
    server = await serve(asked.agent)
    invoke = {"action": "invoke", "invocation_id": "i"}
    async with server.connect() as client:
        await client.ask(**invoke, payload=RIGHT, query_id="q")
        frame = await client.ask(**invoke, payload=WRONG, **fields)
        assert frame["error"]["message"] == COMPLAINT
        asked.may_answer.set()
        await ended(client, "i")
    assert len(asked.questions) == 1


async def test_the_payload_is_told_before_a_limit(serve: Serve, asked: Asked) -> None:
    server = await serve(asked.agent, invocations={"max_running": 1})
    async with server.connect() as client:
        await client.ask(action="invoke", invocation_id="i", payload=RIGHT, query_id="q")
        frame = await client.ask(action="invoke", payload=WRONG)
        assert frame["error"]["code"] == "invalid_request"
        frame = await client.ask(action="invoke", payload=RIGHT)
        assert frame["error"]["code"] == "too_many_invocations"


async def test_a_payload_that_does_not_fit_interrupts_nobody(serve: Serve, asked: Asked) -> None:
    server = await serve(asked.agent)
    async with server.connect() as client:
        await client.ask(
            action="invoke", invocation_id="i", session_id="s", payload=RIGHT, query_id="q"
        )
        frame = await client.ask(
            action="invoke", session_id="s", payload=WRONG, if_session_busy="interrupt"
        )
        assert frame["error"]["code"] == "invalid_request"
        asked.may_answer.set()
        assert (await ended(client, "i"))["payload"] == RIGHT
