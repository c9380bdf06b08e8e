"""Who calls: what a request or a handshake says of its sender, and how much that one runs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web
from msgspec import Struct
from opentelemetry.context import Context as TraceContext

from agentws.agent.context import InvocationContext, Reporter, Transport
from agentws.protocol.identifiers import is_id, new_id, trace_id
from agentws.telemetry.trace_context import NO_TRACE, read_trace


class Identity(Struct, frozen=True):
    """What a caller that had to prove itself has proved."""

    subject: str | None = None
    """Whom its token names (`sub`); None for an API key, which names a service, not a user."""
    concealed: str = ""
    """The query parameter that may hold a credential, which is no business of a handler's."""


IDENTITY: Final = web.RequestKey("identity", Identity)
"""Who was let in; absent where the door is open to all."""


class Caller(Struct):
    """The sender of one HTTP request, or of all messages on one socket."""

    transport: Transport
    request_id: str
    user_id: str | None = None
    call_id: str | None = None
    client_headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    running: int = 0
    """How many invocations that this caller started are running."""
    started: int = 0
    """How many it has started, of those whose id was free."""
    max_running: int | None = None
    """How many it may have running at a time, None for no limit of its own."""
    trace: TraceContext = NO_TRACE
    """Where the request or handshake stands in the caller's trace, and the caller's baggage."""

    @property
    def owner(self) -> str | None:
        """To whom the caller's invocations belong (§5): a token's subject, a user, or nobody."""
        return self.user_id

    def context(
        self, invocation_id: str, session_id: str, reporter: Reporter | None = None
    ) -> InvocationContext:
        """Return what a handler may know when it serves this caller.

        An invoke handler's progress goes to `reporter`; other handlers have none to report.
        """
        return InvocationContext(
            invocation_id,
            session_id,
            self.transport,
            self.client_headers,
            self.query,
            self.user_id,
            self.call_id,
            self.request_id,
            None,
            reporter,
        )


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
