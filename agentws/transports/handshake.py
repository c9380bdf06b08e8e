"""The opening of a WebSocket (RFC 6455 §4): what it must have, and which subprotocol is chosen."""

import base64
from collections.abc import Sequence
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from agentws.protocol.errors import InvocationError

_WEBSOCKET_VERSION: Final = "13"

_KEY_LENGTH: Final = 16
"""Bytes in the key of a handshake (RFC 6455 §4.1)."""


class UpgradeRequired(InvocationError):
    """A plain request on a WebSocket route (§1)."""

    def __init__(self, message: str) -> None:
        super().__init__("upgrade_required", message)


def require_upgrade(request: web.BaseRequest) -> None:
    """Raise `UpgradeRequired` unless the request opens a WebSocket (RFC 6455 §4.2.1)."""
    headers = request.headers
    options = ",".join(headers.getall(hdrs.CONNECTION, ())).lower().split(",")
    connection = {option.strip() for option in options}
    if headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket" or "upgrade" not in connection:
        raise UpgradeRequired("This route speaks WebSocket only")
    if request.version < HttpVersion11:
        raise UpgradeRequired("A WebSocket is opened over HTTP/1.1, not an older version")
    spoken = f"version {_WEBSOCKET_VERSION} of WebSocket is spoken here"
    if not (version := headers.get(hdrs.SEC_WEBSOCKET_VERSION)):
        raise UpgradeRequired(f"The Sec-WebSocket-Version header is missing; {spoken}")
    if version != _WEBSOCKET_VERSION:
        raise UpgradeRequired(f"Only {spoken}")


def require_key(request: web.BaseRequest) -> None:
    """Raise `InvocationError` (`invalid_request`) unless a handshake has a key (RFC 6455 §4.1)."""
    name = "Sec-WebSocket-Key"
    if not (key := request.headers.get(hdrs.SEC_WEBSOCKET_KEY)):
        raise InvocationError("invalid_request", f"The {name} header is missing")
    try:
        length = len(base64.b64decode(key, validate=True))
    except ValueError:
        length = 0
    if length != _KEY_LENGTH:
        raise InvocationError("invalid_request", f"{name} must be {_KEY_LENGTH} bytes in base64")


def choose_subprotocol(request: web.BaseRequest, spoken: Sequence[str]) -> tuple[str, ...]:
    """Return the first of those `spoken` that the client offers, alone; else nothing (§1)."""
    offer = request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL)
    if offer is None:
        return ()
    offered = {name.strip() for name in offer.split(",")}
    return next(((name,) for name in spoken if name in offered), ())
