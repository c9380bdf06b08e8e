"""The trace that a caller's work is part of: read from what it sent, current for handlers (§9).

A trace context (OpenTelemetry calls it `Context`) is not the context that handlers are called with.
"""

import functools
from collections.abc import Mapping
from typing import Final

from opentelemetry import baggage, propagate
from opentelemetry.context import Context as TraceContext
from opentelemetry.context import create_key
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import INVALID_SPAN, Span, TraceState, set_span_in_context

from agentws.agent.context import InvocationContext

NO_TRACE: Final = TraceContext()
"""What of a trace is known where the caller tells nothing of one."""

INVOCATION: Final = create_key("invocation")
"""Under which key a trace context holds the invocation whose handler runs in it.

There, and not in a variable of its own, because each variable that a task sets costs it something.
"""

_BAGGAGE: Final = next(iter(baggage.set_baggage("any", "", TraceContext())))
"""Under which key it holds its baggage: setting all three entries at once is what counts."""

_SPAN: Final = next(iter(set_span_in_context(INVALID_SPAN, TraceContext())))
"""Under which key it holds its span, so that one context is made of it all."""

_MOST_BAGGAGE: Final = 8192
"""Bytes of baggage (W3C Baggage §3.3.2); more is no baggage, and nothing to be read through."""


_CARRIERS: Final = frozenset({"traceparent", "tracestate", "baggage"})
"""What W3C's two propagators read; without the first and the last of them, they find nothing."""


@functools.lru_cache(maxsize=1)
def _reads_w3c_alone(propagator: TextMapPropagator) -> bool:
    return propagator.fields <= _CARRIERS


def read_trace(headers: Mapping[str, str]) -> TraceContext:
    """Read trace context and baggage from W3C headers; what is malformed is ignored (§9)."""
    tells_nothing = "traceparent" not in headers and "baggage" not in headers
    if tells_nothing and _reads_w3c_alone(propagate.get_global_textmap()):
        return NO_TRACE
    try:
        if len(headers.get("baggage", "")) > _MOST_BAGGAGE:
            headers = {name: it for name, it in headers.items() if name.lower() != "baggage"}
        return propagate.extract(headers, NO_TRACE) or NO_TRACE
    except UnicodeError:  # bytes that aiohttp could not decode
        return NO_TRACE


def message_trace(
    traceparent: str | None, tracestate: str | None, baggage: str | None, otherwise: TraceContext
) -> TraceContext:
    """Return the trace context of one message, else that of its socket (§9).

    Any of the three replaces all of the socket's, unless it is malformed.
    """
    given = {"traceparent": traceparent, "tracestate": tracestate, "baggage": baggage}
    own = read_trace({name: value for name, value in given.items() if value is not None})
    replaces = own or (tracestate and TraceState.from_header([tracestate]))
    return own if replaces else otherwise


def handler_trace(
    parent: TraceContext, context: InvocationContext, span: Span | None = None
) -> TraceContext:
    """Return the trace context for a handler: the caller's, with the baggage of §9 and a span."""
    entries: dict[str, object] = {
        "azure.ai.agentserver.invocation_id": context.invocation_id,
        "azure.ai.agentserver.session_id": context.session_id,
        "x-request-id": context.request_id,
    }
    own = {_BAGGAGE: entries, INVOCATION: context}
    if span is not None:
        own[_SPAN] = span
    if parent:
        own = {**parent, **own, _BAGGAGE: {**baggage.get_all(parent), **entries}}
    return TraceContext(own)
