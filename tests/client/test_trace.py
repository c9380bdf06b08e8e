"""The user's trace goes along with what is asked, and importing the client costs little."""

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from agentws import InvocationContext
from agentws.client.trace import current_trace
from tests.client.conftest import Connect
from tests.conftest import Serve
from tests.support.agents import agent_of

SPAN = SpanContext(
    0xA1, 0xB2, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState([("k", "v")])
)
TRACEPARENT = f"00-{0xA1:032x}-{0xB2:016x}-01"


@pytest.fixture
def in_a_trace() -> Any:
    """Have a span and baggage be current."""
    here = baggage.set_baggage("tenant", "t1", trace.set_span_in_context(NonRecordingSpan(SPAN)))
    token = context.attach(here)
    yield
    context.detach(token)


async def test_the_current_trace_goes_along(
    in_a_trace: None, serve: Serve, connect_to: Connect
) -> None:
    async def invoke(payload: Any, _context: InvocationContext) -> Any:
        span = trace.get_current_span().get_span_context()
        return [f"{span.trace_id:x}", baggage.get_baggage("tenant")]

    sent: list[str] = []
    server = await serve(agent_of(invoke))
    client = connect_to(server)
    client.on_frame(lambda direction, text: sent.append(text))
    async with client:
        assert await client.invoke(1) == ["a1", "t1"]
        await client.get((await anext(client.list()))["invocation_id"])
    assert f'"traceparent":"{TRACEPARENT}","tracestate":"k=v","baggage":"tenant=t1"' in sent[0]


def test_it_is_read_from_the_context(in_a_trace: None) -> None:
    fields = {"traceparent": TRACEPARENT, "tracestate": "k=v", "baggage": "tenant=t1"}
    assert current_trace() == fields


def test_without_a_trace_nothing_goes_along() -> None:
    assert current_trace() == {}


@pytest.mark.parametrize("package", ["aiohttp", "opentelemetry", "pydantic", "redis"])
def test_importing_the_client_imports_nothing_large(package: str) -> None:
    code = f"import sys, agentws.client; sys.exit({package!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
