"""Spans as OTLP: what is encoded here is what the SDK would have encoded."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceState

from agentws.lean_tracing import EndedSpan
from agentws.otlp import encoder

RESOURCE = Resource({"service.name": "a", "service.version": "7"})
SCOPE = InstrumentationScope("agentws", "1")

encode = encoder(RESOURCE, SCOPE)

ids = st.integers(min_value=1, max_value=2**64 - 1)
contexts = st.builds(SpanContext, ids, ids, st.booleans())
states = st.sampled_from([TraceState(), TraceState([("vendor", "value")])])
spans = st.builds(
    EndedSpan,
    name=st.text(max_size=300),
    trace_id=st.integers(min_value=1, max_value=2**128 - 1),
    span_id=ids,
    trace_state=states,
    parent=st.none() | contexts,
    kind=st.sampled_from(SpanKind),
    attributes=st.dictionaries(st.text(min_size=1), st.text(max_size=40_000), max_size=5),
    started_at=ids,
    ended_at=ids,
)


@given(st.lists(spans, max_size=5))
def test_what_is_encoded_here_is_what_the_sdk_encodes(ended: list[EndedSpan]) -> None:
    request = ExportTraceServiceRequest.FromString(encode(ended))
    expected = encode_spans([span.readable(RESOURCE, SCOPE) for span in ended])
    assert told(request) == told(expected)


def test_spans_of_the_sdk_go_along() -> None:
    tracer = TracerProvider(resource=RESOURCE, shutdown_on_exit=False).get_tracer("other")
    with tracer.start_as_current_span("child", attributes={"number": 1}) as child:
        pass
    lean = EndedSpan("lean", 1, 2, TraceState(), None, SpanKind.SERVER, {"a": "b"}, 3, 4)
    request = ExportTraceServiceRequest.FromString(encode([lean, child]))
    assert [
        (scope.scope.name, [span.name for span in scope.spans])
        for group in request.resource_spans
        for scope in group.scope_spans
    ] == [("agentws", ["lean"]), ("other", ["child"])]


def test_half_a_character_is_replaced() -> None:
    span = EndedSpan("a\ud800", 1, 2, TraceState(), None, SpanKind.SERVER, {"k": "\udfff"}, 3, 4)
    request = ExportTraceServiceRequest.FromString(encode([span]))
    (found,) = request.resource_spans[0].scope_spans[0].spans
    assert (found.name, found.attributes[0].value.string_value) == ("a?", "?")


def test_no_spans_are_an_empty_request() -> None:
    assert encode([]) == b""


def told(request: ExportTraceServiceRequest) -> list[tuple[str, str, str]]:
    return sorted(
        (str(group.resource), str(scope.scope), str(span))
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    )
