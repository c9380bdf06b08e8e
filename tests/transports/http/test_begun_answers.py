"""An answer that has begun is finished, or seen to be incomplete; over real sockets (§1)."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from agentws import InvocationContext, InvocationWebSocketHandler
from tests.conftest import PATIENCE, LogLines, Running, Serve
from tests.support.peers import HttpPeer

EVENTS = {"Content-Type": "text/event-stream"}
PART = b"data: 1\n\n"

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Answers(InvocationWebSocketHandler):
    """An agent that answers everything as the test says."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer

    async def handle_websocket(
        self, ws: web.WebSocketResponse, context: InvocationContext
    ) -> None: ...

    async def handle(self, request: web.Request, context: InvocationContext) -> web.StreamResponse:
        return await self.answer(request)

    async def get(
        self, invocation_id: str, request: web.Request, context: InvocationContext
    ) -> web.StreamResponse:
        return await self.answer(request)

    async def get_openapi(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request)


async def begun(request: web.Request, length: int | None = None) -> web.StreamResponse:
    """Begin an answer, and write a part of its body."""
    response = web.StreamResponse(headers=EVENTS)
    response.content_length = length
    await response.prepare(request)
    await response.write(PART)
    return response


async def raises(request: web.Request) -> web.StreamResponse:
    await begun(request)
    raise RuntimeError("secret")


async def raises_within_its_length(request: web.Request) -> web.StreamResponse:
    await begun(request, 300)
    raise RuntimeError("secret")


async def raises_an_answer(request: web.Request) -> web.StreamResponse:
    await begun(request)
    raise web.HTTPConflict


async def cancels_itself(request: web.Request) -> web.StreamResponse:
    await begun(request)
    raise asyncio.CancelledError


async def exits(request: web.Request) -> web.StreamResponse:
    await begun(request)
    raise SystemExit(3)


async def returns_another(request: web.Request) -> web.StreamResponse:
    await begun(request)
    return web.Response(text="another")


async def begins_another(request: web.Request) -> web.StreamResponse:
    await begun(request)
    return await begun(request)


async def returns_none(request: web.Request) -> web.StreamResponse:
    await begun(request)
    return None  # type: ignore[return-value]


async def falls_short(request: web.Request) -> web.StreamResponse:
    return await begun(request, 300)


async def ends_short(request: web.Request) -> web.StreamResponse:
    response = await begun(request, 300)
    await response.write_eof(b"no more")
    return response


async def tells_too_much(request: web.Request) -> web.StreamResponse:
    response = await begun(request, len(PART))
    await response.write_eof(b"and more")
    return response


async def failing_body() -> AsyncIterator[bytes]:
    yield PART
    raise RuntimeError("secret")


async def has_a_failing_body(_: web.Request) -> web.StreamResponse:
    return web.Response(body=failing_body(), headers=EVENTS)


CUT = [
    raises,
    raises_within_its_length,
    raises_an_answer,
    cancels_itself,
    exits,
    returns_another,
    begins_another,
    returns_none,
    falls_short,
    ends_short,
    tells_too_much,
    has_a_failing_body,
]


async def all_of(peer: HttpPeer) -> bytes:
    """Return whatever comes until the connection ends."""
    async with asyncio.timeout(PATIENCE):
        return await peer.reader.read()


async def everything(server: Running, line: str, *headers: str) -> bytes:
    """Ask once, and return whatever comes until the connection ends."""
    async with HttpPeer.connect(server) as peer:
        peer.request(line, *headers)
        return await all_of(peer)


@pytest.mark.parametrize("line", ["POST /invocations", "GET /invocations/docs/openapi.json"])
@pytest.mark.parametrize("answer", CUT)
async def test_an_answer_that_fails_after_its_head_is_cut(
    serve: Serve, log_lines: LogLines, answer: Answering, line: str
) -> None:
    server = await serve(Answers(answer))
    received = await everything(server, line)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert PART in body
    assert b"HTTP/" not in body
    assert b"secret" not in body
    assert not body.endswith(b"0\r\n\r\n")
    access = vars(await log_lines.next("agentws.access"))
    assert (access["status"], access["cut"]) == (200, True)
    error = await log_lines.next("agentws.http")
    assert error.levelname == "ERROR"
    assert error.exc_info is not None


async def test_a_body_without_length_or_chunks_is_reset(serve: Serve) -> None:
    server = await serve(Answers(raises))
    async with HttpPeer.connect(server) as peer:
        peer.writer.write(b"POST /invocations HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await all_of(peer)


async def test_an_answer_that_is_complete_is_not_cut(serve: Serve, log_lines: LogLines) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await (await begun(request, len(PART))).write_eof()
        raise RuntimeError("too late to matter")

    server = await serve(Answers(answer))
    async with HttpPeer.connect(server) as peer:
        for _ in range(2):
            peer.request("POST /invocations")
            status, _, body = await peer.answer()
            assert (status, body) == (200, PART)
            assert "cut" not in vars(await log_lines.next("agentws.access"))
            assert (await log_lines.next("agentws.http")).levelname == "ERROR"


async def test_an_answer_given_twice_is_an_error(serve: Serve) -> None:
    once = web.Response(text="the same object")

    async def answer(_: web.Request) -> web.StreamResponse:
        return once

    server = await serve(Answers(answer))
    async with HttpPeer.connect(server) as peer:
        for expected in (200, 500):
            peer.request("POST /invocations")
            assert (await peer.answer())[0] == expected


@pytest.mark.parametrize("failure", [asyncio.CancelledError, SystemExit, KeyboardInterrupt])
async def test_a_method_that_would_end_the_daemon_is_an_error(
    serve: Serve, failure: type[BaseException]
) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        raise failure

    server = await serve(Answers(answer))
    async with HttpPeer.connect(server) as peer:
        for _ in range(2):
            peer.request("POST /invocations")
            status, _, body = await peer.answer()
            assert status == 500
            assert b"internal_error" in body


# --- answers without a body -------------------------------------------------------------------


async def streams(request: web.Request) -> web.StreamResponse:
    """Stream in every way that there is."""
    response = web.StreamResponse(status=int(request.query.get("status", "200")), headers=EVENTS)
    await response.prepare(request)
    await response.write(PART)
    await response.write_eof(PART)
    return response


async def streams_with_length(request: web.Request) -> web.StreamResponse:
    response = await begun(request, 2 * len(PART))
    await response.write_eof(PART)
    return response


async def streams_compressed(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers=EVENTS)
    response.enable_compression(web.ContentCoding.gzip)
    await response.prepare(request)
    await response.write(PART)
    return response


async def has_a_text(_: web.Request) -> web.StreamResponse:
    return web.Response(text="a text")


async def has_a_body_that_streams(_: web.Request) -> web.StreamResponse:
    return web.Response(body=failing_body(), headers=EVENTS)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("HEAD /invocations/i", streams),
        ("HEAD /invocations/i", streams_with_length),
        ("HEAD /invocations/i", streams_compressed),
        ("HEAD /invocations/i", has_a_text),
        ("HEAD /invocations/i", has_a_body_that_streams),
        ("HEAD /invocations/docs/openapi.json", streams),
        ("GET /invocations/i?status=204", streams),
        ("GET /invocations/i?status=304", streams),
    ],
)
async def test_nothing_follows_a_head_that_has_no_body(
    serve: Serve, line: str, answer: Answering
) -> None:
    server = await serve(Answers(answer))
    async with HttpPeer.connect(server) as peer:
        peer.request(line)
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.request("GET /liveness", "Connection: close")
        assert (await all_of(peer)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_head_is_that_of_the_body(serve: Serve) -> None:
    server = await serve(Answers(streams_with_length))
    received = await everything(server, "HEAD /invocations/i", "Connection: close")
    assert b"\r\nContent-Length: 18\r\n" in received
    assert b"\r\nContent-Type: text/event-stream\r\n" in received


async def test_a_stream_ends_the_connection_of_http_1_0(serve: Serve) -> None:
    server = await serve(Answers(begun))
    async with HttpPeer.connect(server) as peer:
        peer.writer.write(b"POST /invocations HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        received = await all_of(peer)
    assert received.endswith(b"\r\n\r\n" + PART)
    assert b"keep-alive" not in received


# --- silences of an event stream --------------------------------------------------------------

COMMENT = b": keep-alive\n"
SILENCE = {"sse_keepalive_interval": 0.02}


class Pausing:
    """An agent's answer that writes its first part, and the rest when it is let go."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.let_go = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer, as `prepare` does before the first part."""
        response = web.StreamResponse(headers=EVENTS)
        self.prepare(response)
        await response.prepare(request)
        first, *rest = self.parts
        if first:
            await response.write(first)
        await self.let_go.wait()
        for part in rest:
            await response.write(memoryview(part))
        return response

    def prepare(self, response: web.StreamResponse) -> None:
        """Change the answer before it begins."""


class PausingCompressed(Pausing):
    def prepare(self, response: web.StreamResponse) -> None:
        response.enable_compression(web.ContentCoding.deflate)


class PausingWithLength(Pausing):
    def prepare(self, response: web.StreamResponse) -> None:
        response.content_length = sum(map(len, self.parts))


class PausingPlain(Pausing):
    def prepare(self, response: web.StreamResponse) -> None:
        response.content_type = "text/plain"


def content(chunked: bytes) -> bytes:
    """Return what an answer in chunks holds, after its head (RFC 9112 §7.1)."""
    rest, found = chunked.partition(b"\r\n\r\n")[2], b""
    while size := int((head := rest.partition(b"\r\n"))[0], 16):
        found += head[2][:size]
        rest = head[2][size + 2 :]
    assert rest == b"0\r\n\r\n"
    return found


async def with_silences(server: Running, *, comments: int, agent: Pausing) -> bytes:
    """Return a whole answer, after so many comments have come on it."""
    async with HttpPeer.connect(server) as peer:
        peer.request("GET /invocations/i", "Connection: close")
        received = await peer.reader.readuntil(b"\r\n\r\n")
        for _ in range(comments):
            async with asyncio.timeout(PATIENCE):
                received += await peer.reader.readuntil(COMMENT)
        agent.let_go.set()
        return received + await all_of(peer)


@pytest.mark.parametrize(
    ("parts", "between"),
    [
        ((b"", b"data: 1\n\n"), b": keep-alive\n\n"),
        ((b"data: 1\n\n", b"data: 2\n\n"), b": keep-alive\n\n"),
        ((b"data: 1\r\n\r\n", b"data: 2\r\n\r\n"), b": keep-alive\n\n"),
        ((b"id: 1\n", b"data: 1\n\n"), b": keep-alive\n"),
        ((b"id: 1\r\n", b"data: 1\n\n"), b": keep-alive\n"),
    ],
)
async def test_an_agents_silent_event_stream_gets_comments_between_its_lines(
    serve: Serve, parts: tuple[bytes, bytes], between: bytes
) -> None:
    agent = Pausing(*parts)
    server = await serve(Answers(agent), http=SILENCE)
    received = content(await with_silences(server, comments=3, agent=agent))
    first, second = parts
    count = received.count(COMMENT)
    assert count >= 3
    assert received == first + count * between + second


@pytest.mark.parametrize(
    "agent",
    [
        Pausing(b"data: 1\n\ndata: ha", b"lf\n\n"),
        Pausing(b"data: 1\r", b"\n\r\n"),
        PausingCompressed(b"data: 1\n\n", b"data: 2\n\n"),
        PausingWithLength(b"data: 1\n\n", b"data: 2\n\n"),
        PausingPlain(b"data: 1\n\n", b"data: 2\n\n"),
    ],
    ids=["amid a line", "amid a line's end", "compressed", "with length", "no events"],
)
async def test_no_comment_comes_where_it_would_do_harm(serve: Serve, agent: Pausing) -> None:
    other = Pausing(b"")
    server = await serve(Answers(agent), http=SILENCE)
    clock = await serve(Answers(other), http=SILENCE)
    async with HttpPeer.connect(server) as peer:
        peer.request("GET /invocations/i", "Connection: close")
        head = await peer.reader.readuntil(b"\r\n\r\n")
        await with_silences(clock, comments=5, agent=other)
        agent.let_go.set()
        received = await all_of(peer)
    assert head.startswith(b"HTTP/1.1 200 OK")
    if b"Content-Encoding: deflate" in head:
        received = zlib.decompress(content(head + received))
    assert b"keep-alive" not in received


async def test_comments_can_be_turned_off(serve: Serve) -> None:
    agent, other = Pausing(b"data: 1\n\n"), Pausing(b"")
    server = await serve(Answers(agent), http={"sse_keepalive_interval": 0})
    clock = await serve(Answers(other), http=SILENCE)
    async with HttpPeer.connect(server) as peer:
        peer.request("GET /invocations/i", "Connection: close")
        await with_silences(clock, comments=3, agent=other)
        agent.let_go.set()
        assert content(await all_of(peer)) == b"data: 1\n\n"


async def test_nothing_follows_the_end_of_an_agents_stream(serve: Serve) -> None:
    ended, other = asyncio.Event(), Pausing(b"")

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await begun(request)
        await response.write_eof(PART)
        await ended.wait()
        return response

    server = await serve(Answers(answer), http=SILENCE)
    clock = await serve(Answers(other), http=SILENCE)
    async with HttpPeer.connect(server) as peer:
        peer.request("GET /invocations/i", "Connection: close")
        await with_silences(clock, comments=3, agent=other)
        ended.set()
        assert content(await all_of(peer)) == 2 * PART


async def test_a_body_that_streams_by_itself_gets_comments_too(serve: Serve) -> None:
    let_go = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield PART
        await let_go.wait()
        yield PART

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body(), headers=EVENTS)

    server = await serve(Answers(answer), http=SILENCE)
    async with HttpPeer.connect(server) as peer:
        peer.request("GET /invocations/i", "Connection: close")
        received = await peer.reader.readuntil(COMMENT)
        let_go.set()
        whole = content(received + await all_of(peer))
    assert whole.replace(COMMENT + b"\n", b"") == 2 * PART
