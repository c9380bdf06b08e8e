"""What every request and handshake is asked and told, whatever its transport."""

import uuid
from typing import Final

from aiohttp import hdrs, web

from agentws.caller import request_id
from agentws.protocol import InvocationError, given_id

REQUEST_ID: Final = web.RequestKey("request_id", str)
"""Under which id a request is known; set by the middleware of the server."""

SESSION_HEADER: Final = "x-agent-session-id"
_WEBSOCKET_VERSION: Final = "13"


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
    connection = {token.strip() for token in headers.get(hdrs.CONNECTION, "").lower().split(",")}
    if headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket" or "upgrade" not in connection:
        raise UpgradeRequired("This route speaks WebSocket only")
    if headers.get(hdrs.SEC_WEBSOCKET_VERSION) != _WEBSOCKET_VERSION:
        raise UpgradeRequired(f"Only version {_WEBSOCKET_VERSION} of WebSocket is spoken here")


def session_of(request: web.BaseRequest, configured: str) -> str:
    """Return the session of a request or handshake that names none in a message (§2).

    The configured one wins over the query's; without both, a new UUID. Raises `InvocationError`
    (`invalid_request`).
    """
    asked = given_id("agent_session_id", request.query.get("agent_session_id"))
    return configured or asked or str(uuid.uuid4())
