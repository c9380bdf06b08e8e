"""Where an invocation stands in the caller's trace, for whatever the agent calls in its turn.

Uses the OpenTelemetry API, which does nothing by itself as long as no SDK is set up.
"""

from collections.abc import Mapping
from typing import Final

from opentelemetry import baggage, propagate
from opentelemetry.context import Context

from agentws.handler import InvocationContext

_BAGGAGE_INVOCATION: Final = "azure.ai.agentserver.invocation_id"
_BAGGAGE_SESSION: Final = "azure.ai.agentserver.session_id"
_BAGGAGE_REQUEST: Final = "x-request-id"


def caller_context(headers: Mapping[str, str], context: InvocationContext) -> Context:
    """Return the trace context of W3C headers, with the baggage of an invocation (§9)."""
    current = propagate.extract(headers)
    for name, value in (
        (_BAGGAGE_INVOCATION, context.invocation_id),
        (_BAGGAGE_SESSION, context.session_id),
        (_BAGGAGE_REQUEST, context.request_id),
    ):
        current = baggage.set_baggage(name, value, current)
    return current
