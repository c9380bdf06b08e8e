"""An answer that has begun is finished, or seen to be incomplete; over real sockets (§1)."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from tests.conftest import LogLines, Running, Serve
from tests.support.class_style import EVENTS, PART, Answering, Answers, begun
from tests.support.peers import HttpPeer


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


async def everything(server: Running, line: str, *headers: str) -> bytes:
    """Ask once, and return whatever comes until the connection ends."""
    async with HttpPeer.connect(server) as peer:
        peer.request(line, *headers)
        return await peer.rest()


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
            await peer.rest()


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
        await peer.head()
        peer.request("GET /liveness", "Connection: close")
        assert (await peer.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_head_is_that_of_the_body(serve: Serve) -> None:
    server = await serve(Answers(streams_with_length))
    received = await everything(server, "HEAD /invocations/i", "Connection: close")
    assert b"\r\nContent-Length: 18\r\n" in received
    assert b"\r\nContent-Type: text/event-stream\r\n" in received


async def test_a_stream_ends_the_connection_of_http_1_0(serve: Serve) -> None:
    server = await serve(Answers(begun))
    async with HttpPeer.connect(server) as peer:
        peer.writer.write(b"POST /invocations HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        received = await peer.rest()
    assert received.endswith(b"\r\n\r\n" + PART)
    assert b"keep-alive" not in received
