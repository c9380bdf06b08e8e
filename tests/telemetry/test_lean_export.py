"""Lean spans arrive at a collector as the SDK's exporter would have sent them."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState

from agentws.telemetry.lean_export import AddingSession, LeanEncoder, LeanExporter, lean_exporter
from agentws.telemetry.lean_tracing import SpanRecord
from tests.support.receivers import Receiver

RESOURCE = Resource({"service.name": "alice", "number": 7, "several": ["a", "b"]}, "a schema")
SCOPE = InstrumentationScope("scope", "1", "another schema", {"a": "b"})

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
TRACE_IDS = st.integers(1, 2**128 - 1)
SPAN_IDS = st.integers(1, 2**64 - 1)
TIMES = st.integers(0, 2**64 - 1)
STATES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz")).map(
    lambda entries: TraceState(list(entries.items()))
)
PARENTS = st.builds(SpanContext, TRACE_IDS, SPAN_IDS, st.booleans(), st.builds(TraceFlags), STATES)
ATTRIBUTES = st.sampled_from([(), ("a",), ("a", "b"), ("b", "a"), ("c",)]).flatmap(
    lambda keys: st.fixed_dictionaries(dict.fromkeys(keys, TEXTS))
)
SPANS = st.builds(
    SpanRecord,
    name=st.sampled_from(["", "invoke_agent", "get"]),
    trace_id=TRACE_IDS,
    span_id=SPAN_IDS,
    trace_state=STATES,
    parent=st.none() | PARENTS,
    kind=st.sampled_from(SpanKind),
    attributes=ATTRIBUTES,
    started_at=TIMES,
    ended_at=TIMES,
)


@given(batches=st.lists(st.lists(SPANS, min_size=1, max_size=20), max_size=3))
def test_they_are_encoded_as_the_sdk_encodes_them(batches: list[list[SpanRecord]]) -> None:
    encoder = LeanEncoder(RESOURCE, SCOPE)
    for batch in batches:
        encoded = ExportTraceServiceRequest.FromString(encoder.encode(batch))
        assert encoded == encode_spans([span.readable(RESOURCE, SCOPE) for span in batch])


def lean(span_id: int) -> SpanRecord:
    kind, attributes = SpanKind.SERVER, {"text": "long " * 100}
    return SpanRecord("lean", 1, span_id, TraceState(), None, kind, attributes, 1, 2)


LEAN = [lean(span_id) for span_id in range(1, 500)]
WHOLE = ReadableSpan("whole", SpanContext(2, 500, is_remote=False), instrumentation_scope=SCOPE)


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
async def test_they_arrive_beside_the_sdks_own(
    monkeypatch: pytest.MonkeyPatch, collector: Receiver, compression: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    exporter = lean_exporter(f"{collector.url}/v1/traces", RESOURCE, SCOPE)
    batches: list[tuple[list[SpanRecord | ReadableSpan], list[int]]] = [
        ([*LEAN, WHOLE], list(range(1, 501))),
        ([*LEAN], list(range(1, 500))),
        ([WHOLE], [500]),
    ]
    for batch, ids in batches:
        collector.spans.clear()
        assert await asyncio.to_thread(exporter.export, batch)
        assert sorted(int(span.span_id, 16) for span in collector.spans) == ids
        assert {span.attributes["text"] for span in collector.named("lean")} <= {"long " * 100}
    assert collector.requests == 3


async def test_they_are_sent_again_where_the_collector_was_busy(collector: Receiver) -> None:
    exporter = lean_exporter(f"{collector.url}/v1/traces", RESOURCE, SCOPE)
    collector.status = 503
    export = asyncio.create_task(asyncio.to_thread(exporter.export, [*LEAN, WHOLE]))
    await collector.news.wait()
    collector.status = 200
    assert await export
    assert collector.requests == 2
    assert len({span.span_id for span in collector.spans}) == len(collector.spans) == 500


async def test_they_are_lost_where_the_collector_refuses_them(collector: Receiver) -> None:
    exporter = lean_exporter(f"{collector.url}/v1/traces", RESOURCE, SCOPE)
    collector.status = 400
    assert not await asyncio.to_thread(exporter.export, LEAN)


class Forgetful(SpanExporter):
    """Sends nothing, and says that all is well."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def test_they_are_lost_where_the_sdks_exporter_makes_no_request() -> None:
    exporter = LeanExporter(Forgetful(), AddingSession(), LeanEncoder(RESOURCE, SCOPE))
    assert not exporter.export(LEAN)
