"""An agent that tells who calls, an issuer of tokens, and ways to knock at every transport."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from agentws import Agent, InvocationContext
from tests.conftest import Running
from tests.support.http_client import Session
from tests.support.issuer import Issuer, new_rsa
from tests.support.peers import HANDSHAKE

RSA = new_rsa()
KEYS = ("one-key", "clé-two")
FRAMED, RAW = "/invocations_ws/ws", "/invocations_ws"
FOREIGN = {"Origin": "https://elsewhere.example"}


def knowing() -> Agent:
    """Return an agent that tells what it knows of its caller, on every transport."""
    agent = Agent(openapi={"openapi": "3.1.0"})

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return {"user": context.user_id, "query": dict(context.query)}

    @agent.ws_handler
    async def raw(ws: web.WebSocketResponse, context: InvocationContext) -> None:
        await ws.send_json({"user": context.user_id, "query": dict(context.query)})

    return agent


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer that signs with `RSA`."""
    server = await Issuer.start({"first": RSA})
    yield server
    await server.stop()


async def post(
    session: Session, server: Running, headers: dict[str, str], query: str = ""
) -> tuple[int, Any]:
    """Invoke over HTTP; return status and body."""
    url = f"{server.http}/invocations{query}"
    async with session.post(url, json={}, headers=headers) as answer:
        return answer.status, await answer.json()


async def shake_hands(
    session: Session,
    server: Running,
    headers: dict[str, str] | None = None,
    path: str = FRAMED,
) -> int:
    """Ask for an upgrade and return the status of the answer."""
    async with session.get(server.http + path, headers={**HANDSHAKE, **(headers or {})}) as answer:
        if answer.status == 101:
            answer.close()
        return answer.status


def bearer(credential: str) -> dict[str, str]:
    """Return the header that brings a credential along (RFC 6750 §2.1)."""
    return {"Authorization": f"Bearer {credential}"}
