"""A client of the HTTP routes: what it sends, and what the answers have to be, byte for byte."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.conftest import PATIENCE, Running

Session = aiohttp.ClientSession

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

KIB = 1024
MIB = 1024**2

SSE = {"Accept": "text/event-stream"}
JSON = {"Accept": "application/json"}
ASYNC = {"Prefer": "respond-async"}

OPENAPI = ["/invocations/docs/openapi.json", "/invocations_ws/docs/openapi.json"]
ASYNCAPI = ["/invocations_ws/docs/asyncapi.json", "/invocations/docs/asyncapi.json"]
ROUTES = ["/readiness", "/liveness", *ASYNCAPI, *OPENAPI]
"""The routes that have nothing to do with an invocation."""


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    """A client, whose connections are closed at the end."""
    timeout = aiohttp.ClientTimeout(total=2 * PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


def named(invocation_id: str, **more: str) -> dict[str, str]:
    """Return headers that bring the invocation's id along."""
    return {"x-agent-invocation-id": invocation_id, **more}


def text_of(size: int) -> bytes:
    """Return a JSON text of this many bytes."""
    return b'"' + b"x" * (size - 2) + b'"'


async def in_parts(body: bytes, size: int = 300) -> AsyncIterator[bytes]:
    """Make a request chunked."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def begin(
    server: Running,
    session: Session,
    invocation_id: str,
    payload: Any = None,
    *,
    session_id: str = "",
    headers: Mapping[str, str] = {},
) -> None:
    """Invoke, and leave it to run with nobody who listens (RFC 7240 §4.1)."""
    url = f"{server.http}/invocations?agent_session_id={session_id}"
    asked = named(invocation_id, **ASYNC, **headers)
    async with session.post(url, json=payload, headers=asked) as answer:
        assert answer.status == 202


async def run(
    server: Running,
    session: Session,
    invocation_id: str,
    payload: Any = None,
    *,
    session_id: str = "",
    headers: Mapping[str, str] = {},
) -> None:
    """Invoke, and listen to the end, whatever it is."""
    url = f"{server.http}/invocations?agent_session_id={session_id}"
    async with session.post(url, json=payload, headers=named(invocation_id, **headers)) as answer:
        await answer.read()


# --- the events of a stream -------------------------------------------------------------------


def chunk(number: int, value: Any) -> bytes:
    """Return the event of a chunk."""
    data = msgspec.json.encode(value)
    return b"id: %d\nevent: stream_chunk\ndata: %b\n\n" % (number, data)


def end(invocation_id: str, session_id: str) -> bytes:
    """Return the event of a stream's end."""
    ids = {"invocation_id": invocation_id, "session_id": session_id}
    return b"id: end\nevent: stream_end\ndata: %b\n\n" % msgspec.json.encode(ids)


def failure(code: str, message: str, source: str, *, retryable: bool = False) -> bytes:
    """Return the event of a failure."""
    error = {"code": code, "message": message, "retryable": retryable, "source": source}
    return b"id: end\nevent: error\ndata: %b\n\n" % msgspec.json.encode({"error": error})


def failing_with(code: str) -> bytes:
    """Return the beginning of the event of a failure."""
    return b'id: end\nevent: error\ndata: {"error":{"code":"%b",' % code.encode()


async def event(answer: aiohttp.ClientResponse) -> bytes:
    """Return the next event of a stream."""
    async with asyncio.timeout(PATIENCE):
        return await answer.content.readuntil(b"\n\n")


# --- answers ----------------------------------------------------------------------------------


async def refusal(answer: aiohttp.ClientResponse, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is this error, with all that goes with it, and return the error."""
    assert (answer.status, answer.content_type) == (status, "application/json")
    body = await answer.json()
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() - {"first_available", "reason"} == {
        "code",
        "message",
        "retryable",
        "source",
    }
    assert (error["code"], error["retryable"]) == (code, status in (429, 503, 504))
    assert answer.headers["x-platform-error-source"] == error["source"]
    assert ("Retry-After" in answer.headers) == (status in (429, 503))
    assert isinstance(error, dict)
    return error


def methods_of(answer: aiohttp.ClientResponse) -> set[str]:
    """Return the methods that a 405 says are allowed."""
    return {name.strip() for name in answer.headers["Allow"].split(",")}


async def record_of(
    server: Running,
    session: Session,
    invocation_id: str,
    headers: Mapping[str, str] = {},
) -> Any:
    """Poll, and return the record."""
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
