"""The agent as a class that owns its socket and writes its own HTTP answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from agentws.agent.context import InvocationContext
from agentws.agent.signatures import check_call, checked_subprotocols
from agentws.protocol.errors import InvocationError

if TYPE_CHECKING:
    from aiohttp import web


class InvocationWebSocketHandler(ABC):
    """An agent that owns its socket and its HTTP answers; derive from it and override.

    A method that is not async, or that takes other arguments, is refused with `TypeError` where
    the class is defined.
    """

    daemon_settings: Mapping[str, object] = MappingProxyType({})

    subprotocols: Iterable[str] = ()
    """The subprotocols that the agent's sockets speak (RFC 6455 §1.9), the best first."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.subprotocols = checked_subprotocols(cls.subprotocols)
        for name, arguments in _METHODS.items():
            method = getattr(cls, name)
            if method is not getattr(InvocationWebSocketHandler, name):
                check_call(method, f"{name} method", ("self", *arguments))

    @abstractmethod
    async def handle_websocket(
        self, ws: "web.WebSocketResponse", context: InvocationContext
    ) -> None:
        """Serve a raw socket until it returns, which closes it with 1000."""

    async def handle(
        self, request: "web.Request", context: InvocationContext
    ) -> "web.StreamResponse":
        """Answer `POST /invocations`."""
        raise _not_offered()

    async def get(
        self, invocation_id: str, request: "web.Request", context: InvocationContext
    ) -> "web.StreamResponse":
        """Answer `GET /invocations/{id}`."""
        raise _not_offered()

    async def cancel(
        self, invocation_id: str, request: "web.Request", context: InvocationContext
    ) -> "web.StreamResponse":
        """Answer `POST /invocations/{id}/cancel`."""
        raise _not_offered()

    async def get_openapi(self, request: "web.Request") -> "web.StreamResponse":
        """Answer `GET …/docs/openapi.json`."""
        raise _not_offered()

    async def get_asyncapi(self, request: "web.Request") -> "web.StreamResponse":
        """Answer `GET …/docs/asyncapi.json`."""
        raise _not_offered()


_METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "handle_websocket": ("ws", "context"),
    "handle": ("request", "context"),
    "get": ("invocation_id", "request", "context"),
    "cancel": ("invocation_id", "request", "context"),
    "get_openapi": ("request",),
    "get_asyncapi": ("request",),
}


def _not_offered() -> InvocationError:
    return InvocationError("not_found", "The agent does not offer this")
