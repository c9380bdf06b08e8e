"""From which pages a browser may call, over every transport."""

import pytest

from agentws.transports.http.probes import PROBES
from tests.auth.conftest import FOREIGN, FRAMED, KEYS, RAW, knowing, post, shake_hands
from tests.conftest import Serve
from tests.support.http_client import Session
from tests.support.peers import exchange


async def test_pages_of_the_server_itself_may_call(serve: Serve, session: Session) -> None:
    server = await serve(knowing())
    own = {"Origin": server.http}
    assert (await post(session, server, own))[0] == 200
    assert await shake_hands(session, server, own) == 101
    # A gateway in front ends TLS, and hands on the name that it was called by.
    behind = {"Origin": "https://agents.example", "Host": "agents.example"}
    assert await shake_hands(session, server, behind, RAW) == 101


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1:1", ""])
async def test_pages_of_other_origins_may_not(serve: Serve, session: Session, origin: str) -> None:
    server = await serve(knowing())
    status, body = await post(session, server, {"Origin": origin})
    assert (status, body["error"]["code"]) == (403, "forbidden")
    assert "auth.allowed_origins" in body["error"]["message"]
    for path in (FRAMED, RAW):
        assert await shake_hands(session, server, {"Origin": origin}, path) == 403


async def test_pages_of_an_allowed_origin_may(serve: Serve, session: Session) -> None:
    server = await serve(
        knowing(),
        auth={"allowed_origins": ("https://app.example", "https://*.wide.example")},
        http={"cors_origins": ("https://cors.example",)},
    )
    for origin in ("https://app.example", "https://a.wide.example", "https://cors.example"):
        assert await shake_hands(session, server, {"Origin": origin}) == 101
        assert (await post(session, server, {"Origin": origin}))[0] == 200
    assert await shake_hands(session, server, FOREIGN) == 403


async def test_one_foreign_origin_among_several_is_enough(serve: Serve) -> None:
    server = await serve(knowing())
    own, foreign = "Origin: http://test", "Origin: https://elsewhere.example"
    assert (await exchange(server, "GET /invocations/i", own, foreign))[0] == 403


async def test_a_preflight_needs_no_credentials_but_an_origin(
    serve: Serve, session: Session
) -> None:
    ours = "https://app.example"
    server = await serve(knowing(), auth={"api_keys": KEYS}, http={"cors_origins": (ours,)})
    wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "api-key"}
    url = f"{server.http}/invocations"
    async with session.options(url, headers={"Origin": ours, **wish}) as answer:
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == ours
    async with session.options(url, headers={**FOREIGN, **wish}) as answer:
        assert answer.status == 403
        assert "auth.allowed_origins" in (await answer.json())["error"]["message"]
    async with session.post(url, json={}, headers={"Origin": ours}) as answer:
        assert answer.status == 401
        assert answer.headers["Access-Control-Allow-Origin"] == ours  # the page may read why


async def test_probes_are_answered_to_pages_of_any_origin(serve: Serve, session: Session) -> None:
    server = await serve(knowing(), auth={"api_keys": KEYS})
    for path in PROBES:
        async with session.get(server.http + path, headers=FOREIGN) as answer:
            assert answer.status == 200
