"""What a request or handshake says of itself and its sender, whatever its transport (§1, §2)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web

from agentws.agent.context import Transport
from agentws.invocations.caller import Caller, Identity
from agentws.protocol.identifiers import given_id, is_id, new_id, trace_id
from agentws.telemetry.trace_context import read_trace

REQUEST_ID: Final = web.RequestKey("request_id", str)
"""Under which id the request is known."""

SESSION_ID: Final = web.RequestKey("session_id", str)
"""Which session the request belongs to, where its answer is to tell."""

INVOCATION_ID: Final = web.RequestKey("invocation_id", str)
"""Which invocation the answer is about, where it is about one."""

IDENTITY: Final = web.RequestKey("identity", Identity)
"""Who was let in; absent where the door is open to all."""

INVOCATION_HEADER: Final = "x-agent-invocation-id"


def name_request(request: web.BaseRequest) -> None:
    """Give a request the id under which it is known in logs and answers (§1)."""
    request[REQUEST_ID] = request_id(request)


def request_id(request: web.BaseRequest) -> str:
    """Return the id of a request: of its trace, else its own, else a new one (§1)."""
    own = request.headers.get("x-request-id")
    return (
        trace_id(request.headers.get("traceparent"))
        or (own if own is not None and is_id(own) else None)
        or new_id()
    )


def read_caller(request: web.BaseRequest, transport: Transport, request_id: str) -> Caller:
    """Read who calls from the headers and the query of a request or handshake.

    Who came with a token is the user that it names, whatever the headers say.
    """
    headers = request.headers
    identity = request.get(IDENTITY, _ANYBODY)
    return Caller(
        transport=transport,
        request_id=request_id,
        user_id=identity.subject or headers.get("x-agent-user-id") or None,
        call_id=headers.get("x-agent-foundry-call-id") or None,
        client_headers=_read_only(
            {
                name.lower(): value
                for name, value in headers.items()
                if name.lower().startswith("x-client-")
            }
        ),
        query=_read_only(
            {name: value for name, value in request.query.items() if name != identity.concealed}
        ),
        trace=read_trace(headers),
    )


def _read_only(values: dict[str, str]) -> Mapping[str, str]:
    """Return a view that handlers cannot change; an empty one is the same for all."""
    return MappingProxyType(values) if values else _NOTHING


_ANYBODY: Final = Identity()
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def header_invocation_id(request: web.BaseRequest) -> str | None:
    """Return the invocation id that an HTTP invoke brings along. Raises `invalid_request`."""
    return given_id(INVOCATION_HEADER, request.headers.get(INVOCATION_HEADER))


def path_invocation_id(request: web.Request) -> str:
    """Return the id in the path, and note it for the answer. Raises `invalid_request`."""
    invocation_id = given_id("The invocation id in the path", request.match_info["id"])
    assert invocation_id is not None  # the route matches no empty id
    request[INVOCATION_ID] = invocation_id
    return invocation_id
