"""What a request or handshake says of itself and its sender, whatever its transport (§1, §2)."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from aiohttp import web

from agentws.agent.context import Transport
from agentws.invocations.caller import Caller, Identity
from agentws.protocol.errors import InvocationError
from agentws.protocol.identifiers import ID_RULE, given_id, is_id, new_id, trace_id
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

_CLIENT: Final = "x-client-"

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_ESCAPED: Final = re.compile(r'\\(["\\])')


def name_request(request: web.BaseRequest, new_id: Callable[[], str] = new_id) -> None:
    """Give a request the id under which it is known in logs and answers (§1)."""
    request[REQUEST_ID] = request_id(request, new_id)


def request_id(request: web.BaseRequest, new_id: Callable[[], str] = new_id) -> str:
    """Return the id of a request: of its trace, else its own, else what `new_id` makes (§1)."""
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
        client_headers=_client_headers(headers),
        query=_read_only(
            {name: value for name, value in request.query.items() if name != identity.concealed}
        ),
        trace=read_trace(headers),
    )


def _client_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return those of the headers that an application has sent along for its agent."""
    if _CLIENT not in " ".join(headers).lower():  # one look for all: there hardly ever are any
        return _NOTHING
    named = {name.lower(): value for name, value in headers.items()}
    return _read_only({name: it for name, it in named.items() if name.startswith(_CLIENT)})


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


def invoked_id(request: web.BaseRequest) -> tuple[str | None, bool]:
    """Return the id that an HTTP invoke brings along, and whether an existing one will do (§5).

    `Idempotency-Key` stands for both (draft-ietf-httpapi-idempotency-key-header). Raises
    `invalid_request`.
    """
    own = header_invocation_id(request)
    key = request.headers.get(_IDEMPOTENCY_KEY)
    if key is None:
        return own, False
    named = given_id(_IDEMPOTENCY_KEY, _unquoted(key))
    if named is None:
        raise InvocationError("invalid_request", f"{_IDEMPOTENCY_KEY} must be {ID_RULE}")
    if own is not None and own != named:
        raise InvocationError(
            "invalid_request", f"{_IDEMPOTENCY_KEY} and {INVOCATION_HEADER} name different ids"
        )
    return named, True


def _unquoted(value: str) -> str:
    """Return what a quoted string holds (RFC 8941 §3.3.3), or a bare value as it is."""
    value = value.strip()
    if not value.startswith('"'):
        return value
    if (match := _QUOTED.fullmatch(value)) is None:
        raise InvocationError(
            "invalid_request", f"{_IDEMPOTENCY_KEY} is not quoted as it should be"
        )
    return _ESCAPED.sub(r"\1", match[1])


Choice = TypeVar("Choice", bound=str)


def header_choice(request: web.BaseRequest, name: str, choices: Sequence[Choice]) -> Choice | None:
    """Return one of some words that a header may say, None without it. Raises `invalid_request`."""
    value = request.headers.get(name)
    if value is None:
        return None
    for choice in choices:
        if choice == value:
            return choice
    raise InvocationError("invalid_request", f"{name} must be one of {', '.join(choices)}")
