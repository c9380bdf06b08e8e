"""Attaching by an event stream: what is replayed, and where it is taken up (§6)."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from agentws import InvocationContext, InvocationError
from agentws.agent.handlers import InvokeHandler
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, each, echo, soon
from tests.support.http_client import (
    ASYNC,
    KIB,
    MIB,
    SSE,
    Session,
    begin,
    chunk,
    end,
    ended,
    event,
    failure,
    named,
    refusal,
    run,
)
from tests.support.peers import HttpPeer


async def test_attaching_replays_and_follows(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    await begin(server, session, "i", ["a", "b"], session_id="s")
    await soon(gate.entered)
    async with (
        session.get(f"{url}/i", headers=SSE) as first,
        session.get(f"{url}/i", headers=SSE) as second,
    ):
        for answer in (first, second):
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            assert answer.headers["x-agent-invocation-id"] == "i"
            assert await event(answer) == chunk(1, "a")
        gate.opened.set()
        for answer in (first, second):
            assert await answer.read() == chunk(2, "b") + end("i", "s")


async def test_the_replay_of_a_stream_begins_where_the_client_left(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    async with session.post(
        f"{url}?agent_session_id=s", json=["a", "b", "c"], headers=named("i")
    ) as answer:
        assert await event(answer) == chunk(1, "a")
        answer.close()
    await soon(gate.entered)
    gate.opened.set()
    async with session.get(f"{url}/i", headers={**SSE, "Last-Event-ID": "1"}) as answer:
        assert await answer.read() == chunk(2, "b") + chunk(3, "c") + end("i", "s")


@pytest.mark.parametrize(
    ("last_event_id", "starting_after", "first"),
    [
        (None, None, 1),
        ("2", None, 3),
        (None, "2", 3),
        ("1", "2", 2),
        ("0", "2", 1),
        ("", "2", 3),
        (None, "", 1),
        (None, "3", 4),
        (None, "999999999999", 4),
    ],
)
async def test_where_a_stream_is_taken_up(
    serve: Serve,
    session: Session,
    last_event_id: str | None,
    starting_after: str | None,
    first: int,
) -> None:
    server = await serve(agent_of(each))
    url = f"{server.http}/invocations"
    await run(server, session, "i", [1, 2, 3], session_id="s")
    headers = {**SSE} if last_event_id is None else {**SSE, "Last-Event-ID": last_event_id}
    query = {} if starting_after is None else {"starting_after": starting_after}
    async with session.get(f"{url}/i", headers=headers, params=query) as answer:
        replayed = b"".join(chunk(number, number) for number in range(first, 4))
        assert await answer.read() == replayed + end("i", "s")


@pytest.mark.parametrize(
    "position", ["-1", "x", "1.0", "+1", "1 2", "0x1", "\u0661", "1e3", "9" * 40]
)
@pytest.mark.parametrize("place", ["Last-Event-ID", "starting_after"])
async def test_a_position_that_is_no_sequence_number_is_refused_and_named(
    serve: Serve, session: Session, place: str, position: str
) -> None:
    server = await serve(agent_of(each))
    url = f"{server.http}/invocations"
    await run(server, session, "i", [1, 2, 3])
    in_header = place == "Last-Event-ID"
    headers = {**SSE, "Last-Event-ID": position} if in_header else SSE
    query = {"starting_after": "1" if in_header else position}
    async with session.get(f"{url}/i", headers=headers, params=query) as answer:
        error = await refusal(answer, 400, "invalid_request")
        assert error["source"] == "user"
        assert place in error["message"]


@pytest.mark.parametrize("value", [{"a": "é"}, None, 0])
async def test_attaching_to_a_coroutine_gets_its_value(
    serve: Serve, session: Session, value: Any
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    url = f"{server.http}/invocations"
    async with session.post(url, data=json.dumps(value), headers=named("i", **ASYNC)):
        pass
    result = b"id: end\nevent: result\ndata: %b\n\n" % msgspec.json.encode(value)
    async with session.get(f"{url}/i", headers=SSE) as answer:  # while it runs
        gate.opened.set()
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert await answer.read() == result
    for query in ("", "?starting_after=7"):  # and when it has ended
        async with session.get(f"{url}/i{query}", headers=SSE) as answer:
            assert (answer.status, await answer.read()) == (200, result)


@pytest.mark.parametrize("streams", [False, True])
async def test_attaching_to_a_failure_gets_the_error(
    serve: Serve, session: Session, streams: bool
) -> None:
    async def fail(payload: Any, context: InvocationContext) -> None:
        raise InvocationError("no_luck", "Unlucky", status=418)

    async def fail_late(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield 1
        raise InvocationError("no_luck", "Unlucky", status=418)

    server = await serve(agent_of(fail_late if streams else fail))
    url = f"{server.http}/invocations"
    await run(server, session, "i")
    async with session.get(f"{url}/i", headers=SSE) as answer:
        assert answer.status == 200
        replayed = chunk(1, 1) if streams else b""
        assert await answer.read() == replayed + failure("no_luck", "Unlucky", "user")


# --- the end, and beyond it -------------------------------------------------------------------


async def test_beyond_the_end_nothing_is_replayed_and_the_end_is_told(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    await begin(server, session, "i", ["a", "b"], session_id="s")
    await soon(gate.entered)
    async with session.get(f"{url}/i?starting_after=10", headers=SSE) as answer:
        assert answer.status == 200
        gate.opened.set()
        assert await answer.read() == end("i", "s")


SEEN_THE_END = {**SSE, "Last-Event-ID": "end"}


async def raising(payload: Any, context: InvocationContext) -> None:
    raise InvocationError("no_luck", "")


@pytest.mark.parametrize("function", [each, echo, raising])
async def test_who_has_seen_the_end_comes_to_rest(
    serve: Serve, session: Session, function: InvokeHandler
) -> None:
    server = await serve(agent_of(function))
    url = f"{server.http}/invocations"
    await begin(server, session, "i", [1])
    await ended(server, session, "i")
    for query in ("", "?starting_after=1"):
        async with session.get(f"{url}/i{query}", headers=SEEN_THE_END) as answer:
            assert (answer.status, await answer.read()) == (204, b"")
            assert answer.headers["x-agent-invocation-id"] == "i"
    async with session.get(f"{url}/i", headers={"Last-Event-ID": "end"}) as answer:
        assert (await answer.json())["invocation_id"] == "i"  # no event stream was asked for
    async with session.get(f"{url}/j", headers=SEEN_THE_END) as answer:
        await refusal(answer, 404, "not_found")


async def test_who_knows_the_last_chunk_gets_the_end(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each))
    url = f"{server.http}/invocations"
    await run(server, session, "i", [1, 2], session_id="s")
    async with session.get(f"{url}/i", headers={**SSE, "Last-Event-ID": "2"}) as answer:
        assert (answer.status, await answer.read()) == (200, end("i", "s"))


async def test_the_end_of_what_runs_cannot_have_been_seen(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    await begin(server, session, "i", ["a"])
    await soon(gate.entered)
    async with session.get(f"{url}/i", headers=SEEN_THE_END) as answer:
        assert "Last-Event-ID" in (await refusal(answer, 400, "invalid_request"))["message"]
    async with session.get(f"{url}/i?starting_after=end", headers=SSE) as answer:
        assert "starting_after" in (await refusal(answer, 400, "invalid_request"))["message"]


# --- gaps -------------------------------------------------------------------------------------


async def test_what_is_no_longer_held_is_a_gap(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each), invocations={"replay_bytes": 3})
    url = f"{server.http}/invocations"
    await run(server, session, "i", [1, 2, 3, 4, 5], session_id="s")
    for query in ("", "?starting_after=1"):
        async with session.get(f"{url}/i{query}", headers=SSE) as answer:
            error = await refusal(answer, 410, "replay_gap")
            assert (error["first_available"], error["source"]) == (3, "user")
            assert answer.headers["x-agent-invocation-id"] == "i"
    async with session.get(f"{url}/i?starting_after=2", headers=SSE) as answer:
        chunks = b"".join(chunk(number, number) for number in (3, 4, 5))
        assert await answer.read() == chunks + end("i", "s")


async def test_a_gap_where_nothing_at_all_is_held_tells_the_next_number(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(each), invocations={"replay_bytes": 3})
    url = f"{server.http}/invocations"
    await run(server, session, "i", ["long"], session_id="s")
    async with session.get(f"{url}/i", headers=SSE) as answer:
        assert (await refusal(answer, 410, "replay_gap"))["first_available"] == 2
    async with session.get(f"{url}/i?starting_after=1", headers=SSE) as answer:
        assert await answer.read() == end("i", "s")


async def test_who_falls_behind_is_told_by_an_event_that_is_no_end(
    serve: Serve, session: Session
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        while True:
            await turns.acquire()
            yield "x" * 16 * KIB

    turns = asyncio.Semaphore(0)
    server = await serve(agent_of(invoke), invocations={"replay_bytes": 64 * KIB})
    url = f"{server.http}/invocations"
    await begin(server, session, "i")
    async with HttpPeer.connect(server, receive_buffer=4096, limit=MIB) as slow:
        slow.request("GET /invocations/i", "Accept: text/event-stream", "Connection: close")
        await slow.head()
        slow.stop_reading()
        slow.narrow_the_way_back()
        async with session.get(f"{url}/i", headers=SSE) as answer:
            for _ in range(100):
                turns.release()
                assert b"event: stream_chunk" in await event(answer)
        slow.read_again()
        told = await slow.rest()
    assert b'\r\nevent: error\ndata: {"error":{"code":"replay_gap"' in told
    assert b'"retryable":false,"source":"user","first_available":' in told
    assert b"id: end" not in told
