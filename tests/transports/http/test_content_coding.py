"""Bodies that come compressed (RFC 9110 §8.4)."""

import functools
import gzip
import json
import zlib
from collections.abc import Callable

import pytest

from tests.conftest import Serve
from tests.support.agents import agent_of, echo
from tests.support.http_client import MIB, UUID, Session, in_parts, refusal, text_of
from tests.support.peers import HttpPeer


def raw_deflate(data: bytes) -> bytes:
    """Compress without zlib's head, as many do who say deflate."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


LIMIT = 1000

gzipped = functools.partial(gzip.compress, mtime=0)
"""Is the same each time."""


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
        ("gzip", gzipped(b"[1]") + 2000 * gzipped(b"")),  # each takes time
        ("gzip", gzipped(b"[1]")[:-8]),
        ("gzip", gzipped(b"[1]")[:-1]),
        ("gzip", gzipped(b"[1]")[:1]),
        ("gzip", gzipped(b"[1]")[:-8] + bytes(8)),
        ("gzip", gzipped(b"[1]") + b"more"),
        ("gzip", zlib.compress(b"[1]")),
        ("deflate", zlib.compress(b"[1]")[:-4]),
        ("deflate", raw_deflate(b"[1]")[:-1]),
        ("deflate", zlib.compress(b"[1]") + b"more"),
        ("deflate", gzipped(b"[1]")),
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
