"""Invocations over HTTP, on the wire: invoke, poll, attach, cancel (§5, §6, §7)."""

import asyncio
import contextlib
import gzip
import io
import json
import re
import socket
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from yarl import URL

from agentws import Agent, InvocationContext, InvocationError, __version__
from agentws.agent.handlers import InvokeHandler
from tests.conftest import PATIENCE, LogLines, Running, Serve
from tests.support.peers import HttpPeer

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
Session = aiohttp.ClientSession

KIB = 1024
MIB = 1024**2

SSE = {"Accept": "text/event-stream"}
JSON = {"Accept": "application/json"}
ASYNC = {"Prefer": "respond-async"}


def named(invocation_id: str, **more: str) -> dict[str, str]:
    """Headers that bring the invocation's id along."""
    return {"x-agent-invocation-id": invocation_id, **more}


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    timeout = aiohttp.ClientTimeout(total=2 * PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


def agent_of(function: InvokeHandler) -> Agent:
    agent = Agent()
    agent.invoke_handler(function)
    return agent


async def echo(payload: Any, context: InvocationContext) -> Any:
    return payload


async def each(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    """Stream what the payload lists."""
    for value in payload:
        yield value


class Gate:
    """A handler that returns its payload when it is let go, and tells when it was cancelled."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, payload: Any, _context: InvocationContext) -> Any:
        await self.passed()
        return payload

    async def passed(self) -> None:
        """Wait at the gate."""
        self.entered.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def stream(self, payload: Any, _: InvocationContext) -> AsyncGenerator[Any, None]:
        """A handler that streams the payload's first value, then the rest when it is let go."""
        first, *rest = payload
        yield first
        await self.passed()
        for value in rest:
            yield value

    async def stream_late(self, payload: Any, _: InvocationContext) -> AsyncGenerator[Any, None]:
        """A handler that streams nothing until it is let go."""
        await self.passed()
        for value in payload:
            yield value


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        await event.wait()


Raiser = Callable[[], BaseException]


async def stubborn_until(end: asyncio.Event) -> None:
    """Swallow every cancellation until `end`."""
    while not end.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await end.wait()


def chunk(number: int, value: Any) -> bytes:
    """The event of a chunk, byte for byte."""
    data = msgspec.json.encode(value)
    return b"id: %d\nevent: stream_chunk\ndata: %b\n\n" % (number, data)


def end(invocation_id: str, session_id: str) -> bytes:
    """The event of a stream's end, byte for byte."""
    ids = {"invocation_id": invocation_id, "session_id": session_id}
    return b"id: end\nevent: stream_end\ndata: %b\n\n" % msgspec.json.encode(ids)


def failure(code: str, message: str, source: str, *, retryable: bool = False) -> bytes:
    """The event of a failure, byte for byte."""
    error = {"code": code, "message": message, "retryable": retryable, "source": source}
    return b"id: end\nevent: error\ndata: %b\n\n" % msgspec.json.encode({"error": error})


async def event(answer: aiohttp.ClientResponse) -> bytes:
    """Return the next event of a stream."""
    async with asyncio.timeout(PATIENCE):
        return await answer.content.readuntil(b"\n\n")


async def refusal(answer: aiohttp.ClientResponse, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is this error, with all that goes with it, and return the error."""
    assert (answer.status, answer.content_type) == (status, "application/json")
    body = await answer.json()
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() - {"first_available"} == {"code", "message", "retryable", "source"}
    assert (error["code"], error["retryable"]) == (code, status in (429, 503, 504))
    assert answer.headers["x-platform-error-source"] == error["source"]
    assert ("Retry-After" in answer.headers) == (status in (429, 503))
    assert isinstance(error, dict)
    return error


async def record_of(
    server: Running,
    session: Session,
    invocation_id: str,
    headers: Mapping[str, str] = {},
) -> Any:
    url = f"{server.http}/invocations/{invocation_id}"
    async with session.get(url, headers=headers) as answer:
        assert answer.status == 200
        return await answer.json()


async def ended(server: Running, session: Session, invocation_id: str) -> Any:
    """Follow an invocation to its end and return its record."""
    url = f"{server.http}/invocations/{invocation_id}"
    async with session.get(url, headers=SSE) as answer:
        await answer.read()
    return await record_of(server, session, invocation_id)


# --- POST: a coroutine ------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"null", b'"\\u00e9"', b'{"a":[1,2.5,true]}', b"[]", b"0"])
@pytest.mark.parametrize("headers", [{}, JSON, SSE, {"Accept": "text/html"}], ids=str)
async def test_a_coroutine_answers_with_its_value(
    serve: Serve, session: Session, body: bytes, headers: dict[str, str]
) -> None:
    server = await serve(agent_of(echo))
    async with session.post(f"{server.http}/invocations", data=body, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert json.loads(await answer.read()) == json.loads(body)


async def test_an_empty_body_is_an_empty_object(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    async with session.post(f"{server.http}/invocations") as answer:
        assert await answer.read() == b"{}"
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations")
        assert (await peer.answer())[2] == b"{}"
        peer.request("POST /invocations", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")
        assert (await peer.answer())[2] == b"{}"


@pytest.mark.parametrize(
    "content_type", ["text/plain; charset=utf-16", "application/x-www-form-urlencoded", "nonsense"]
)
async def test_the_content_type_of_the_body_is_not_looked_at(
    serve: Serve, session: Session, content_type: str
) -> None:
    server = await serve(agent_of(echo))
    headers = {"Content-Type": content_type}
    url = f"{server.http}/invocations"
    async with session.post(url, data=b'{"a": "\xc3\xa9"}', headers=headers) as answer:
        assert await answer.json() == {"a": "é"}


async def test_what_the_handler_knows_of_the_request(serve: Serve, session: Session) -> None:
    seen: list[InvocationContext] = []
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        seen.append(context)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> None:
        seen.append(context)

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> None:
        seen.append(context)

    server = await serve(agent)
    headers = {
        "X-Client-Locale": "de",
        "x-client-": "bare",
        "x-agent-user-id": "ann",
        "x-agent-foundry-call-id": "call",
        "x-request-id": "req",
    }
    query = "?agent_session_id=s&a=1"
    url = f"{server.http}/invocations"
    async with session.post(url + query, headers=named("i", **headers)):
        pass
    async with session.get(f"{url}/i{query}", headers=headers):
        pass
    async with session.post(f"{url}/i/cancel{query}", headers=headers):
        pass
    assert len(seen) == 3
    for context in seen:
        assert msgspec.structs.astuple(context)[:8] == (
            "i",
            "s",
            "http",
            {"x-client-locale": "de", "x-client-": "bare"},
            {"agent_session_id": "s", "a": "1"},
            "ann",
            "call",
            "req",
        )


async def test_a_request_that_says_nothing_of_its_sender(serve: Serve, session: Session) -> None:
    seen: list[InvocationContext] = []

    async def invoke(payload: Any, context: InvocationContext) -> None:
        seen.append(context)

    server = await serve(agent_of(invoke))
    empty = {"x-agent-user-id": "", "x-agent-foundry-call-id": ""}
    async with session.post(f"{server.http}/invocations", headers=empty) as answer:
        (context,) = seen
        assert context.request_id == answer.headers["x-request-id"]
    assert (context.user_id, context.call_id) == (None, None)
    assert (context.client_headers, context.query) == ({}, {})


# --- POST: a generator ------------------------------------------------------------------------


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


# --- POST: what the client accepts ------------------------------------------------------------


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
            async with asyncio.timeout(PATIENCE):
                head = await peer.reader.readuntil(b"\r\n\r\n")
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


# --- POST: Prefer: respond-async (RFC 7240) ---------------------------------------------------


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
    async with session.post(
        f"{server.http}/invocations", json=[1], headers=named("i", **ASYNC)
    ) as answer:
        assert answer.status == 202
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


# --- the record -------------------------------------------------------------------------------


def is_recent(time: str) -> bool:
    """Whether a text is a time of RFC 3339 in UTC, within the last minute."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", time)
    age = datetime.now(UTC) - datetime.fromisoformat(time)
    return timedelta(seconds=-1) < age < timedelta(minutes=1)


async def test_the_record_of_a_coroutine(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    for payload in ({"a": [1]}, False, None):
        body = json.dumps(payload)
        async with session.post(f"{server.http}/invocations", data=body) as answer:
            invocation_id = answer.headers["x-agent-invocation-id"]
            session_id = answer.headers["x-agent-session-id"]
        record = await record_of(server, session, invocation_id)
        assert is_recent(record.pop("created_at"))
        assert is_recent(record.pop("finished_at"))
        result = {} if payload is None else {"result": payload}
        assert record == {
            "invocation_id": invocation_id,
            "session_id": session_id,
            "status": "completed",
            **result,
        }


async def test_the_record_of_a_failure(serve: Serve, session: Session) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        raise RuntimeError("secret")

    server = await serve(agent_of(invoke))
    async with session.post(f"{server.http}/invocations", headers=named("i")):
        pass
    record = await record_of(server, session, "i")
    assert record.keys() == {
        "invocation_id",
        "session_id",
        "status",
        "created_at",
        "finished_at",
        "error",
    }
    assert record["status"] == "failed"
    assert record["error"] == {"code": "internal_error", "message": "Internal server error"}


async def test_the_record_of_a_stream_tells_what_is_held(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each), invocations={"replay_bytes": 4})
    for values, first, last in (
        ([], 1, 0),
        ([1], 1, 1),
        ([1, 2, 3, 4, 5], 2, 5),
        ([1, 10_000], 3, 2),
    ):
        async with session.post(f"{server.http}/invocations", json=values) as answer:
            await answer.read()
            invocation_id = answer.headers["x-agent-invocation-id"]
        record = await record_of(server, session, invocation_id)
        assert record["status"] == "completed"
        assert record["stream"] == {"first_available": first, "last_sequence_number": last}
        assert "result" not in record


async def test_a_record_is_gone_when_its_time_is_over(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo), invocations={"retention": 0.0})
    url = f"{server.http}/invocations"
    for _ in range(2):
        async with session.post(url, json=1, headers=named("i")) as answer:
            assert answer.status == 200
        for headers in ({}, SSE):
            async with session.get(f"{url}/i", headers=headers) as answer:
                await refusal(answer, 404, "not_found")


async def test_a_poll_by_head_tells_the_headers_alone(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    url = f"{server.http}/invocations"
    async with session.post(url, headers=named("i", **ASYNC)):
        pass
    for headers in ({}, SSE):
        async with session.head(f"{url}/i", headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.headers["x-agent-invocation-id"] == "i"
    async with session.head(f"{url}/other") as answer:
        assert answer.status == 404


# --- identifiers and sessions (§2) ------------------------------------------------------------

NO_IDS = [".", "..", "a" * 257, "a b", "a/b", "é", "a%20b", "a,b"]


@pytest.mark.parametrize("invocation_id", ["A-Za.z_0:9", "a" * 256, ".a", "..."[:2] + "-"])
async def test_the_id_of_the_header_names_the_invocation(
    serve: Serve, session: Session, invocation_id: str
) -> None:
    server = await serve(agent_of(echo))
    url = f"{server.http}/invocations"
    async with session.post(url, json=1, headers=named(invocation_id)) as answer:
        assert (answer.status, await answer.json()) == (200, 1)
        assert answer.headers["x-agent-invocation-id"] == invocation_id
    async with session.get(URL(f"{url}/{invocation_id}", encoded=True)) as answer:
        assert answer.headers["x-agent-invocation-id"] == invocation_id
        assert (await answer.json())["invocation_id"] == invocation_id


async def test_without_an_id_a_new_one_is_made(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    ids = set()
    for headers in ({}, named("")):
        async with session.post(f"{server.http}/invocations", headers=headers) as answer:
            ids.add(answer.headers["x-agent-invocation-id"])
    assert len(ids) == 2
    assert all(map(UUID.fullmatch, ids))


@pytest.mark.parametrize("invocation_id", NO_IDS)
async def test_a_malformed_id_in_the_header_is_refused_and_named(
    serve: Serve, session: Session, invocation_id: str
) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", f"x-agent-invocation-id: {invocation_id}")
        status, headers, body = await peer.answer()
    assert (status, headers["x-platform-error-source"]) == (400, "user")
    error = json.loads(body)["error"]
    assert error["code"] == "invalid_request"
    assert "x-agent-invocation-id" in error["message"]


@pytest.mark.parametrize("template", ["GET {}", "POST {}/cancel"])
@pytest.mark.parametrize(
    "path", ["..", ".", "%2e%2E", "a%2Fb", "a%20b", "a%0A", "%ff", "%", "%C3%A9", "a;b", "a" * 257]
)
async def test_a_malformed_id_in_the_path_is_refused(
    serve: Serve, template: str, path: str
) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        peer.request(template.format(f"/invocations/{path}"))
        status, headers, body = await peer.answer()
    assert (status, headers["x-platform-error-source"]) == (400, "user")
    assert json.loads(body)["error"]["code"] == "invalid_request"
    assert UUID.fullmatch(headers["x-request-id"])


async def test_an_escaped_id_in_the_path_is_the_id(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with session.post(f"{server.http}/invocations", headers=named("a:b", **ASYNC)):
        pass
    async with HttpPeer.connect(server) as peer:
        peer.request("GET /invocations/%61%3Ab")
        status, headers, body = await peer.answer()
        assert (status, headers["x-agent-invocation-id"]) == (200, "a:b")
        assert json.loads(body)["invocation_id"] == "a:b"
        peer.request("POST /invocations/a%3ab/cancel")
        status, _, body = await peer.answer()
        assert (status, json.loads(body)["status"]) == (200, "cancelled")


async def test_a_document_of_the_daemon_hides_no_invocation(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    for name in ("docs", "cancel", "invocations_ws"):
        async with session.post(f"{server.http}/invocations", json=1, headers=named(name)):
            pass
        assert (await record_of(server, session, name))["result"] == 1


SESSIONS = [
    ("?agent_session_id=query", "configured", "query"),
    ("?agent_session_id=query", "", "query"),
    ("?agent_session_id=", "configured", "configured"),
    ("", "configured", "configured"),
    ("?agent_session_id=first&agent_session_id=second", "", "first"),
    ("?agent_session_id=", "", None),
    ("", "", None),
]


@pytest.mark.parametrize(("query", "configured", "expected"), SESSIONS)
async def test_the_session_is_the_querys_else_the_configured_else_new(
    serve: Serve,
    session: Session,
    query: str,
    configured: str,
    expected: str | None,
) -> None:
    sessions: list[str] = []
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        sessions.append(context.session_id)

    server = await serve(agent, agent={"session_id": configured})
    for _ in range(2):
        async with session.post(f"{server.http}/invocations{query}") as answer:
            assert answer.headers["x-agent-session-id"] == sessions[-1]
            invocation_id = answer.headers["x-agent-invocation-id"]
        record = await record_of(server, session, invocation_id)
        assert record["session_id"] == sessions[-1]
    if expected is not None:
        assert set(sessions) == {expected}
    else:
        assert len(set(sessions)) == 2
        assert all(map(UUID.fullmatch, sessions))


@pytest.mark.parametrize("asked", ["a/b", "..", "a" * 257, "%C3%A9", "%ff", "a+b"])
@pytest.mark.parametrize(
    "line", ["POST /invocations", "GET /invocations/i", "POST /invocations/i/cancel"]
)
async def test_a_malformed_session_is_refused_and_named(
    serve: Serve, asked: str, line: str
) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        peer.request(f"{line}?agent_session_id={asked}")
        status, _, body = await peer.answer()
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (400, "invalid_request")
    assert "agent_session_id" in error["message"]


# --- the headers of every answer (§1) ---------------------------------------------------------


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


# --- bodies that are refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"{",
        b'{"a": 1} 2',
        b" ",
        b"NaN",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"1e999",
        b'{"a": [-1e999]}',
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'"\\ud800\\ud800"',
        b'"\xff"',
        b'{"\xff": 1}',
        b'"\xed\xa0\x80"',
        b"\xff",
        b'"a\nb"',
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_what_is_not_json_is_refused(serve: Serve, session: Session, body: bytes) -> None:
    server = await serve(agent_of(echo))
    url = f"{server.http}/invocations"
    async with session.post(url, data=body) as answer:
        assert (await refusal(answer, 400, "invalid_json"))["source"] == "user"
    async with session.post(url, json=1) as answer:
        assert await answer.json() == 1


def raw_deflate(data: bytes) -> bytes:
    """Compress without zlib's head, as many do who say deflate."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("x-gzip", gzip.compress),
        (
            "gzip",
            lambda data: gzip.compress(data[:5]) + gzip.compress(b"") + gzip.compress(data[5:]),
        ),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("", bytes),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
async def test_a_body_may_come_compressed(
    serve: Serve, session: Session, coding: str, encode: Callable[[bytes], bytes], size: int
) -> None:
    server = await serve(agent_of(echo))
    url, headers = f"{server.http}/invocations", {"Content-Encoding": coding}
    body = encode(text_of(LIMIT))
    for data in (body, in_parts(body, size)):
        async with session.post(url, data=data, headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, text_of(LIMIT))
    async with session.post(url, data=b"", headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, b"{}")


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(b"[1]") + 2000 * gzip.compress(b"")),  # each takes time
        ("gzip", gzip.compress(b"[1]")[:-8]),
        ("gzip", gzip.compress(b"[1]")[:-1]),
        ("gzip", gzip.compress(b"[1]")[:1]),
        ("gzip", gzip.compress(b"[1]")[:-8] + bytes(8)),
        ("gzip", gzip.compress(b"[1]") + b"more"),
        ("gzip", zlib.compress(b"[1]")),
        ("deflate", zlib.compress(b"[1]")[:-4]),
        ("deflate", raw_deflate(b"[1]")[:-1]),
        ("deflate", zlib.compress(b"[1]") + b"more"),
        ("deflate", gzip.compress(b"[1]")),
    ],
)
async def test_a_body_that_cannot_be_decompressed_is_the_callers_fault(
    serve: Serve, session: Session, coding: str, body: bytes
) -> None:
    server = await serve(agent_of(echo))
    url, headers = f"{server.http}/invocations", {"Content-Encoding": coding}
    async with session.post(url, data=body, headers=headers) as answer:
        assert (await refusal(answer, 400, "invalid_request"))["source"] == "user"


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "x", "\xff"])
async def test_an_encoding_that_is_not_known_is_refused(serve: Serve, coding: str) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        for _ in range(2):
            headers = (f"Content-Encoding: {coding}", "Content-Length: 2")
            peer.request("POST /invocations", *headers, body=b"{}")
            status, told, body = await peer.answer()
            assert (status, told["accept-encoding"]) == (415, "gzip, deflate")
            assert UUID.fullmatch(told["x-request-id"])
            error = json.loads(body)["error"]
            assert (error["code"], error["source"]) == ("unsupported_media_type", "user")


LIMIT = 1000


def text_of(size: int) -> bytes:
    """A JSON text of this many bytes."""
    return b'"' + b"x" * (size - 2) + b'"'


async def in_parts(body: bytes, size: int = 300) -> AsyncIterator[bytes]:
    """Make a request chunked."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_may_be_as_large_as_the_limit_and_no_larger(
    serve: Serve, session: Session, is_chunked: bool
) -> None:
    server = await serve(agent_of(echo), http={"max_body_size": LIMIT})
    url = f"{server.http}/invocations"
    for size, status in ((LIMIT, 200), (LIMIT + 1, 413), (50 * LIMIT, 413)):
        body = text_of(size)
        data = in_parts(body) if is_chunked else body
        async with session.post(url, data=data) as answer:
            if status == 200:
                assert (answer.status, await answer.read()) == (200, body)
            else:
                error = await refusal(answer, 413, "payload_too_large")
                assert error["source"] == "user"
                assert str(LIMIT) in error["message"]


async def test_a_body_may_be_larger_than_what_aiohttp_takes_by_default(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(echo), http={"max_body_size": 3 * MIB})
    for data in (io.BytesIO(text_of(3 * MIB)), in_parts(text_of(2 * MIB), 64 * KIB)):
        async with session.post(f"{server.http}/invocations", data=data) as answer:
            assert answer.status == 200


async def test_a_body_of_a_length_past_the_limit_is_refused_before_it_is_sent(
    serve: Serve,
) -> None:
    server = await serve(agent_of(echo), http={"max_body_size": LIMIT})
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "Content-Length: 1000000000000")
        status, headers, body = await peer.answer()
    assert (status, headers["x-platform-error-source"]) == (413, "user")
    assert json.loads(body)["error"]["code"] == "payload_too_large"


async def test_a_body_that_never_ends_is_refused_when_it_is_too_large(serve: Serve) -> None:
    server = await serve(agent_of(echo), http={"max_body_size": LIMIT})
    async with HttpPeer.connect(server) as peer:
        body = b"%x\r\n%b\r\n" % (LIMIT + 1, b"x" * (LIMIT + 1))
        peer.request("POST /invocations", "Transfer-Encoding: chunked", body=body)
        assert (await peer.answer())[0] == 413


async def test_a_small_body_that_is_large_once_decompressed_is_refused(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(echo), http={"max_body_size": 4 * LIMIT})
    body = gzip.compress(text_of(MIB))
    assert len(body) < 4 * LIMIT
    url = f"{server.http}/invocations"
    async with session.post(url, data=body, headers={"Content-Encoding": "gzip"}) as answer:
        await refusal(answer, 413, "payload_too_large")


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_that_only_seems_small_is_refused_as_compressed(
    serve: Serve, session: Session, is_chunked: bool
) -> None:
    server = await serve(agent_of(echo), http={"max_body_size": LIMIT})
    body = gzip.compress(b"") * LIMIT
    data = in_parts(body) if is_chunked else body
    url = f"{server.http}/invocations"
    async with session.post(url, data=data, headers={"Content-Encoding": "gzip"}) as answer:
        await refusal(answer, 413, "payload_too_large")


async def test_a_client_that_leaves_amid_its_body_starts_nothing(
    serve: Serve, session: Session
) -> None:
    calls: list[Any] = []

    async def invoke(payload: Any, context: InvocationContext) -> None:
        calls.append(payload)

    server = await serve(agent_of(invoke))
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "Content-Length: 10", body=b"[1]")
        await peer.writer.drain()
    async with session.post(f"{server.http}/invocations", json=2) as answer:
        assert answer.status == 200
    assert calls == [2]


# --- the rows of §7 ---------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, SSE], ids=str)
async def test_an_unknown_invocation_is_not_found(
    serve: Serve, session: Session, headers: dict[str, str]
) -> None:
    server = await serve(agent_of(echo))
    url = f"{server.http}/invocations/none"
    async with session.get(url, headers=headers) as answer:
        assert (await refusal(answer, 404, "not_found"))["source"] == "user"
        assert answer.headers["x-agent-invocation-id"] == "none"
    async with session.post(f"{url}/cancel", headers=headers) as answer:
        await refusal(answer, 404, "not_found")
        assert answer.headers["x-agent-invocation-id"] == "none"


@pytest.mark.parametrize(
    ("path", "methods", "allowed"),
    [
        ("/invocations", "GET PUT DELETE PATCH HEAD OPTIONS", {"POST"}),
        ("/invocations/i", "POST PUT DELETE PATCH OPTIONS", {"GET", "HEAD"}),
        ("/invocations/i/cancel", "GET PUT DELETE PATCH HEAD OPTIONS", {"POST"}),
    ],
)
async def test_a_method_that_a_route_does_not_have_is_not_allowed(
    serve: Serve, session: Session, path: str, methods: str, allowed: set[str]
) -> None:
    server = await serve(agent_of(echo))
    for method in methods.split():
        async with session.request(method, server.http + path) as answer:
            assert answer.status == 405
            assert {name.strip() for name in answer.headers["Allow"].split(",")} == allowed
            if method != "HEAD":
                error = await refusal(answer, 405, "method_not_allowed")
                assert error["source"] == "user"


@pytest.mark.parametrize("path", ["/invocations//", "/invocations/i//", "/invocations/i/cancel/x"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_route_that_is_not_there(
    serve: Serve, session: Session, path: str, method: str
) -> None:
    server = await serve(agent_of(echo))
    async with session.request(method, server.http + path) as answer:
        await refusal(answer, 404, "not_found")


async def test_an_id_that_is_held_is_refused_and_nothing_is_run(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    calls: list[Any] = []

    async def invoke(payload: Any, context: InvocationContext) -> None:
        calls.append(payload)
        await gate.passed()

    server = await serve(agent_of(invoke))
    url = f"{server.http}/invocations"
    async with session.post(url, json="first", headers=named("i", **ASYNC)) as answer:
        assert answer.status == 202
    for headers in (named("i"), named("i", **SSE), named("i", **{"x-agent-user-id": "ann"})):
        async with session.post(url, json="running", headers=headers) as answer:
            assert (await refusal(answer, 409, "already_exists"))["source"] == "user"
    gate.opened.set()
    await ended(server, session, "i")
    async with session.post(url, json="ended", headers=named("i")) as answer:
        await refusal(answer, 409, "already_exists")
    assert calls == ["first"]


async def test_what_has_ended_cannot_be_cancelled(serve: Serve, session: Session) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        match payload:
            case "fail":
                raise InvocationError("no_luck", "Unlucky")
            case "wait":
                await asyncio.Event().wait()
        return payload

    server = await serve(agent)
    url = f"{server.http}/invocations"
    for payload in ("return", "fail"):
        async with session.post(url, json=payload, headers=named(payload)):
            pass
    async with session.post(url, json="wait", headers=named("wait", **ASYNC)):
        pass
    async with session.post(f"{url}/wait/cancel") as answer:
        assert answer.status == 200
    for name in ("return", "fail", "wait"):
        before = await record_of(server, session, name)
        async with session.post(f"{url}/{name}/cancel") as answer:
            assert (await refusal(answer, 409, "already_finished"))["source"] == "user"
        assert await record_of(server, session, name) == before


async def test_too_many_invocations_are_refused_until_one_has_ended(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations={"max_running": 1})
    url = f"{server.http}/invocations"
    async with session.post(url, headers=named("i", **ASYNC)) as answer:
        assert answer.status == 202
    for headers in ({}, ASYNC):
        async with session.post(url, headers=headers) as answer:
            error = await refusal(answer, 429, "too_many_invocations")
            assert error["source"] == "platform"
            assert int(answer.headers["Retry-After"]) >= 0
            assert UUID.fullmatch(answer.headers["x-agent-session-id"])
    async with session.post(f"{url}/i/cancel"):
        pass
    async with session.post(url, headers=ASYNC) as answer:
        assert answer.status == 202


@asynccontextmanager
async def draining(server: Running) -> AsyncIterator["asyncio.Task[bool]"]:
    """Drain the server during the body, and wait for the end."""
    task = asyncio.create_task(server.server.drain())
    await asyncio.sleep(0)
    yield task
    async with asyncio.timeout(2 * PATIENCE):
        await task


async def test_while_it_drains_it_refuses_new_work_and_sees_to_the_old(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), server={"shutdown_grace": 2 * PATIENCE})
    url = f"{server.http}/invocations"
    for name in ("i", "j"):
        async with session.post(url, json=["a", "b"], headers=named(name, **ASYNC)):
            pass
    await soon(gate.entered)
    async with draining(server):
        for headers in ({}, JSON, ASYNC):
            async with session.post(url, json=["a"], headers=headers) as answer:
                error = await refusal(answer, 503, "shutting_down")
                assert (error["source"], error["retryable"]) == ("platform", True)
        assert (await record_of(server, session, "i"))["status"] == "running"
        async with session.post(f"{url}/j/cancel") as answer:
            assert await answer.json() == {"invocation_id": "j", "status": "cancelled"}
        async with session.get(f"{url}/i", headers={**SSE, "Last-Event-ID": "1"}) as answer:
            gate.opened.set()
            assert await event(answer) == chunk(2, "b")
            assert (await event(answer)).startswith(b"id: end\nevent: stream_end\n")


@pytest.mark.parametrize("streams", [False, True])
async def test_what_outlasts_the_grace_is_told_so(
    serve: Serve, session: Session, streams: bool
) -> None:
    gate = Gate()
    server = await serve(
        agent_of(gate.stream_late if streams else gate), server={"shutdown_grace": 0.1}
    )
    posting = asyncio.create_task(
        session.post(f"{server.http}/invocations", json=[], headers=named("i"))
    )
    await soon(gate.entered)
    async with draining(server) as drain:
        async with await posting as answer:
            if streams:
                assert (await answer.read()).startswith(
                    b'id: end\nevent: error\ndata: {"error":{"code":"shutting_down",'
                )
            else:
                await refusal(answer, 503, "shutting_down")
        assert await drain is True
    assert gate.cancelled.is_set()


async def test_a_timeout_is_told_to_all(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations={"timeout": 0.1})
    async with session.post(f"{server.http}/invocations", headers=named("i")) as answer:
        error = await refusal(answer, 504, "timeout")
        assert (error["source"], error["retryable"]) == ("upstream", True)
    record = await record_of(server, session, "i")
    assert (record["status"], record["error"]["code"]) == ("failed", "timeout")
    assert gate.cancelled.is_set()


async def test_a_timeout_of_a_stream_is_an_event(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), invocations={"timeout": 0.1})
    async with session.post(f"{server.http}/invocations", json=["a"]) as answer:
        assert await event(answer) == chunk(1, "a")
        assert (await answer.read()).startswith(
            b'id: end\nevent: error\ndata: {"error":{"code":"timeout","message":'
        )
    async with session.post(f"{server.http}/invocations", json=["a"], headers=JSON) as answer:
        await refusal(answer, 504, "timeout")


async def test_without_an_invoke_handler_nothing_can_be_invoked(
    serve: Serve, session: Session
) -> None:
    agent = Agent()

    @agent.ws_handler
    async def talk(ws: Any, context: InvocationContext) -> None:
        pass

    server = await serve(agent)
    async with session.post(f"{server.http}/invocations", json=1) as answer:
        assert (await refusal(answer, 501, "not_implemented"))["source"] == "upstream"
        assert UUID.fullmatch(answer.headers["x-agent-invocation-id"])
        assert UUID.fullmatch(answer.headers["x-agent-session-id"])


@pytest.mark.parametrize(
    ("error", "status", "source"),
    [
        (InvocationError("no_luck", "Ünlucky"), 400, "user"),
        (InvocationError("no_luck", "", status=499), 499, "user"),
        (InvocationError("no_luck", "Unlucky", status=500), 500, "upstream"),
        (InvocationError("no_luck", "Unlucky", status=429), 429, "user"),
        (InvocationError("no_luck", "Unlucky", status=503), 503, "upstream"),
        (InvocationError("no_luck", "Unlucky", status=599), 599, "upstream"),
        (InvocationError("not_found", "No such order"), 404, "user"),
        (InvocationError("timeout", "The model took too long"), 504, "upstream"),
        (InvocationError("not_found", "No such order", status=422), 422, "user"),
        (InvocationError("cancelled", "By the model"), 409, "user"),
        (InvocationError("too_many_invocations", "Of the model"), 429, "user"),
        (InvocationError("shutting_down", "The model"), 503, "upstream"),
        (InvocationError("store_unavailable", "The model's"), 503, "upstream"),
        (InvocationError("lost", "The model"), 502, "upstream"),
    ],
    ids=repr,
)
async def test_an_error_of_the_handlers_own_is_told_with_its_status(
    serve: Serve,
    session: Session,
    error: InvocationError,
    status: int,
    source: str,
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        raise error

    server = await serve(agent_of(invoke))
    async with session.post(f"{server.http}/invocations", headers=named("i")) as answer:
        told = await refusal(answer, status, error.code)
    assert (told["message"], told["source"]) == (error.message, source)
    record = await record_of(server, session, "i")
    assert (record["status"], record["error"]["code"]) == ("failed", error.code)
    async with session.get(f"{server.http}/invocations/i", headers=SSE) as answer:
        retryable = status in (429, 503, 504)
        event = failure(error.code, error.message, source, retryable=retryable)
        assert await answer.read() == event


@pytest.mark.parametrize("path", ["GET /invocations/i", "POST /invocations/i/cancel"])
async def test_a_handler_that_says_shutting_down_does_not_speak_for_the_daemon(
    serve: Serve, session: Session, path: str
) -> None:
    async def refuse(context: InvocationContext) -> None:
        raise InvocationError("shutting_down", "The model")

    agent = agent_of(echo)
    agent.get_invocation_handler(refuse)
    agent.cancel_invocation_handler(refuse)
    server = await serve(agent)
    method, route = path.split()
    async with session.request(method, server.http + route) as answer:
        assert (await refusal(answer, 503, "shutting_down"))["source"] == "upstream"


@pytest.mark.parametrize(
    "fault",
    [
        lambda: RuntimeError("secret"),
        lambda: TimeoutError("secret"),
        lambda: KeyboardInterrupt("secret"),
        lambda: SystemExit("secret"),
        lambda: ConnectionResetError("secret"),
        lambda: web.HTTPConflict(text="secret"),
        lambda: asyncio.CancelledError("secret"),
        lambda: ExceptionGroup("secret", [ValueError("secret")]),
    ],
)
async def test_an_internal_error_tells_nothing_but_to_the_log(
    serve: Serve, session: Session, log_lines: LogLines, fault: Raiser
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> None:
        if payload == "raise":
            raise fault()

    server = await serve(agent_of(invoke))
    url = f"{server.http}/invocations"
    async with session.post(url, json="raise") as answer:
        error = await refusal(answer, 500, "internal_error")
        assert (error["message"], error["source"]) == ("Internal server error", "upstream")
        assert "secret" not in str(answer.headers) + (await answer.text())
    line = await log_lines.next("agentws.invocations")
    assert line.exc_info is not None
    assert "secret" in repr(line.exc_info[1]) or "Conflict" in repr(line.exc_info[1])
    async with session.post(url) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("value", [object(), {"a": {1j}}, "\ud800", {(): 1}], ids=repr)
@pytest.mark.parametrize("role", ["invoke", "get", "cancel"])
async def test_a_value_that_json_cannot_hold_is_an_internal_error(
    serve: Serve, session: Session, value: object, role: str
) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> object:
        return value

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> object:
        return value

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> object:
        return value

    server = await serve(agent)
    url = f"{server.http}/invocations"
    answering = {
        "invoke": session.post(url),
        "get": session.get(f"{url}/i"),
        "cancel": session.post(f"{url}/i/cancel"),
    }
    async with answering[role] as answer:
        await refusal(answer, 500, "internal_error")
    for name in answering.keys() - {role}:
        answering[name].close()


# --- cancel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [False, True])
async def test_a_cancel_is_told_to_who_asked_and_to_who_listens(
    serve: Serve, session: Session, streams: bool
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream_late if streams else gate))
    url = f"{server.http}/invocations"
    posting = asyncio.create_task(session.post(url, json=[], headers=named("i")))
    await soon(gate.entered)
    async with session.post(f"{url}/i/cancel") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == {"invocation_id": "i", "status": "cancelled"}
        assert gate.cancelled.is_set()
    async with await posting as answer:
        if streams:
            assert (await answer.read()).startswith(
                b'id: end\nevent: error\ndata: {"error":{"code":"cancelled",'
            )
        else:
            assert (await refusal(answer, 409, "cancelled"))["source"] == "user"
    record = await record_of(server, session, "i")
    assert (record["status"], record["error"]["code"]) == ("cancelled", "cancelled")


async def test_a_cancel_that_takes_its_time_is_under_way(serve: Serve, session: Session) -> None:
    entered, let_go = asyncio.Event(), asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> str:
        entered.set()
        await stubborn_until(let_go)
        return "dropped"

    server = await serve(agent_of(invoke), invocations={"cancel_grace": 0.1})
    url = f"{server.http}/invocations"
    async with session.post(url, headers=named("i", **ASYNC)):
        pass
    await soon(entered)
    async with session.post(f"{url}/i/cancel") as answer:
        assert answer.status == 200
        assert await answer.json() == {"invocation_id": "i", "status": "cancelling"}
    assert (await record_of(server, session, "i"))["status"] == "running"
    let_go.set()
    record = await ended(server, session, "i")
    assert record["status"] == "cancelled"
    assert "result" not in record


async def test_the_body_of_a_cancel_is_not_looked_at(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    url = f"{server.http}/invocations"
    for number, data in enumerate([b"nonsense", b"{}", b"x" * 100_000]):
        async with session.post(url, headers=named(str(number), **ASYNC)):
            pass
        async with session.post(f"{url}/{number}/cancel", data=data) as answer:
            assert (await answer.json())["status"] == "cancelled"


async def test_a_cancel_whose_client_leaves_takes_effect(serve: Serve, session: Session) -> None:
    cleaning_up, let_go = asyncio.Event(), asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning_up.set()
            await let_go.wait()

    server = await serve(agent_of(invoke))
    async with session.post(f"{server.http}/invocations", headers=named("i", **ASYNC)):
        pass
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations/i/cancel")
        await soon(cleaning_up)
    assert (await record_of(server, session, "i"))["status"] == "running"
    let_go.set()
    assert (await ended(server, session, "i"))["status"] == "cancelled"


async def test_a_cancel_whose_client_leaves_at_once_takes_effect(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with session.post(f"{server.http}/invocations", headers=named("i", **ASYNC)):
        pass
    await soon(gate.entered)
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations/i/cancel")
        peer.writer.close()
    await soon(gate.cancelled)
    assert (await ended(server, session, "i"))["status"] == "cancelled"


# --- the agent's own get and cancel handlers --------------------------------------------------


async def test_the_agents_get_handler_answers_for_any_id(serve: Serve, session: Session) -> None:
    agent = Agent()
    agent.invoke_handler(echo)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> Any:
        if context.invocation_id == "gone":
            raise InvocationError("gone", "It is gone", status=410)
        if context.invocation_id == "broken":
            raise RuntimeError("secret")
        return {"id": context.invocation_id, "session": context.session_id}

    server = await serve(agent)
    url = f"{server.http}/invocations"
    async with session.post(url, json=1, headers=named("known")):
        pass
    for name in ("known", "unknown"):
        async with session.get(f"{url}/{name}?agent_session_id=s") as answer:
            assert (answer.status, answer.headers["x-agent-invocation-id"]) == (200, name)
            assert await answer.json() == {"id": name, "session": "s"}
    async with session.get(f"{url}/gone") as answer:
        assert (await refusal(answer, 410, "gone"))["message"] == "It is gone"
    async with session.get(f"{url}/broken") as answer:
        assert (await refusal(answer, 500, "internal_error"))["source"] == "upstream"
    async with session.get(f"{url}/known", headers=SSE) as answer:  # this attaches
        assert await answer.read() == b"id: end\nevent: result\ndata: 1\n\n"
    async with session.get(f"{url}/unknown", headers=SSE) as answer:
        await refusal(answer, 404, "not_found")


async def test_the_agents_cancel_handler_decides_for_any_id(serve: Serve, session: Session) -> None:
    gate = Gate()
    agent = Agent()
    agent.invoke_handler(gate)
    states: list[bool] = []

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> Any:
        states.append(gate.cancelled.is_set())
        return {"by": "agent", "id": context.invocation_id}

    server = await serve(agent)
    url = f"{server.http}/invocations"
    async with session.post(url, headers=named("i", **ASYNC)):
        pass
    await soon(gate.entered)
    for name in ("i", "i", "unknown"):
        async with session.post(f"{url}/{name}/cancel") as answer:
            assert answer.status == 200
            assert await answer.json() == {"by": "agent", "id": name}
        assert (await record_of(server, session, "i"))["status"] == "cancelled"
    assert states == [False, True, True]  # it runs before the task is cancelled


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (lambda: InvocationError("too_late", "Printed already", status=409), 409, "too_late"),
        (lambda: RuntimeError("secret"), 500, "internal_error"),
        (lambda: SystemExit("secret"), 500, "internal_error"),
    ],
)
async def test_a_cancel_handler_that_raises_leaves_the_task_alone(
    serve: Serve, session: Session, fault: Raiser, status: int, code: str
) -> None:
    gate = Gate()
    agent = Agent()
    agent.invoke_handler(gate)

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> None:
        raise fault()

    server = await serve(agent)
    url = f"{server.http}/invocations"
    async with session.post(url, json="done", headers=named("i", **ASYNC)):
        pass
    await soon(gate.entered)
    async with session.post(f"{url}/i/cancel") as answer:
        await refusal(answer, status, code)
    assert not gate.cancelled.is_set()
    gate.opened.set()
    assert (await ended(server, session, "i"))["result"] == "done"


async def test_a_cancel_handler_whose_client_leaves_is_seen_through(
    serve: Serve, session: Session
) -> None:
    gate, entered, let_go = Gate(), asyncio.Event(), asyncio.Event()
    agent = Agent()
    agent.invoke_handler(gate)

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> None:
        entered.set()
        await let_go.wait()

    server = await serve(agent)
    async with session.post(f"{server.http}/invocations", headers=named("i", **ASYNC)):
        pass
    await soon(gate.entered)
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations/i/cancel")
        await soon(entered)
    assert (await record_of(server, session, "i"))["status"] == "running"
    let_go.set()
    await soon(gate.cancelled)
    assert (await ended(server, session, "i"))["status"] == "cancelled"


# --- ownership --------------------------------------------------------------------------------

ANN, BOB, NOBODY = {"x-agent-user-id": "ann"}, {"x-agent-user-id": "bob"}, dict[str, str]()


@pytest.mark.parametrize(
    ("owner", "others"), [(ANN, [BOB, NOBODY]), (NOBODY, [ANN, BOB])], ids=["ann's", "nobody's"]
)
async def test_to_others_an_invocation_does_not_exist(
    serve: Serve,
    session: Session,
    owner: dict[str, str],
    others: list[dict[str, str]],
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    async with session.post(url, json=["a"], headers=named("i", **ASYNC, **owner)):
        pass
    await soon(gate.entered)

    async def asked_by(user: dict[str, str]) -> list[tuple[int, Any]]:
        answers = []
        for answering in (
            session.get(f"{url}/i", headers=user),
            session.get(f"{url}/i", headers={**user, **SSE}),
            session.post(f"{url}/i/cancel", headers=user),
        ):
            async with answering as answer:
                answers.append((answer.status, await answer.json()))
        return answers

    async with session.get(f"{url}/unknown") as answer:
        unknown = (answer.status, await answer.json())
    for other in others:
        assert await asked_by(other) == [unknown] * 3
    assert not gate.cancelled.is_set()
    async with session.get(f"{url}/i", headers={**owner, **SSE}) as answer:
        assert await event(answer) == chunk(1, "a")
        async with session.post(f"{url}/i/cancel", headers=owner) as cancelled:
            assert cancelled.status == 200
    for other in others:  # nor does it when it has ended
        assert await asked_by(other) == [unknown] * 3


async def test_the_agents_own_handlers_are_not_asked_about_anothers(
    serve: Serve, session: Session
) -> None:
    asked: list[str] = []
    agent = Agent()
    gate = Gate()
    agent.invoke_handler(gate)

    @agent.get_invocation_handler
    async def get(context: InvocationContext) -> None:
        asked.append(f"get by {context.user_id}")

    @agent.cancel_invocation_handler
    async def cancel(context: InvocationContext) -> None:
        asked.append(f"cancel by {context.user_id}")

    server = await serve(agent)
    url = f"{server.http}/invocations"
    async with session.post(url, headers=named("i", **ASYNC, **ANN)):
        pass
    await soon(gate.entered)
    for user, status in ((BOB, 404), (NOBODY, 404), (ANN, 200)):
        async with session.get(f"{url}/i", headers=user) as answer:
            assert answer.status == status
        async with session.post(f"{url}/i/cancel", headers=user) as answer:
            assert answer.status == status
    assert asked == ["get by ann", "cancel by ann"]


async def test_an_id_of_anothers_is_taken_all_the_same(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    url = f"{server.http}/invocations"
    async with session.post(url, json=1, headers=named("i", **ANN)):
        pass
    async with session.post(url, json=2, headers=named("i", **BOB)) as answer:
        await refusal(answer, 409, "already_exists")
    assert (await record_of(server, session, "i", ANN))["result"] == 1


async def test_a_socket_of_the_same_user_is_the_owner_too(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with session.post(f"{server.http}/invocations", headers=named("i", **ASYNC, **ANN)):
        pass
    for user, found in ((ANN, True), (BOB, False), (NOBODY, False)):
        async with server.connect(headers=user) as client:
            frame = await client.ask(action="get_invocation", invocation_id="i")
            assert (frame["type"] == "result") == found


# --- attach -----------------------------------------------------------------------------------


async def test_attaching_replays_and_follows(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    async with session.post(
        f"{url}?agent_session_id=s", json=["a", "b"], headers=named("i", **ASYNC)
    ):
        pass
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
    async with session.post(f"{url}?agent_session_id=s", json=[1, 2, 3], headers=named("i")):
        pass
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
    async with session.post(url, json=[1, 2, 3], headers=named("i")):
        pass
    in_header = place == "Last-Event-ID"
    headers = {**SSE, "Last-Event-ID": position} if in_header else SSE
    query = {"starting_after": "1" if in_header else position}
    async with session.get(f"{url}/i", headers=headers, params=query) as answer:
        error = await refusal(answer, 400, "invalid_request")
        assert error["source"] == "user"
        assert place in error["message"]


async def test_a_poll_has_no_position(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(echo))
    async with session.post(f"{server.http}/invocations", headers=named("i")):
        pass
    headers = {"Last-Event-ID": "x"}
    assert (await record_of(server, session, "i", headers))["status"] == "completed"


async def test_beyond_the_end_nothing_is_replayed_and_the_end_is_told(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    async with session.post(
        f"{url}?agent_session_id=s", json=["a", "b"], headers=named("i", **ASYNC)
    ):
        pass
    await soon(gate.entered)
    async with session.get(f"{url}/i?starting_after=10", headers=SSE) as answer:
        assert answer.status == 200
        gate.opened.set()
        assert await answer.read() == end("i", "s")


async def test_what_is_no_longer_held_is_a_gap(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each), invocations={"replay_bytes": 3})
    url = f"{server.http}/invocations"
    async with session.post(f"{url}?agent_session_id=s", json=[1, 2, 3, 4, 5], headers=named("i")):
        pass
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
    async with session.post(f"{url}?agent_session_id=s", json=["long"], headers=named("i")):
        pass
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
    async with session.post(url, headers=named("i", **ASYNC)):
        pass
    async with HttpPeer.connect(server, receive_buffer=4096, limit=MIB) as slow:
        slow.request("GET /invocations/i", "Accept: text/event-stream", "Connection: close")
        await slow.reader.readuntil(b"\r\n\r\n")
        slow.stop_reading()
        slow.narrow_the_way_back()
        async with session.get(f"{url}/i", headers=SSE) as answer:
            for _ in range(100):
                turns.release()
                assert b"event: stream_chunk" in await event(answer)
        slow.read_again()
        async with asyncio.timeout(PATIENCE):
            told = await slow.reader.read(-1)
    assert b'\r\nevent: error\ndata: {"error":{"code":"replay_gap"' in told
    assert b'"retryable":false,"source":"user","first_available":' in told
    assert b"id: end" not in told


SEEN_THE_END = {**SSE, "Last-Event-ID": "end"}


async def raising(payload: Any, context: InvocationContext) -> None:
    raise InvocationError("no_luck", "")


@pytest.mark.parametrize("function", [each, echo, raising])
async def test_who_has_seen_the_end_comes_to_rest(
    serve: Serve, session: Session, function: InvokeHandler
) -> None:
    server = await serve(agent_of(function))
    url = f"{server.http}/invocations"
    async with session.post(url, json=[1], headers=named("i", **ASYNC)):
        pass
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
    async with session.post(f"{url}?agent_session_id=s", json=[1, 2], headers=named("i")):
        pass
    async with session.get(f"{url}/i", headers={**SSE, "Last-Event-ID": "2"}) as answer:
        assert (answer.status, await answer.read()) == (200, end("i", "s"))


async def test_the_end_of_what_runs_cannot_have_been_seen(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations"
    async with session.post(url, json=["a"], headers=named("i", **ASYNC)):
        pass
    await soon(gate.entered)
    async with session.get(f"{url}/i", headers=SEEN_THE_END) as answer:
        assert "Last-Event-ID" in (await refusal(answer, 400, "invalid_request"))["message"]
    async with session.get(f"{url}/i?starting_after=end", headers=SSE) as answer:
        assert "starting_after" in (await refusal(answer, 400, "invalid_request"))["message"]


async def test_a_poll_that_refuses_events_gets_the_record(serve: Serve, session: Session) -> None:
    server = await serve(agent_of(each))
    url = f"{server.http}/invocations"
    async with session.post(url, json=[1], headers=named("i")):
        pass
    for accept in ("text/event-stream;q=0", "application/json, text/event-stream;q=0.0"):
        async with session.get(f"{url}/i", headers={"Accept": accept}) as answer:
            assert (await answer.json())["invocation_id"] == "i"


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
    async with session.post(url, headers=named("i")):
        pass
    async with session.get(f"{url}/i", headers=SSE) as answer:
        assert answer.status == 200
        replayed = chunk(1, 1) if streams else b""
        assert await answer.read() == replayed + failure("no_luck", "Unlucky", "user")


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


# --- a client that leaves ---------------------------------------------------------------------

AT_ONCE = {"disconnect_grace": 0.0}


async def test_a_client_that_leaves_amid_a_stream_is_a_lost_listener(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), invocations=AT_ONCE)
    url = f"{server.http}/invocations"
    async with session.post(url, json=["a"], headers=named("i")) as answer:
        assert await event(answer) == chunk(1, "a")
        await soon(gate.entered)
        assert not gate.cancelled.is_set()
        answer.close()
    await soon(gate.cancelled)
    record = await ended(server, session, "i")
    assert (record["status"], record["error"]["code"]) == ("cancelled", "cancelled")


@pytest.mark.parametrize("kind", ["coroutine", "stream", "array"])
async def test_a_client_that_leaves_before_the_first_byte_is_a_lost_listener(
    serve: Serve, session: Session, kind: str
) -> None:
    gate = Gate()
    server = await serve(
        agent_of(gate if kind == "coroutine" else gate.stream_late), invocations=AT_ONCE
    )
    async with HttpPeer.connect(server) as peer:
        accept = "application/json" if kind == "array" else "*/*"
        peer.request("POST /invocations", f"Accept: {accept}", "x-agent-invocation-id: i")
        await soon(gate.entered)
        assert not gate.cancelled.is_set()
    await soon(gate.cancelled)
    assert (await ended(server, session, "i"))["status"] == "cancelled"


async def test_a_client_that_resets_the_connection_is_a_lost_listener(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations=AT_ONCE)
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations")
        await soon(gate.entered)
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.writer.transport.abort()
        await soon(gate.cancelled)


async def test_a_client_that_attached_and_leaves_is_a_lost_listener(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), invocations=AT_ONCE)
    url = f"{server.http}/invocations"
    posted = await session.post(url, json=["a"], headers=named("i"))
    assert await event(posted) == chunk(1, "a")
    async with session.get(f"{url}/i", headers=SSE) as answer:
        assert await event(answer) == chunk(1, "a")
        posted.close()  # the other one still listens
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gate.cancelled.wait(), 0.1)
        answer.close()
    await soon(gate.cancelled)


async def test_a_client_has_the_grace_to_come_back(serve: Serve, session: Session) -> None:
    """The time is the test's: it comes back at once, and stays for longer than the grace."""
    gate = Gate()
    server = await serve(agent_of(gate), invocations={"disconnect_grace": 0.4})
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "x-agent-invocation-id: i")
        await soon(gate.entered)
    async with session.get(f"{server.http}/invocations/i", headers=SSE) as answer:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gate.cancelled.wait(), 0.8)
        answer.close()
    await soon(gate.cancelled)


async def test_where_it_is_set_so_an_invocation_runs_on_without_its_client(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(
        agent_of(gate.stream), invocations={**AT_ONCE, "on_disconnect": "continue"}
    )
    url = f"{server.http}/invocations"
    async with session.post(url, json=["a", "b"], headers=named("i")) as answer:
        assert await event(answer) == chunk(1, "a")
        answer.close()
    await soon(gate.entered)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gate.cancelled.wait(), 0.1)
    gate.opened.set()
    assert (await ended(server, session, "i"))["status"] == "completed"


async def test_a_poll_is_no_listener(serve: Serve, session: Session) -> None:
    gate = Gate()
    server = await serve(agent_of(gate), invocations={"disconnect_grace": 0.2})
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "x-agent-invocation-id: i")
        await soon(gate.entered)
    async with asyncio.timeout(PATIENCE):
        while not gate.cancelled.is_set():
            assert (await record_of(server, session, "i"))["status"] in ("running", "cancelled")


# --- a client that does not read --------------------------------------------------------------

PIECE = "x" * 32 * KIB


async def test_a_client_that_does_not_read_is_dropped_and_slows_nobody(
    serve: Serve, session: Session
) -> None:
    pieces = 400
    gate = Gate()
    attached = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        await attached.wait()
        for _ in range(pieces):
            yield PIECE
        await gate.passed()

    server = await serve(
        agent_of(invoke),
        websocket={"send_timeout": 0.5},
        invocations={**AT_ONCE, "replay_bytes": 64 * MIB},
    )
    async with HttpPeer.connect(server, receive_buffer=4 * KIB) as mute:
        async with session.post(f"{server.http}/invocations", headers=named("i")) as answer:
            mute.request("GET /invocations/i", "Accept: text/event-stream")
            assert (await mute.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            mute.stop_reading()
            attached.set()
            for number in range(1, pieces + 1):
                assert await event(answer) == chunk(number, PIECE)
            answer.close()
        await soon(gate.cancelled)  # for the mute one is no listener any more
        await mute.dropped()


async def test_a_lone_client_that_does_not_read_is_dropped_and_lost_as_a_listener(
    serve: Serve, session: Session
) -> None:
    cancelled = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        try:
            while True:
                yield PIECE
        finally:
            cancelled.set()

    server = await serve(agent_of(invoke), websocket={"send_timeout": 0.3}, invocations=AT_ONCE)
    async with HttpPeer.connect(server, receive_buffer=4 * KIB) as mute:
        mute.request("POST /invocations", "x-agent-invocation-id: i")
        await mute.reader.readuntil(b"\r\n\r\n")
        mute.stop_reading()
        await soon(cancelled)
        async with session.get(f"{server.http}/liveness") as answer:
            assert answer.status == 200
        await mute.dropped()
    assert (await record_of(server, session, "i"))["status"] == "cancelled"


async def test_a_client_that_reads_slowly_gets_it_all(serve: Serve, session: Session) -> None:
    """It takes longer for the whole than a send may take, but it takes something all the time."""
    pieces = 12

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        for _ in range(pieces):
            yield "x" * 256 * KIB

    server = await serve(
        agent_of(invoke),
        websocket={"send_timeout": 1.0},
        invocations={**AT_ONCE, "replay_bytes": 4 * KIB},
    )
    received = bytearray()
    async with HttpPeer.connect(server, receive_buffer=4 * KIB) as slow:
        slow.request("POST /invocations", "Connection: close")
        async with asyncio.timeout(3 * PATIENCE):
            while part := await slow.reader.read(32 * KIB):
                received += part
                await asyncio.sleep(0.01)
    assert received.count(b"event: stream_chunk\n") == pieces
    assert b"event: stream_end\n" in received


# --- one table for both transports ------------------------------------------------------------


async def test_what_starts_on_a_socket_is_polled_followed_and_cancelled_over_http(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations/i"
    async with server.connect("/invocations_ws/ws?agent_session_id=s") as client:
        frame = await client.ask(action="invoke", payload=["a", "b"], invocation_id="i")
        assert frame["type"] == "stream_chunk"
        record = await record_of(server, session, "i")
        assert (record["status"], record["session_id"]) == ("running", "s")
        async with session.get(url, headers=SSE) as answer:
            assert await event(answer) == chunk(1, "a")
            async with session.post(f"{url}/cancel") as cancelled:
                assert await cancelled.json() == {"invocation_id": "i", "status": "cancelled"}
            assert (await answer.read()).startswith(
                b'id: end\nevent: error\ndata: {"error":{"code":"cancelled",'
            )
        frame = await client.receive()
        assert (frame["type"], frame["error"]["code"]) == ("error", "cancelled")


async def test_what_starts_over_http_is_polled_followed_and_cancelled_on_a_socket(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations?agent_session_id=s"
    async with (
        session.post(url, json=["a", "b"], headers=named("i")) as answer,
        server.connect() as client,
    ):
        assert await event(answer) == chunk(1, "a")
        frame = await client.ask(action="get_invocation", invocation_id="i")
        assert (frame["payload"]["status"], frame["payload"]["session_id"]) == ("running", "s")
        frame = await client.ask(action="attach_invocation", invocation_id="i")
        assert frame == {
            "type": "stream_chunk",
            "invocation_id": "i",
            "session_id": "s",
            "sequence_number": 1,
            "payload": "a",
        }
        frame = await client.ask(action="invoke", invocation_id="i")
        assert frame["error"]["code"] == "already_exists"
        await client.send(action="cancel_invocation", invocation_id="i")
        await client.until(type="result", payload={"invocation_id": "i", "status": "cancelled"})
        assert (await event(answer)).startswith(
            b'id: end\nevent: error\ndata: {"error":{"code":"cancelled",'
        )


async def test_a_stream_that_lost_its_socket_is_taken_up_over_http(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    async with server.connect("/invocations_ws/ws?agent_session_id=s") as client:
        await client.ask(action="invoke", payload=["a", "b"], invocation_id="i")
    gate.opened.set()
    url = f"{server.http}/invocations/i?starting_after=1"
    async with session.get(url, headers=SSE) as answer:
        assert await answer.read() == chunk(2, "b") + end("i", "s")


async def test_the_answer_to_a_coroutine_is_followed_on_a_socket(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(echo))
    url = f"{server.http}/invocations?agent_session_id=s"
    async with session.post(url, json=[1], headers=named("i")):
        pass
    async with server.connect() as client:
        assert await client.ask(action="attach_invocation", invocation_id="i") == {
            "type": "result",
            "invocation_id": "i",
            "session_id": "s",
            "payload": [1],
        }


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
        async with HttpPeer.connect(server) as peer:
            peer.request("POST /invocations", *EXPECTING, *headers)
            answered, told, _ = await peer.answer()
            assert (answered, told["connection"]) == (status, "close")


async def test_no_body_is_asked_for_that_has_no_bytes(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        peer.request("POST /invocations", "Expect: 100-continue", "Content-Length: 0")
        assert (await peer.answer())[::2] == (200, b"{}")


async def test_nobody_waits_to_be_asked_in_http_1_0(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        peer.writer.write(
            b"POST /invocations HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n[1]"
        )
        assert (await peer.answer())[::2] == (200, b"[1]")


async def test_an_event_stream_ends_the_connection_of_http_1_0(serve: Serve) -> None:
    server = await serve(agent_of(each))
    for line, body in (("POST /invocations", b"[1,2]"), ("GET /invocations/i", b"")):
        async with HttpPeer.connect(server) as peer:
            peer.writer.write(
                f"{line} HTTP/1.0\r\nConnection: keep-alive\r\nAccept: text/event-stream\r\n"
                f"x-agent-invocation-id: i\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            async with asyncio.timeout(PATIENCE):
                received = await peer.reader.read()
        assert received.startswith(b"HTTP/1.0 200 OK\r\n")
        assert b"event: stream_end" in received


# --- the other protocol's routes --------------------------------------------------------------

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


async def test_an_upgrade_is_not_offered_on_the_routes_of_http(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with HttpPeer.connect(server) as peer:
        for line, headers, body, expected in (
            ("POST /invocations", ["Content-Length: 3"], b"[1]", 200),
            ("GET /invocations/none", [], b"", 404),
            ("POST /invocations/none/cancel", [], b"", 404),
            ("GET /liveness", [], b"", 200),
        ):
            peer.request(line, *UPGRADE, *headers, body=body)
            status, answered, content = await peer.answer()
            assert status == expected
            assert "upgrade" not in answered
            if line == "POST /invocations":
                assert content == b"[1]"


@pytest.mark.parametrize("path", ["/invocations_ws/ws", "/invocations_ws"])
async def test_a_route_of_sockets_has_to_be_upgraded(
    serve: Serve, session: Session, path: str
) -> None:
    server = await serve(agent_of(echo))
    for headers in ({}, SSE, JSON):
        async with session.get(server.http + path, headers=headers) as answer:
            assert (await refusal(answer, 426, "upgrade_required"))["source"] == "user"
            assert answer.headers["Upgrade"] == "websocket"
    async with session.post(server.http + path, json={}) as answer:
        await refusal(answer, 405, "method_not_allowed")
