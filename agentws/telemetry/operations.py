"""What is told of invocations: an operation's beginning and its end, as a span and in metrics.

Uses the OpenTelemetry API only; `exporting` brings what sends it anywhere.
"""

import time
from asyncio import CancelledError
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, get_args

from msgspec import Struct
from opentelemetry.context import Context as TraceContext
from opentelemetry.context import attach, get_current
from opentelemetry.metrics import Meter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from agentws.agent.context import InvocationContext, Transport
from agentws.config.settings import AgentSettings
from agentws.protocol.errors import InvocationError, internal_error
from agentws.telemetry.metrics import Metrics, silent
from agentws.telemetry.trace_context import NO_TRACE, handler_trace

if TYPE_CHECKING:
    from agentws.telemetry.prometheus import Scrapes

OperationName = Literal["invoke_agent", "get_invocation", "cancel_invocation"]

SYSTEM: Final = "azure.ai.agentserver"

_PREFIX: Final[Mapping[Transport, str]] = {
    "websocket": f"{SYSTEM}.invocations_ws.",
    "http": f"{SYSTEM}.invocations.",
}

_ERROR_TYPE: Final = "error.type"


class TelemetryError(Exception):
    """Telemetry cannot be set up as configured; the text is one sentence that says why."""


class Operation(Struct, gc=False):
    """One invoke, get or cancel under way, of which nothing is told; it may end more than once.

    As a context manager it makes its trace current, and ends with the body.
    """

    trace: TraceContext
    """What should be current while the agent's code runs."""
    _outer: TraceContext = NO_TRACE

    def first_chunk(self) -> None:
        """Take note of the first chunk of a stream."""

    def succeed(self) -> None:
        """End well."""

    def cancel(self) -> None:
        """End because somebody wished so, which is no failure."""

    def fail(self, error: InvocationError, cause: BaseException | None = None) -> None:
        """End with what the client is told, and with the exception behind it where there is one."""

    def refuse(self, error: InvocationError, *, is_expected: bool = False) -> None:
        """End without having begun, for the reason that the client is told.

        Where an id that exists was to be expected, that is no failure.
        """

    def __enter__(self) -> Self:
        self._outer = get_current()
        attach(self.trace)
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        attach(self._outer)  # detaching would fail where a coroutine is closed from elsewhere
        match error:
            case None:
                self.succeed()
            case CancelledError() | GeneratorExit():
                self.cancel()
            case InvocationError(code="internal_error"):
                self.fail(error, error.__cause__)
            case InvocationError():
                self.fail(error)
            case _:
                self.fail(internal_error(), error)


class Telemetry:
    """What the daemon tells of its work: nothing, but handlers find their caller's trace."""

    patience: float = 0.0
    """Seconds that telling the last of it may take at the end of the daemon."""

    scrapes: "Scrapes | None" = None
    """What answers those who ask for metrics, where that is configured."""

    def __init__(self) -> None:
        self.metrics = silent()

    def begin(
        self, _action: OperationName, context: InvocationContext, parent: TraceContext
    ) -> Operation:
        """Begin an operation in its caller's trace."""
        return Operation(handler_trace(parent, context))

    async def close(self, seconds: float) -> None:  # noqa: ARG002 - where there is a rest
        """Tell the rest within so many seconds, and nothing after that."""
        if self.scrapes is not None:
            self.scrapes.close()


class _Scheme(Struct, frozen=True):
    """What the spans of one action on one transport have in common, prepared once."""

    name: str
    attributes: Mapping[str, str]
    prefix: str
    invocation_key: str
    session_key: str


class ObservedOperation(Operation, kw_only=True):
    """One that is told by a span, and an invoke by metrics, too."""

    span: Span
    scheme: _Scheme
    metrics: Metrics
    timed: bool
    began_at: float
    ended: bool = False

    def first_chunk(self) -> None:
        """Note the time that it took."""
        self.metrics.first_chunk(time.monotonic() - self.began_at)

    def succeed(self) -> None:
        """End the span as it is."""
        if not self.ended:
            self._end(None)

    def cancel(self) -> None:
        """End the span with `error.type` and without an error (§9)."""
        if not self.ended:
            self.span.set_attribute(_ERROR_TYPE, "cancelled")
            self._end("cancelled")

    def fail(self, error: InvocationError, cause: BaseException | None = None) -> None:
        """Record the exception, and end the span as failed."""
        if self.ended:
            return
        _record(self.span, error if cause is None else cause)
        self.span.set_status(Status(StatusCode.ERROR, error.message))
        self.span.set_attributes(
            {
                _ERROR_TYPE: error.code if cause is None else type(cause).__name__,
                self.scheme.prefix + "error.code": error.code,
                self.scheme.prefix + "error.message": error.message,
            }
        )
        self.metrics.error(error.code)
        self._end(error.code)

    def refuse(self, error: InvocationError, *, is_expected: bool = False) -> None:
        """End as failed, unless that was to be expected; there is no time to be told."""
        self.timed = False
        if is_expected and error.code == "already_exists":
            self.succeed()
        else:
            self.fail(error)

    def _end(self, error_code: str | None) -> None:
        self.ended = True
        self.span.end()
        if self.timed:
            self.metrics.invocation_ended(time.monotonic() - self.began_at, error_code)


class ObservingTelemetry(Telemetry):
    """Tells of its work by the spans of a tracer and the instruments of a meter (§9)."""

    def __init__(self, tracer: Tracer, meter: Meter, agent: AgentSettings) -> None:
        self.metrics = Metrics(meter)
        self._tracer = tracer
        self._schemes = {
            (action, transport): _scheme(action, prefix, agent)
            for action in get_args(OperationName)
            for transport, prefix in _PREFIX.items()
        }

    def begin(
        self, action: OperationName, context: InvocationContext, parent: TraceContext
    ) -> Operation:
        """Begin a span, child of the caller's."""
        scheme = self._schemes[action, context.transport]
        invocation_id, session_id = context.invocation_id, context.session_id
        attributes = {
            **scheme.attributes,
            "gen_ai.response.id": invocation_id,
            "gen_ai.conversation.id": session_id,
            "microsoft.session.id": session_id,
            scheme.invocation_key: invocation_id,
            scheme.session_key: session_id,
        }
        span = self._tracer.start_span(scheme.name, parent, SpanKind.SERVER, attributes)
        return ObservedOperation(
            trace=handler_trace(parent, context, span),
            span=span,
            scheme=scheme,
            metrics=self.metrics,
            timed=action == "invoke_agent",
            began_at=time.monotonic(),
        )


def _scheme(action: OperationName, prefix: str, agent: AgentSettings) -> _Scheme:
    label = f"{agent.name}:{agent.version}" if agent.name and agent.version else agent.name
    known = {
        "gen_ai.agent.id": agent.id,
        "gen_ai.agent.name": agent.name,
        "gen_ai.agent.version": agent.version,
    }
    return _Scheme(
        name=f"{action} {label}".rstrip(),
        attributes={
            "gen_ai.operation.name": action,
            "gen_ai.provider.name": "AzureAI Hosted Agents",
            "gen_ai.system": SYSTEM,
            "service.name": agent.name or SYSTEM,
            **{name: value for name, value in known.items() if value},
        },
        prefix=prefix,
        invocation_key=prefix + "invocation_id",
        session_key=prefix + "session_id",
    )


def _record(span: Span, error: BaseException) -> None:
    """Record an exception, even one that cannot tell its own text."""
    try:
        span.record_exception(error)
    except BaseException:  # its text may be the agent's code
        span.add_event("exception", {"exception.type": type(error).__name__})
