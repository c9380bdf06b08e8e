"""What every request and handshake is asked and told, whatever its transport."""

import base64
from collections.abc import Sequence
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from agentws.caller import request_id
from agentws.protocol.errors import InvocationError
from agentws.protocol.identifiers import given_id, new_id

REQUEST_ID: Final = web.RequestKey("request_id", str)
"""Under which id the request is known."""

SESSION_ID: Final = web.RequestKey("session_id", str)
"""Which session the request belongs to, where its answer is to tell."""

INVOCATION_ID: Final = web.RequestKey("invocation_id", str)
"""Which invocation the answer is about, where it is about one."""

INVOCATION_HEADER: Final = "x-agent-invocation-id"

_WEBSOCKET_VERSION: Final = "13"
_KEY_LENGTH: Final = 16
"""Bytes in the key of a handshake (RFC 6455 §4.1)."""


def name_request(request: web.BaseRequest) -> None:
    """Give a request the id under which it is known in logs and answers (§1)."""
    request[REQUEST_ID] = request_id(request)


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


def socket_session(request: web.BaseRequest, configured: str) -> str:
    """Return the session of a socket, for messages that name none (§2).

    The configured one wins over the query's; without both, it is a new UUID. Raises
    `InvocationError` (`invalid_request`).
    """
    asked = _asked_session(request)
    return configured or asked or new_id()


def http_session(request: web.BaseRequest, configured: str) -> str:
    """Return the session of an HTTP request (§2).

    The query's wins over the configured one; without both, it is a new UUID. Raises
    `InvocationError` (`invalid_request`).
    """
    return _asked_session(request) or configured or new_id()


def _asked_session(request: web.BaseRequest) -> str | None:
    return given_id("agent_session_id", request.query.get("agent_session_id"))


def header_invocation_id(request: web.BaseRequest) -> str | None:
    """Return the invocation id that an HTTP invoke brings along. Raises `invalid_request`."""
    return given_id(INVOCATION_HEADER, request.headers.get(INVOCATION_HEADER))


def path_invocation_id(request: web.Request) -> str:
    """Return the id in the path, and note it for the answer. Raises `invalid_request`."""
    invocation_id = given_id("The invocation id in the path", request.match_info["id"])
    assert invocation_id is not None  # the route matches no empty id
    request[INVOCATION_ID] = invocation_id
    return invocation_id
