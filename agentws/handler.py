"""What an agent author imports, and how the daemon loads it."""

import asyncio
import functools
import importlib
import inspect
import os
import re
import sys
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import force_setattr

from agentws.process import Stopped
from agentws.protocol.encoding import encode_progress
from agentws.protocol.errors import InvocationError

if TYPE_CHECKING:
    from aiohttp import web

__all__ = [
    "Agent",
    "InvocationContext",
    "InvocationError",
    "InvocationWebSocketHandler",
    "LoadError",
    "Served",
    "load",
]

Transport = Literal["websocket", "http"]


class Reporter(Protocol):
    """Takes the progress of one invocation."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to report."""

    def report(self, progress: bytes) -> None:
        """Put progress (JSON) where whoever polls finds it."""


class _Ended:
    """In place of what took progress, so that a context that is kept does not keep that, too."""

    ended = True

    def report(self, progress: bytes) -> None:
        """Drop it."""


_ENDED: Final = _Ended()


class InvocationContext(Struct, frozen=True):
    """What a handler may know of the invocation that it serves."""

    invocation_id: str
    session_id: str
    transport: Transport = "websocket"
    client_headers: Mapping[str, str] = {}
    """The caller's `x-client-*` headers, whole names in lower case."""
    query: Mapping[str, str] = {}
    """The query parameters of the request or handshake."""
    user_id: str | None = None
    """The subject of the caller's token, else its `x-agent-user-id`, where it sent one."""
    call_id: str | None = None
    """`x-agent-foundry-call-id`, where the caller sent one."""
    request_id: str = ""
    """The id under which the request or handshake is known in logs and answers."""
    record: dict[str, Any] | None = None
    """What a poll would answer (§5), as it was before a get or cancel handler was called.

    None where there is no such invocation, and in other handlers.
    """
    _reporter: Reporter | None = None

    def report(self, value: Any) -> None:
        """Put a JSON value into the record as `progress`, where whoever polls finds it.

        The last value wins; with Redis, the other replicas see it about a tenth of a second later.
        It stays when the invocation has ended, and after that, nothing is put there any more. To
        be called in an invoke handler, or in what that has started, from the event loop's thread.

        Raises `ValueError` for what JSON cannot hold and for more than 64 KiB of it, and
        `RuntimeError` in other handlers and other threads.
        """
        if self._reporter is None:
            raise RuntimeError("Only an invoke handler has progress to report")
        if not _is_in_event_loop():
            raise RuntimeError(
                "Progress is reported from the event loop's thread; elsewhere, "
                "loop.call_soon_threadsafe(context.report, value) hands it over"
            )
        if not self._reporter.ended:
            self._reporter.report(encode_progress(value))


def end_reports(context: InvocationContext) -> None:
    """Let a context report nothing more: the invocation has ended."""
    force_setattr(context, "_reporter", _ENDED)  # frozen for authors, not for us


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


InvokeHandler = (
    Callable[[Any, InvocationContext], Awaitable[Any]]
    | Callable[[Any, InvocationContext], AsyncGenerator[Any, None]]
)
ContextHandler = Callable[[InvocationContext], Awaitable[Any]]
SocketHandler = Callable[["web.WebSocketResponse", InvocationContext], Awaitable[None]]
LifecycleHandler = Callable[[], Awaitable[None]]

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
            if document is not None and not isinstance(document, Mapping):
                raise TypeError(f"{name} must be a dict, not {type(document).__name__}")
        self.openapi = openapi
        self.asyncapi = asyncapi
        self.subprotocols = _checked_subprotocols(subprotocols)
        self.daemon_settings: Mapping[str, object] = {}
        self.invoke: InvokeHandler | None = None
        self.get: ContextHandler | None = None
        self.cancel: ContextHandler | None = None
        self.serve_socket: SocketHandler | None = None
        self.startup: LifecycleHandler | None = None
        self.shutdown: LifecycleHandler | None = None

    daemon_settings: Mapping[str, object]
    """What the agent wants of the configuration, by dotted key; all else ranks above it."""

    streams: bool = False
    """Whether the invoke handler is an async generator."""

    def invoke_handler(self, function: Function) -> Function:
        """Register `async def (payload, context)`: a coroutine answers, a generator streams."""
        _check_call(function, "invoke handler", ("payload", "context"), may_stream=True)
        self.streams = _is_generator(function)
        return self._register("invoke", function)

    def get_invocation_handler(self, function: Function) -> Function:
        """Register `async def (context)` to answer polls; None stands for the record."""
        _check_call(function, "get_invocation handler", ("context",))
        return self._register("get", function)

    def cancel_invocation_handler(self, function: Function) -> Function:
        """Register `async def (context)` to run before a cancel, and to answer it."""
        _check_call(function, "cancel_invocation handler", ("context",))
        return self._register("cancel", function)

    def ws_handler(self, function: Function) -> Function:
        """Register `async def (ws, context)` to own the raw socket."""
        _check_call(function, "WebSocket handler", ("ws", "context"))
        return self._register("serve_socket", function)

    def startup_handler(self, function: Function) -> Function:
        """Register `async def ()` to run before the daemon listens; if it raises, it won't."""
        _check_call(function, "startup handler", ())
        return self._register("startup", function)

    def shutdown_handler(self, function: Function) -> Function:
        """Register `async def ()` to run when the last invocation has ended."""
        _check_call(function, "shutdown handler", ())
        return self._register("shutdown", function)

    def _register(self, role: str, function: Function) -> Function:
        if getattr(self, role) is not None:
            warnings.warn(f"The agent's {role} handler is replaced", UserWarning, stacklevel=3)
        setattr(self, role, function)
        return function


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
        cls.subprotocols = _checked_subprotocols(cls.subprotocols)
        for name, arguments in _METHODS.items():
            method = getattr(cls, name)
            if method is not getattr(InvocationWebSocketHandler, name):
                _check_call(method, f"{name} method", ("self", *arguments))

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


_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What a subprotocol's name is made of (RFC 9110 §5.6.2)."""


def _checked_subprotocols(names: Iterable[str]) -> tuple[str, ...]:
    """Raise `TypeError` unless all of them are names that a handshake may carry."""
    found = list(names)
    are_names = all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in found)
    if isinstance(names, str) or not are_names:
        raise TypeError(f"subprotocols must be a list of names such as 'chat.v1', not {names!r}")
    return tuple(found)


def _not_offered() -> InvocationError:
    return InvocationError("not_found", "The agent does not offer this")


def _check_call(
    function: object, role: str, arguments: tuple[str, ...], *, may_stream: bool = False
) -> None:
    """Raise `TypeError` unless `function` is async and takes exactly these positional arguments."""
    kinds = "an async function or async generator" if may_stream else "an async function"
    wanted = f"{role} must be {kinds} taking ({', '.join(arguments)})"
    name = getattr(function, "__qualname__", repr(function))
    if not _is_coroutine(function) and not (may_stream and _is_generator(function)):
        raise TypeError(f"The {wanted}; {name} is not")
    assert callable(function)
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise TypeError(f"The {wanted}; {name} cannot be called so: {error}") from None


def _is_coroutine(function: object) -> bool:
    return inspect.iscoroutinefunction(_code_of(function))


def _is_generator(function: object) -> bool:
    return inspect.isasyncgenfunction(_code_of(function))


def _code_of(function: object) -> object:
    """Look through `functools.partial`, and at `__call__` of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return getattr(function, "__call__", function)  # noqa: B004 - the method, not a test


# --- loading ----------------------------------------------------------------------------------


_loading: Final[ContextVar[bool]] = ContextVar("loading", default=False)


def is_loading() -> bool:
    """Tell whether the daemon is importing the agent's module at this moment."""
    return _loading.get()


class LoadError(Exception):
    """The handler cannot be loaded; the text is one sentence that says why."""


async def _echo(payload: Any, _context: InvocationContext) -> Any:
    return payload


Served = Agent | InvocationWebSocketHandler
"""What a daemon can serve."""


def load(target: str | None) -> Served:
    """Import `module:attribute` and return what it serves; the built-in echo without a target.

    The module is named, and then the folder that the daemon was started in is importable; or it is
    the path of its file, whose folder is. The attribute is an `Agent`, an instance or a subclass of
    `InvocationWebSocketHandler`, or a bare async function or async generator function. Raises
    `LoadError`.
    """
    if not target:
        return _agent_of(_echo)
    place, _, attribute = target.rpartition(":")
    if not place or not attribute:
        raise LoadError(
            "handler.target must look like package.module:attribute or path/to/module.py:attribute,"
            f" not {target!r}"
        )
    is_path = os.sep in place or place.endswith(".py")
    found: object = _import_file(place, target) if is_path else _import(place, target)
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        problem = f"{place} has no {attribute!r}"
        raise LoadError(f"handler.target {target!r}: {problem}") from error
    except Exception as error:
        raise LoadError(f"handler.target {target!r}: {_where_and_what(error)}") from error
    return _as_agent(found, target)


def _import_file(place: str, target: str) -> object:
    """Import a module by its path, under the name that others in its folder know it by."""
    path = Path(os.path.abspath(place))  # a link's own name counts, wherever it leads
    if not path.is_file():
        raise LoadError(f"handler.target {target!r}: there is no file {path}")
    if path.suffix != ".py" or "." in path.stem:
        raise LoadError(f"handler.target {target!r}: {path.name} should be named like module.py")
    module = _import(path.stem, target, str(path.parent))
    file = getattr(module, "__file__", None)
    if file is None or not path.samefile(file):
        raise LoadError(
            f"handler.target {target!r}: the name {path.stem!r} belongs to another module"
            f" ({file or 'built-in'}); rename the file"
        )
    return module


def _import(module_name: str, target: str, folder: str | None = None) -> object:
    folder = folder or os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    token = _loading.set(True)
    try:
        return importlib.import_module(module_name)
    except (KeyboardInterrupt, Stopped):  # somebody's signal
        raise
    except BaseException as error:  # whatever a module does, its import has failed
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module_name):
            problem = f"there is no module {error.name!r} in {folder} or among the packages"
        else:
            problem = _where_and_what(error)
        raise LoadError(f"handler.target {target!r}: {problem}") from error
    finally:
        _loading.reset(token)


def _is_part(missing: str | None, module_name: str) -> bool:
    """Tell whether the missing module is the target itself or a package above it."""
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _where_and_what(error: BaseException) -> str:
    """Name the file, the line and the exception of an import that failed."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
    ]
    file, line = (frames[-1].filename, frames[-1].lineno) if frames else ("?", None)
    if isinstance(error, SyntaxError) and error.filename is not None:
        file, line = error.filename, error.lineno
    return f"{file}, line {line}: {_one_line(error)}"


def _as_agent(found: object, target: str) -> Served:
    if isinstance(found, Served):
        return found
    try:
        if inspect.isclass(found) and issubclass(found, InvocationWebSocketHandler):
            return found()
        if callable(found) and not inspect.isclass(found):
            return _agent_of(found)
    except (KeyboardInterrupt, Stopped):  # somebody's signal
        raise
    except BaseException as error:
        raise LoadError(f"handler.target {target!r}: {_one_line(error)}") from error
    kind = "a class" if inspect.isclass(found) else f"a value of type {type(found).__name__}"
    raise LoadError(
        f"handler.target {target!r} must be an Agent, an InvocationWebSocketHandler "
        f"or an async function, not {kind}"
    )


def _one_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(it cannot be told)"
    return f"{type(error).__name__}: {' '.join(text.split())}"


def _agent_of(function: Callable[..., Any]) -> Agent:
    agent = Agent()
    agent.invoke_handler(function)
    return agent
