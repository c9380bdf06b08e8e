"""What a handshake has to bring: an upgrade, a version, a key."""

import pytest
from aiohttp import HttpVersion10
from aiohttp.test_utils import make_mocked_request

from agentws.protocol.errors import InvocationError
from agentws.transports.handshake import UpgradeRequired, require_key, require_upgrade
from tests.support.requests import a_request

UPGRADE = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}


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
