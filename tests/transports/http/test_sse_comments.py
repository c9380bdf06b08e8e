"""Comments in the silences of an agent's own event stream."""

import asyncio
import zlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.conftest import PATIENCE, Running, Serve
from tests.support.class_style import EVENTS, PART, Answers, begun
from tests.support.peers import HttpPeer

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
        received = await peer.head()
        for _ in range(comments):
            async with asyncio.timeout(PATIENCE):
                received += await peer.reader.readuntil(COMMENT)
        agent.let_go.set()
        return received + await peer.rest()


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


class PausingCompressed(Pausing):
    def prepare(self, response: web.StreamResponse) -> None:
        response.enable_compression(web.ContentCoding.deflate)


class PausingWithLength(Pausing):
    def prepare(self, response: web.StreamResponse) -> None:
        response.content_length = sum(map(len, self.parts))


class PausingPlain(Pausing):
    def prepare(self, response: web.StreamResponse) -> None:
        response.content_type = "text/plain"


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
        head = await peer.head()
        await with_silences(clock, comments=5, agent=other)
        agent.let_go.set()
        received = await peer.rest()
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
        assert content(await peer.rest()) == b"data: 1\n\n"


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
        assert content(await peer.rest()) == 2 * PART


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
        whole = content(received + await peer.rest())
    assert whole.replace(COMMENT + b"\n", b"") == 2 * PART
