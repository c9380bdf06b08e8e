"""Spans that cost little as long as nobody touches them."""

from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    Sampler,
    SamplingResult,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from agentws.telemetry.lean_tracing import LeanTracer, SpanRecord, WatchedProvider
from agentws.telemetry.sampling import EVERYTHING, KEPT, Decisions

ATTRIBUTES = {"a": "b"}


class Shelf(SpanProcessor):
    """Keeps the SDK's spans that have ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep one."""
        self.spans.append(span)


class Bench:
    """A tracer, and what has become of its spans."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        decisions = Decisions(sampler)
        self.whole = Shelf()
        self.lean: list[SpanRecord] = []
        self.provider = WatchedProvider(decisions, shutdown_on_exit=False, id_generator=decisions)
        self.provider.add_span_processor(self.whole)
        self.provider.watched = False
        self.tracer = LeanTracer(
            self.provider, decisions, self.provider.get_tracer("t"), self.lean.append
        )

    def start(self, parent: SpanContext | None = None) -> Span:
        """Start a span."""
        context = set_span_in_context(NonRecordingSpan(parent)) if parent else None
        return self.tracer.start_span("name", context, SpanKind.SERVER, ATTRIBUTES)


def test_a_span_that_nobody_touches_is_told_as_it_began() -> None:
    bench = Bench()
    span = bench.start()
    assert span.is_recording()
    span.end()
    span.end()
    assert not span.is_recording()
    (ended,) = bench.lean
    assert bench.whole.spans == []
    assert (ended.name, ended.kind, ended.attributes) == ("name", SpanKind.SERVER, ATTRIBUTES)
    assert (ended.trace_id, ended.span_id) == span.get_span_context()[:2]
    assert ended.parent is None
    assert 0 < ended.started_at <= ended.ended_at
    assert span.get_span_context().trace_flags.sampled


def test_a_span_that_is_touched_is_the_sdks_under_the_same_ids() -> None:
    bench = Bench()
    span = bench.start()
    span.set_attribute("c", 1)
    span.set_attributes({"d": 2})
    span.add_event("event")
    span.add_link(SpanContext(3, 4, is_remote=True))
    span.update_name("other")
    span.set_status(Status(StatusCode.ERROR))
    span.record_exception(ValueError("text"))
    span.end()
    span.set_attribute("late", 1)
    span.end()
    assert bench.lean == []
    (whole,) = bench.whole.spans
    assert whole.context == span.get_span_context()
    assert dict(whole.attributes or {}) == {"a": "b", "c": 1, "d": 2}
    assert (whole.name, whole.status.status_code) == ("other", StatusCode.ERROR)
    assert [event.name for event in whole.events] == ["event", "exception"]
    assert len(whole.links) == 1


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("flags", [0x01, 0x03])
def test_a_span_has_its_parents_trace(touched: bool, flags: int) -> None:
    bench = Bench()
    parent = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(flags))
    span = bench.start(parent)
    if touched:
        span.set_attribute("c", 1)
    span.end()
    ended: Any = (*bench.lean, *bench.whole.spans)[0]
    assert ended.parent == parent
    assert span.get_span_context().trace_id == 5
    assert span.get_span_context().trace_flags == flags


def test_ids_are_random_again_after_a_span_was_touched() -> None:
    bench = Bench()
    bench.start().set_attribute("c", 1)
    contexts = [bench.start().get_span_context() for _ in range(100)]
    assert len({context.span_id for context in contexts}) == 100
    assert len({context.trace_id for context in contexts}) == 100


def test_a_span_that_is_not_sampled_is_told_nowhere() -> None:
    bench = Bench(ALWAYS_OFF)
    span = bench.start()
    span.end()
    assert not span.is_recording()
    assert (bench.lean, bench.whole.spans) == ([], [])


class Every(Sampler):
    """Decides the same of every span, and counts how often it is asked."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.asked = 0

    def should_sample(self, *arguments: Any, **options: Any) -> SamplingResult:
        """See `Sampler`."""
        self.asked += 1
        return SamplingResult(self.decision, {"a": "b", "from": "sampler"})

    def get_description(self) -> str:
        """See `Sampler`."""
        return "every"


@pytest.mark.parametrize("sampler", [Every(decision) for decision in Decision])
@pytest.mark.parametrize("touched", [False, True])
def test_a_sampler_is_asked_once(sampler: Every, touched: bool) -> None:
    sampler.asked = 0
    bench = Bench(sampler)
    span = bench.start()
    if touched:
        span.set_attribute("c", 1)
    span.end()
    assert sampler.asked == 1
    assert span.get_span_context().is_valid
    assert span.get_span_context().trace_flags.sampled == (
        sampler.decision is Decision.RECORD_AND_SAMPLE
    )
    for whole in bench.whole.spans:
        assert whole.context == span.get_span_context()
        assert (whole.attributes or {})["from"] == "sampler"
    assert len(bench.whole.spans) == (sampler.decision is not Decision.DROP)


@pytest.mark.parametrize(
    "parent",
    [
        None,
        *(
            SpanContext(5, 6, is_remote, TraceFlags(flags), state)
            for is_remote in (False, True)
            for flags in range(4)
            for state in (TraceState(), TraceState([("a", "b")]))
        ),
    ],
)
def test_the_usual_sampler_is_not_asked_for_what_it_would_say(parent: SpanContext | None) -> None:
    context = set_span_in_context(NonRecordingSpan(parent)) if parent else Context()
    about: Any = (context, 5, "name", SpanKind.SERVER, ATTRIBUTES, None)
    decided, said = Decisions(EVERYTHING).decide(parent, *about), EVERYTHING.should_sample(*about)
    assert decided.decision is said.decision
    assert (decided.trace_state or TraceState()) == (said.trace_state or TraceState())
    assert decided is KEPT or decided.attributes == said.attributes


def test_whoever_wants_to_see_every_span_sees_the_sdks() -> None:
    bench = Bench()
    other = Shelf()
    bench.provider.add_span_processor(other)
    bench.start().end()
    assert len(other.spans) == len(bench.whole.spans) == 1
    assert bench.lean == []


def test_an_ended_span_can_be_read_as_one_of_the_sdks() -> None:
    bench = Bench()
    span = bench.start()
    span.end()
    resource, scope = Resource({"service.name": "s"}), InstrumentationScope("scope")
    readable = bench.lean[0].readable(resource, scope)
    assert readable.context is not None
    assert readable.context[:2] == span.get_span_context()[:2]
    assert (readable.resource, readable.instrumentation_scope) == (resource, scope)
    assert dict(readable.attributes or {}) == ATTRIBUTES
    assert readable.kind is SpanKind.SERVER


def test_the_sdk_makes_the_spans_that_are_made_current_at_once() -> None:
    bench = Bench()
    with bench.tracer.start_as_current_span("name"):
        pass
    assert len(bench.whole.spans) == 1
