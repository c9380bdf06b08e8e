"""What a client wishes of an answer: Accept, and Prefer: respond-async (RFC 7240)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentws import InvocationContext, InvocationError
from tests.conftest import Serve
from tests.support.agents import Gate, Raiser, agent_of, each, echo, soon
from tests.support.http_client import (
    ASYNC,
    JSON,
    KIB,
    SSE,
    UUID,
    Session,
    begin,
    ended,
    named,
    refusal,
    run,
)
from tests.support.peers import HttpPeer

# --- Accept -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "is_array"),
    [
        (["application/json"], True),
        (["text/html, application/json;q=0.5"], True),
        (["Application/JSON"], True),
        (["text/html", "application/json"], True),
        (["application/json", "text/event-stream"], False),
        (["application/json, text/event-stream;q=0.1"], False),
        (["text/event-stream"], False),
        (["*/*"], False),
        (["application/*"], False),
        (["text/html"], False),
        (["application/jsonl"], False),
        (["application/json, text/event-stream;q=0"], True),
        (["application/json", "text/event-stream; Q=0.000"], True),
        (["*/*, text/event-stream;charset=utf-8 ; q = 0"], True),
        (["text/event-stream;q=0"], True),
        (["application/json;q=0"], False),
        (["application/json;q=0, text/event-stream"], False),
        (["application/json, text/event-stream;q=0.001"], False),
        (["application/json, text/event-stream;q=00"], False),
        ([""], False),
        ([], False),
    ],
    ids=str,
)
async def test_a_generator_is_one_array_for_a_client_that_accepts_only_json(
    serve: Serve, accept: list[str], is_array: bool
) -> None:
    server = await serve(agent_of(each))
    body = b'[{"a": 1}, "b"]'
    async with HttpPeer.connect(server) as peer:
        fields = [f"Accept: {value}" for value in accept]
        length = f"Content-Length: {len(body)}"
        peer.request("POST /invocations", *fields, length, body=body)
        if is_array:
            status, headers, answer = await peer.answer()
            assert (status, answer) == (200, b'[{"a":1},"b"]')
            assert headers["content-type"].startswith("application/json")
            assert UUID.fullmatch(headers["x-agent-invocation-id"])
        else:
            head = await peer.head()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nContent-Type: text/event-stream" in head


async def test_an_empty_generator_is_an_empty_array(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each))
    async with session.post(f"{server.http}/invocations", json=[], headers=JSON) as answer:
        assert (answer.status, await answer.read()) == (200, b"[]")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (lambda: InvocationError("no_luck", "Ünlucky", status=418), 418, "no_luck"),
        (lambda: InvocationError("no_luck", "Ünlucky"), 400, "no_luck"),
        (lambda: RuntimeError("secret"), 500, "internal_error"),
        (lambda: SystemExit(3), 500, "internal_error"),
    ],
)
async def test_a_failure_of_a_generator_that_is_to_be_an_array_is_an_envelope(
    serve: Serve, session: Session, fault: Raiser, status: int, code: str
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield 1
        raise fault()

    server = await serve(agent_of(invoke))
    async with session.post(f"{server.http}/invocations", headers=named("i", **JSON)) as answer:
        error = await refusal(answer, status, code)
        assert answer.headers["x-agent-invocation-id"] == "i"
    assert "secret" not in error["message"]


async def test_an_array_longer_than_what_is_held_is_whole(serve: Serve, session: Session) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        for number in range(20_000):
            yield number

    server = await serve(agent_of(invoke), invocations={"replay_bytes": KIB})
    async with session.post(f"{server.http}/invocations", headers=JSON) as answer:
        assert await answer.json() == list(range(20_000))


async def test_a_poll_that_refuses_events_gets_the_record(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each))
    url = f"{server.http}/invocations"
    await run(server, session, "i", [1])
    for accept in ("text/event-stream;q=0", "application/json, text/event-stream;q=0.0"):
        async with session.get(f"{url}/i", headers={"Accept": accept}) as answer:
            assert (await answer.json())["invocation_id"] == "i"


# --- Prefer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preference", ["respond-async", "return=minimal, Respond-Async; wait=10", "respond-async;a=b"]
)
async def test_respond_async_answers_with_the_record_at_once(
    serve: Serve, session: Session, preference: str
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    headers = named("i", Prefer=preference)
    url = f"{server.http}/invocations?agent_session_id=s"
    async with session.post(url, json={"a": 1}, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (202, "application/json")
        assert answer.headers["Location"] == "/invocations/i"
        assert answer.headers["Preference-Applied"] == "respond-async"
        assert answer.headers["x-agent-invocation-id"] == "i"
        assert answer.headers["x-agent-session-id"] == "s"
        record = await answer.json()
    assert record.keys() == {"invocation_id", "session_id", "status", "created_at"}
    assert (record["invocation_id"], record["session_id"]) == ("i", "s")
    assert record["status"] == "running"
    gate.opened.set()
    assert (await ended(server, session, "i"))["result"] == {"a": 1}


async def test_the_location_of_an_id_that_was_made_up_can_be_polled(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    async with session.post(url, json=["a", "b"], headers=ASYNC) as answer:
        made_up = answer.headers["x-agent-invocation-id"]
        record = await answer.json()
        location = answer.headers["Location"]
    assert UUID.fullmatch(made_up)
    assert location == f"/invocations/{made_up}"
    assert record["stream"]["first_available"] == 1
    await soon(gate.entered)
    async with session.get(server.http + location) as poll:
        record = await poll.json()
    assert record["invocation_id"] == made_up
    assert record["stream"] == {"first_available": 1, "last_sequence_number": 1}


@pytest.mark.parametrize("streams", [False, True])
async def test_what_was_promised_runs_on_with_nobody_listening(
    serve: Serve, session: Session, streams: bool
) -> None:
    gate = Gate()
    server = await serve(
        agent_of(gate.stream_late if streams else gate), invocations={"disconnect_grace": 0.0}
    )
    await begin(server, session, "i", [1])
    await soon(gate.entered)
    url = f"{server.http}/invocations/i"
    async with session.get(url, headers=SSE) as listener:  # comes, and leaves again
        assert listener.status == 200
    await asyncio.sleep(0.05)  # longer than the grace of nothing at all
    assert not gate.cancelled.is_set()
    gate.opened.set()
    assert (await ended(server, session, "i"))["status"] == "completed"


@pytest.mark.parametrize("preference", ["", "return=minimal", "respond-asynchronously", "wait=5"])
async def test_other_preferences_change_nothing(
    serve: Serve, session: Session, preference: str
) -> None:
    server = await serve(agent_of(echo))
    headers = {"Prefer": preference}
    async with session.post(f"{server.http}/invocations", json=1, headers=headers) as answer:
        assert (answer.status, await answer.json()) == (200, 1)
        assert "Preference-Applied" not in answer.headers
        assert "Location" not in answer.headers


async def test_what_is_refused_is_not_promised(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    url = f"{server.http}/invocations"
    for data, status, code in (
        (b"1", 202, None),
        (b"1", 409, "already_exists"),
        (b"nonsense", 400, "invalid_json"),
    ):
        async with session.post(url, data=data, headers=named("i", **ASYNC)) as answer:
            assert answer.status == status
            assert ("Location" in answer.headers) == (code is None)
            if code is not None:
                await refusal(answer, status, code)
