"""Bodies of requests: what is no JSON, and how large they may be (§7)."""

import io
import json
from typing import Any

import pytest

from agentws import InvocationContext
from tests.conftest import Serve
from tests.support.agents import agent_of, echo
from tests.support.http_client import KIB, MIB, Session, in_parts, refusal, text_of
from tests.support.peers import HttpPeer, exchange


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


LIMIT = 1000


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
    status, headers, body = await exchange(
        server, "POST /invocations", "Content-Length: 1000000000000"
    )
    assert (status, headers["x-platform-error-source"]) == (413, "user")
    assert json.loads(body)["error"]["code"] == "payload_too_large"


async def test_a_body_that_never_ends_is_refused_when_it_is_too_large(serve: Serve) -> None:
    server = await serve(agent_of(echo), http={"max_body_size": LIMIT})
    body = b"%x\r\n%b\r\n" % (LIMIT + 1, b"x" * (LIMIT + 1))
    answer = await exchange(server, "POST /invocations", "Transfer-Encoding: chunked", body=body)
    assert answer[0] == 413


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
