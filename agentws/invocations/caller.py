"""Who calls, and how much that one runs."""

from collections.abc import Mapping

from msgspec import Struct
from opentelemetry.context import Context as TraceContext

from agentws.agent.context import InvocationContext, Transport
from agentws.agent.conversation import Conversations, Draining
from agentws.telemetry.trace_context import NO_TRACE


class Identity(Struct, frozen=True):
    """What a caller that had to prove itself has proved."""

    subject: str | None = None
    """Whom its token names (`sub`); None for an API key, which names a service, not a user."""
    concealed: str = ""
    """The query parameter that may hold a credential, which is no business of a handler's."""


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
        self,
        invocation_id: str,
        session_id: str,
        draining: Draining | None = None,
        conversations: Conversations | None = None,
    ) -> InvocationContext:
        """Return what a handler may know when it serves this caller.

        An invoke handler talks to its clients by one of `conversations`; others have nobody there.
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
            conversations,
            draining,
        )
