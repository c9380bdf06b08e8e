"""Which session a request or a socket belongs to (§2)."""

from collections.abc import Callable

from aiohttp import web

from agentws.protocol.identifiers import given_id, new_id


def socket_session(request: web.BaseRequest, configured: str) -> str:
    """Return the session of a socket, for messages that name none (§2).

    The configured one wins over the query's; without both, it is a new UUID. Raises
    `InvocationError` (`invalid_request`).
    """
    asked = _asked_session(request)
    return configured or asked or new_id()


def http_session(
    request: web.BaseRequest, configured: str, new_id: Callable[[], str] = new_id
) -> str:
    """Return the session of an HTTP request (§2).

    The query's wins over the configured one; without both, it is what `new_id` makes. Raises
    `InvocationError` (`invalid_request`).
    """
    return _asked_session(request) or configured or new_id()


def _asked_session(request: web.BaseRequest) -> str | None:
    return given_id("agent_session_id", request.query.get("agent_session_id"))
