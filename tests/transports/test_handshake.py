"""What every request and handshake is asked."""

import uuid
from collections.abc import Callable

import pytest
from aiohttp import HttpVersion10, web
from aiohttp.test_utils import make_mocked_request

from agentws.protocol.errors import InvocationError
from agentws.transports.handshake import UpgradeRequired, require_key, require_upgrade
from agentws.transports.request_fields import (
    INVOCATION_ID,
    REQUEST_ID,
    header_invocation_id,
    name_request,
    path_invocation_id,
)
from agentws.transports.session_ids import http_session, socket_session

UPGRADE = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}

BAD_IDS = ["a b", "..", "a" * 257, "é", "a\n"]


def a_request(
    query: str = "", headers: dict[str, str] | None = None, invocation_id: str = "i"
) -> web.Request:
    return make_mocked_request("GET", f"/{query}", headers, match_info={"id": invocation_id})


def test_a_request_is_named() -> None:
    request = a_request(headers={"x-request-id": "mine"})
    name_request(request)
    assert request[REQUEST_ID] == "mine"


# Upgrades


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": "UPGRADE,keep-alive"},
        {"Upgrade": "WebSocket"},
        {"Upgrade": " websocket "},
    ],
)
def test_an_upgrade_is_let_through(headers: dict[str, str]) -> None:
    folded = {name.lower(): value for name, value in headers.items()}
    require_upgrade(a_request(headers={**UPGRADE, **folded}))


@pytest.mark.parametrize(
    ("missing", "given"),
    [
        ("connection", {}),
        ("connection", {"connection": "keep-alive"}),
        ("connection", {"connection": "not-an-upgrade"}),
        ("upgrade", {}),
        ("upgrade", {"upgrade": "h2c"}),
        ("upgrade", {"upgrade": "websockets"}),
        ("sec-websocket-version", {}),
        ("sec-websocket-version", {"sec-websocket-version": "8"}),
        ("sec-websocket-version", {"sec-websocket-version": "130"}),
    ],
)
def test_a_request_that_is_no_upgrade_is_refused(missing: str, given: dict[str, str]) -> None:
    headers = {name: value for name, value in UPGRADE.items() if name != missing}
    with pytest.raises(UpgradeRequired) as caught:
        require_upgrade(a_request(headers={**headers, **given}))
    assert (caught.value.code, caught.value.status) == ("upgrade_required", 426)


def test_what_is_said_of_a_version_that_is_missing() -> None:
    headers = {name: value for name, value in UPGRADE.items() if name != "sec-websocket-version"}
    with pytest.raises(UpgradeRequired, match="Sec-WebSocket-Version header is missing"):
        require_upgrade(a_request(headers=headers))


def test_an_upgrade_over_an_older_http_is_refused() -> None:
    request = make_mocked_request("GET", "/", UPGRADE, version=HttpVersion10)
    with pytest.raises(UpgradeRequired, match=r"HTTP/1\.1"):
        require_upgrade(request)


def test_a_key_is_let_through() -> None:
    require_key(a_request(headers={"sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="}))


@pytest.mark.parametrize("headers", [{}, {"sec-websocket-key": ""}])
def test_a_key_that_is_missing_is_named(headers: dict[str, str]) -> None:
    with pytest.raises(InvocationError, match="Sec-WebSocket-Key header is missing") as caught:
        require_key(a_request(headers=headers))
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("key", ["AAAA", "A" * 22, "é" * 24, "A" * 22 + "!!", "A" * 44])
def test_a_key_that_is_none_is_named(key: str) -> None:
    with pytest.raises(InvocationError, match="Sec-WebSocket-Key must be 16 bytes") as caught:
        require_key(a_request(headers={"sec-websocket-key": key}))
    assert caught.value.code == "invalid_request"


# Sessions


Session = Callable[[web.BaseRequest, str], str]


@pytest.mark.parametrize(
    ("session", "query", "configured", "expected"),
    [
        (socket_session, "?agent_session_id=asked", "", "asked"),
        (socket_session, "?agent_session_id=asked", "configured", "configured"),
        (socket_session, "?agent_session_id=", "configured", "configured"),
        (socket_session, "", "configured", "configured"),
        (http_session, "?agent_session_id=asked", "", "asked"),
        (http_session, "?agent_session_id=asked", "configured", "asked"),
        (http_session, "?agent_session_id=", "configured", "configured"),
        (http_session, "", "configured", "configured"),
    ],
)
def test_a_session(session: Session, query: str, configured: str, expected: str) -> None:
    assert session(a_request(query), configured) == expected


@pytest.mark.parametrize("session", [socket_session, http_session])
@pytest.mark.parametrize("query", ["", "?agent_session_id=", "?agent_session_ID=a"])
def test_a_session_that_nobody_named_is_new(session: Session, query: str) -> None:
    first, second = (session(a_request(query), "") for _ in range(2))
    assert str(uuid.UUID(first, version=4)) == first
    assert first != second


@pytest.mark.parametrize("session", [socket_session, http_session])
@pytest.mark.parametrize("configured", ["", "configured"])
@pytest.mark.parametrize("asked", ["a%20b", "..", "a" * 257, "%C3%A9", "a%0A", "%FF"])
def test_a_session_that_is_no_id_is_refused(session: Session, configured: str, asked: str) -> None:
    with pytest.raises(InvocationError, match="agent_session_id must be") as caught:
        session(a_request(f"?agent_session_id={asked}"), configured)
    assert caught.value.code == "invalid_request"


# Invocations


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-agent-invocation-id": ""}, None),
        ({"X-Agent-Invocation-Id": "a.b:c-d_E9"}, "a.b:c-d_E9"),
    ],
)
def test_an_invocation_id_in_the_headers(headers: dict[str, str], expected: str | None) -> None:
    assert header_invocation_id(a_request(headers=headers)) == expected


@pytest.mark.parametrize("value", BAD_IDS)
def test_a_bad_invocation_id_in_the_headers_is_refused(value: str) -> None:
    with pytest.raises(InvocationError, match="x-agent-invocation-id must be") as caught:
        header_invocation_id(a_request(headers={"x-agent-invocation-id": value}))
    assert caught.value.code == "invalid_request"


def test_an_invocation_id_in_the_path_is_noted_for_the_answer() -> None:
    request = a_request(invocation_id="a:b")
    assert path_invocation_id(request) == "a:b"
    assert request[INVOCATION_ID] == "a:b"


@pytest.mark.parametrize("value", BAD_IDS)
def test_a_bad_invocation_id_in_the_path_is_refused_and_not_noted(value: str) -> None:
    request = a_request(invocation_id=value)
    with pytest.raises(InvocationError, match="id in the path must be") as caught:
        path_invocation_id(request)
    assert caught.value.code == "invalid_request"
    assert INVOCATION_ID not in request
