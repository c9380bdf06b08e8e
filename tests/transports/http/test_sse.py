"""Event streams, byte for byte: what a generator yields, how it fails, and its silences (§5)."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from agentws import InvocationContext, InvocationError
from tests.conftest import LogLines, Serve
from tests.support.agents import Gate, Raiser, agent_of, each, soon
from tests.support.http_client import KIB, MIB, SSE, Session, chunk, end, event, failure, named
from tests.support.peers import HttpPeer


async def test_a_generator_is_an_event_stream_byte_for_byte(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each))
    values: list[Any] = [{"token": "é"}, None, "two\nlines\r\n\u2028", [1, 2.5], {}, ""]
    url = f"{server.http}/invocations?agent_session_id=s"
    async with session.post(url, json=values, headers=named("i")) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert answer.headers["Cache-Control"] == "no-cache, no-transform"
        assert await answer.read() == b"".join(
            [*(chunk(number, value) for number, value in enumerate(values, 1)), end("i", "s")]
        )


async def test_an_empty_generator_is_its_end_alone(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each))
    url = f"{server.http}/invocations?agent_session_id=s"
    async with session.post(url, json=[], headers=named("i")) as answer:
        assert await answer.read() == end("i", "s")


async def test_the_headers_go_out_before_the_first_chunk(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream_late))
    url = f"{server.http}/invocations"
    async with session.post(url, json=[1]) as answer:
        assert answer.status == 200
        invocation_id = answer.headers["x-agent-invocation-id"]
        async with session.post(f"{url}/{invocation_id}/cancel") as cancelled:
            assert (await cancelled.json())["status"] == "cancelled"
        assert (await event(answer)).startswith(b"id: end\nevent: error\n")


async def test_a_chunk_goes_out_when_it_is_made(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations?agent_session_id=s"
    async with session.post(url, json=["a", "b"], headers=named("i")) as answer:
        assert await event(answer) == chunk(1, "a")
        await soon(gate.entered)
        gate.opened.set()
        assert await answer.read() == chunk(2, "b") + end("i", "s")


async def test_a_value_with_line_breaks_in_its_json_is_one_event(
    serve: Serve, session: Session
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield msgspec.Raw(b'{\n  "a": 1,\r\n\r\n  "b": 2\n}')
        yield 3

    server = await serve(agent_of(invoke))
    url = f"{server.http}/invocations?agent_session_id=s"
    async with session.post(url, headers=named("i")) as answer:
        events = (await answer.read()).split(b"\n\n")
    first, second, last, rest = events
    fields = [line.partition(b": ") for line in re.split(rb"\r\n|\r|\n", first)]
    assert {name for name, _, _ in fields} == {b"id", b"event", b"data"}
    assert json.loads(b"\n".join(value for name, _, value in fields if name == b"data")) == {
        "a": 1,
        "b": 2,
    }
    assert (second + b"\n\n", last + b"\n\n", rest) == (chunk(2, 3), end("i", "s"), b"")


async def test_a_large_stream_arrives_whole_and_in_order(serve: Serve, session: Session) -> None:
    """Far more than is held for replay, and than any buffer takes at once."""

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "x" * MIB
        for number in range(20_000):
            yield number

    server = await serve(agent_of(invoke), invocations={"replay_bytes": 4 * KIB})
    url = f"{server.http}/invocations?agent_session_id=s"
    async with session.post(url, headers=named("i")) as answer:
        body = await answer.read()
    numbers = b"".join(chunk(number + 2, number) for number in range(20_000))
    assert body == chunk(1, "x" * MIB) + numbers + end("i", "s")


async def test_an_event_stream_ends_the_connection_of_http_1_0(serve: Serve) -> None:
    server = await serve(agent_of(each))
    for line, body in (("POST /invocations", b"[1,2]"), ("GET /invocations/i", b"")):
        async with HttpPeer.connect(server) as peer:
            peer.writer.write(
                f"{line} HTTP/1.0\r\nConnection: keep-alive\r\nAccept: text/event-stream\r\n"
                f"x-agent-invocation-id: i\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            received = await peer.rest()
        assert received.startswith(b"HTTP/1.0 200 OK\r\n")
        assert b"event: stream_end" in received


@pytest.mark.parametrize("chunks", [[], [1, 2]], ids=["before the first chunk", "after two"])
async def test_a_failure_of_a_stream_is_an_event(
    serve: Serve, session: Session, chunks: list[int]
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        for value in payload:
            yield value
        raise InvocationError("no_luck", "Ünlucky", status=418)

    server = await serve(agent_of(invoke))
    async with session.post(f"{server.http}/invocations", json=chunks) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        sent = b"".join(chunk(number, number) for number in chunks)
        assert await answer.read() == sent + failure("no_luck", "Ünlucky", "user")


@pytest.mark.parametrize(
    "fault",
    [
        lambda: RuntimeError("secret"),
        lambda: SystemExit("secret"),
        lambda: TimeoutError("secret"),
        lambda: asyncio.CancelledError("secret"),
        lambda: UnicodeDecodeError("utf-8", b"secret", 0, 1, "secret"),
    ],
)
async def test_an_exception_of_a_stream_is_an_event_that_tells_nothing(
    serve: Serve, session: Session, log_lines: LogLines, fault: Raiser
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield 1
        raise fault()

    server = await serve(agent_of(invoke))
    async with session.post(f"{server.http}/invocations") as answer:
        body = await answer.read()
    assert body == chunk(1, 1) + failure("internal_error", "Internal server error", "upstream")
    line = await log_lines.next("agentws.invocations")
    assert line.exc_info is not None
    assert "secret" in repr(line.exc_info[1])


# --- keep-alive -------------------------------------------------------------------------------


async def test_silence_is_filled_with_comments(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), http={"sse_keepalive_interval": 0.05})
    url = f"{server.http}/invocations"
    headers = named("i")
    async with session.post(
        f"{url}?agent_session_id=s", json=["a", "b"], headers=headers
    ) as answer:
        assert await event(answer) == chunk(1, "a")
        comments = [await event(answer) for _ in range(3)]
        async with session.get(f"{url}/i?starting_after=1", headers=SSE) as attached:
            comments.append(await event(attached))
        assert all(re.fullmatch(rb":[^\r\n]*\n\n", comment) for comment in comments)
        gate.opened.set()
        rest = await answer.read()
    while rest.startswith(b":"):  # one more may have been on its way
        rest = rest.partition(b"\n\n")[2]
    assert rest == chunk(2, "b") + end("i", "s")


@pytest.mark.parametrize("interval", [0.0, 60.0])
async def test_without_a_keep_alive_silence_is_silence(
    serve: Serve, session: Session, interval: float
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        await asyncio.sleep(0.2)
        yield 1

    server = await serve(agent_of(invoke), http={"sse_keepalive_interval": interval})
    async with session.post(
        f"{server.http}/invocations?agent_session_id=s", headers=named("i")
    ) as answer:
        assert await answer.read() == chunk(1, 1) + end("i", "s")
