"""Who gets in by a token, and as whom (§1)."""

import asyncio
import time
import uuid
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from tests.auth.conftest import FRAMED, KEYS, RAW, RSA, bearer, knowing, post, shake_hands
from tests.conftest import Serve
from tests.support.http_client import Session
from tests.support.issuer import Issuer, new_rsa, signed


async def test_a_token_opens_every_transport(
    serve: Serve, session: Session, issuer: Issuer
) -> None:
    server = await serve(knowing(), auth={**issuer.settings, "query_parameter": "access"})
    token = issuer.token()
    assert await post(session, server, bearer(token)) == (200, {"user": "alice", "query": {}})
    for path in (FRAMED, RAW):
        assert await shake_hands(session, server, bearer(token), path) == 101
        assert await shake_hands(session, server, path=f"{path}?access={token}") == 101


@pytest.mark.parametrize("groups", [150, 250])
async def test_a_token_may_name_many_groups(
    serve: Serve, session: Session, issuer: Issuer, groups: int
) -> None:
    server = await serve(knowing(), auth={**issuer.settings, "query_parameter": "access"})
    token = issuer.token(groups=[str(uuid.uuid4()) for _ in range(groups)])
    assert len(token) > groups * 50
    assert (await post(session, server, bearer(token)))[0] == 200
    assert await shake_hands(session, server, bearer(token)) == 101
    assert await shake_hands(session, server, path=f"{FRAMED}?access={token}") == 101


async def test_a_bad_token_is_told_why(serve: Serve, session: Session, issuer: Issuer) -> None:
    server = await serve(knowing(), auth=issuer.settings)
    for token, reason in (
        (issuer.token(exp=time.time() - 120), "expired"),
        (issuer.token(aud="others"), "udience"),
        (signed(new_rsa()), "Signature"),
        (signed(RSA, "made-up"), "kid"),
        ("a.b.c", "not valid"),
        ("nonsense", "open nothing"),
    ):
        status, body = await post(session, server, bearer(token))
        assert (status, body["error"]["code"]) == (401, "unauthorized")
        assert reason in body["error"]["message"]


async def test_either_key_or_token_opens(serve: Serve, session: Session, issuer: Issuer) -> None:
    server = await serve(knowing(), auth={**issuer.settings, "api_keys": KEYS})
    for headers, user in (
        (bearer(issuer.token()), "alice"),
        (bearer("one-key"), None),
        ({"api-key": "one-key"}, None),
        ({"api-key": "one-key", **bearer(issuer.token())}, "alice"),
        ({"api-key": "wrong", **bearer(issuer.token())}, "alice"),
    ):
        status, body = await post(session, server, headers)
        assert (status, body["user"]) == (200, user)


async def test_the_token_says_who_the_user_is_whatever_the_header_says(
    serve: Serve, session: Session, issuer: Issuer
) -> None:
    server = await serve(knowing(), auth=issuer.settings)
    pretender = {**bearer(issuer.token(sub="mallory")), "x-agent-user-id": "alice"}
    _, body = await post(session, server, pretender)
    assert body["user"] == "mallory"


async def test_an_invocation_belongs_to_the_subject_of_the_token(
    serve: Serve, session: Session, issuer: Issuer
) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        await asyncio.Event().wait()

    server = await serve(agent, auth={**issuer.settings, "api_keys": KEYS})
    alice = bearer(issuer.token())
    others = [
        bearer(issuer.token(sub="bob")),
        {**bearer(issuer.token(sub="bob")), "x-agent-user-id": "alice"},
        {"api-key": "one-key"},
    ]
    url = f"{server.http}/invocations"
    start = {**alice, "x-agent-invocation-id": "i", "Prefer": "respond-async"}
    async with session.post(url, headers=start) as answer:
        assert answer.status == 202
    for other in others:
        async with session.get(f"{url}/i", headers=other) as answer:
            assert answer.status == 404
        async with session.post(f"{url}/i/cancel", headers=other) as answer:
            assert answer.status == 404
        async with server.connect(headers=other) as client:
            for action in ("get_invocation", "cancel_invocation", "attach_invocation"):
                frame = await client.ask(action=action, invocation_id="i")
                assert frame["error"]["code"] == "not_found"
    async with server.connect(headers=bearer(issuer.token())) as client:
        frame = await client.ask(action="cancel_invocation", invocation_id="i")
        assert frame["payload"]["status"] == "cancelled"


async def test_a_socket_outlives_its_token(serve: Serve, issuer: Issuer, session: Session) -> None:
    server = await serve(knowing(), auth=issuer.settings)
    async with server.connect(headers=bearer(issuer.token(exp=time.time() - 59))) as client:
        assert (await client.ask(action="invoke"))["payload"]["user"] == "alice"
