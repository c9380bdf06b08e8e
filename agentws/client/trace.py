"""The trace that the user's work is part of, as it goes along with what is asked (§9)."""

import sys


def current_trace() -> dict[str, str]:
    """Return `traceparent`, `tracestate` and `baggage` of the current context, what there is.

    Where nobody has imported OpenTelemetry, there is none, and it is not imported for that.
    """
    if "opentelemetry.context" not in sys.modules:
        return {}
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import get_current
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    fields: dict[str, str] = {}
    if context := get_current():
        TraceContextTextMapPropagator().inject(fields, context)
        W3CBaggagePropagator().inject(fields, context)
    return fields
