"""The agent as an object that functions are registered with, each for its role."""

import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from agentws.agent.context import InvocationContext
from agentws.agent.payloads import Convert, handler_types
from agentws.agent.signatures import check_call, checked_subprotocols
from agentws.protocol.encoding import encode
from agentws.protocol.schemas import UNTYPED, Contract

if TYPE_CHECKING:
    from aiohttp import web

InvokeHandler = (
    Callable[[Any, InvocationContext], Awaitable[Any]]
    | Callable[[Any, InvocationContext], AsyncGenerator[Any, None]]
)

ContextHandler = Callable[[InvocationContext], Awaitable[Any]]

SocketHandler = Callable[["web.WebSocketResponse", InvocationContext], Awaitable[None]]

LifecycleHandler = Callable[[], Awaitable[None]]

ReadinessHandler = Callable[[], Awaitable[str | None]]

Function = TypeVar("Function", bound=Callable[..., Any])


class Agent:
    """An agent: one invoke handler for every transport, and optional others.

    `openapi` and `asyncapi` are the documents served at `…/docs/openapi.json` and
    `…/docs/asyncapi.json`, the latter in place of the one that describes the framed socket;
    `subprotocols` are those that its sockets speak (RFC 6455 §1.9), the best first. The decorators
    return the function unchanged; they raise `TypeError` for one that is not async or that cannot
    be called with the arguments that they document. Registering twice warns, and the last one wins.
    """

    def __init__(
        self,
        openapi: Mapping[str, Any] | None = None,
        asyncapi: Mapping[str, Any] | None = None,
        subprotocols: Iterable[str] = (),
    ) -> None:
        for name, document in (("openapi", openapi), ("asyncapi", asyncapi)):
            if document is not None:
                _check_document(name, document)
        self.openapi = openapi
        self.asyncapi = asyncapi
        self.subprotocols = checked_subprotocols(subprotocols)
        self.daemon_settings: Mapping[str, object] = {}
        self.invoke: InvokeHandler | None = None
        self.get: ContextHandler | None = None
        self.cancel: ContextHandler | None = None
        self.serve_socket: SocketHandler | None = None
        self.startup: LifecycleHandler | None = None
        self.shutdown: LifecycleHandler | None = None
        self.readiness: ReadinessHandler | None = None
        self.contract = UNTYPED
        self._convert: Convert | None = None

    daemon_settings: Mapping[str, object]
    """What the agent wants of the configuration, by dotted key; all else ranks above it."""

    contract: Contract
    """What the types of the invoke handler say."""

    streams: bool = False
    """Whether the invoke handler is an async generator."""

    def invoke_handler(self, function: Function) -> Function:
        """Register `async def (payload, context)`: a coroutine answers, a generator streams.

        Its annotations are the contract: payloads are converted to the type of the first parameter,
        and both types make the documents. Raises `TypeError` for a type of the payload that cannot
        be understood; one of the answer warns, and says nothing.
        """
        check_call(function, "invoke handler", ("payload", "context"), may_stream=True)
        types = handler_types(function)
        if types.answer_problem is not None:
            warnings.warn(types.answer_problem, UserWarning, stacklevel=2)
        self.contract, self._convert = types.contract, types.convert
        self.streams = types.contract.streams
        return self._register("invoke", function)

    def convert(self, payload: Any) -> Any:
        """Return a payload as the invoke handler wants it.

        Raises `InvocationError` (`invalid_request`) for one that does not fit.
        """
        return payload if self._convert is None else self._convert(payload)

    def get_invocation_handler(self, function: Function) -> Function:
        """Register `async def (context)` to answer polls; None stands for the record."""
        check_call(function, "get_invocation handler", ("context",))
        return self._register("get", function)

    def cancel_invocation_handler(self, function: Function) -> Function:
        """Register `async def (context)` to run before a cancel, and to answer it."""
        check_call(function, "cancel_invocation handler", ("context",))
        return self._register("cancel", function)

    def ws_handler(self, function: Function) -> Function:
        """Register `async def (ws, context)` to own the raw socket."""
        check_call(function, "WebSocket handler", ("ws", "context"))
        return self._register("serve_socket", function)

    def startup_handler(self, function: Function) -> Function:
        """Register `async def ()` to run before the daemon listens; if it raises, it won't."""
        check_call(function, "startup handler", ())
        return self._register("startup", function)

    def shutdown_handler(self, function: Function) -> Function:
        """Register `async def ()` to run when the last invocation has ended."""
        check_call(function, "shutdown handler", ())
        return self._register("shutdown", function)

    def readiness_handler(self, function: Function) -> Function:
        """Register `async def () -> None | str` for probes: a text says why it is not ready.

        It has two seconds, and is called once for all who ask at the same time. The text is told
        to whoever reaches `/readiness`, so it should hold no secret; of a longer one, the first 200
        characters are.
        """
        check_call(function, "readiness handler", ())
        return self._register("readiness", function)

    def _register(self, role: str, function: Function) -> Function:
        if getattr(self, role) is not None:
            warnings.warn(f"The agent's {role} handler is replaced", UserWarning, stacklevel=3)
        setattr(self, role, function)
        return function


def _check_document(name: str, document: object) -> None:
    """Raise `TypeError` for what JSON cannot hold, or is no object in it."""
    if not isinstance(document, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(document).__name__}")
    try:
        encode(document)
    except Exception as error:  # its class depends on the value
        raise TypeError(f"{name} must hold only what JSON can: {error}") from error
