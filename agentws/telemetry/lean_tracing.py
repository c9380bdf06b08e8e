"""Spans that cost little as long as nobody touches them.

Nearly every invocation ends well, and its span then has nothing but what it began with. Such a span
is a few fields here, where the SDK's own takes locks, checks every attribute, and burdens garbage
collection while it waits to be exported: at full load that is more than the invocation itself
takes. A span that is touched in between becomes one of the SDK's, under the same ids.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Any, Final, cast

from msgspec import Struct
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, SamplingResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    get_current_span,
)
from opentelemetry.util.types import Attributes, AttributeValue

from agentws.telemetry.sampling import KEPT, Decisions

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)

_FLAGS: Final = [TraceFlags(flags) for flags in range(4)]
"""All combinations of `SAMPLED` and `RANDOM_TRACE_ID`, made once."""


class SpanRecord(Struct, gc=False):
    """What is told of a span that nobody touched. Times are nanoseconds since the epoch."""

    name: str
    trace_id: int
    span_id: int
    trace_state: TraceState | None
    parent: SpanContext | None
    kind: SpanKind
    attributes: Mapping[str, str]
    started_at: int
    ended_at: int = 0

    def readable(self, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
        """Return it as exporters of the SDK's take it."""
        return ReadableSpan(
            self.name,
            SpanContext(self.trace_id, self.span_id, False, _SAMPLED, self.trace_state),
            self.parent,
            resource,
            self.attributes,
            kind=self.kind,
            start_time=self.started_at,
            end_time=self.ended_at,
            instrumentation_scope=scope,
        )


class WatchedProvider(TracerProvider):
    """Knows whether somebody else wants to see every span, the agent's module for instance."""

    watched = False

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Show every span to another one."""
        self.watched = True
        super().add_span_processor(span_processor)


class LeanTracer(Tracer):
    """Makes lean spans, and hands them on at their end."""

    def __init__(
        self,
        provider: WatchedProvider,
        decisions: Decisions,
        tracer: Tracer,
        ended: Callable[[SpanRecord], object],
    ) -> None:
        """Make a tracer of `provider`, beside `tracer`, which makes the spans that are touched.

        `decisions` is the provider's sampler and its source of ids.
        """
        self._provider = provider
        self._decisions = decisions
        self._tracer = tracer
        self.ended = ended
        """What takes the spans that nobody has touched."""
        self._lock = threading.Lock()

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """Start a span. Its attributes are texts, and must not change."""
        parent, ids = _span_in(context), self._decisions.ids
        trace_id = ids.generate_trace_id() if parent is None else parent.trace_id
        sampled = self._decisions.decide(parent, context, trace_id, name, kind, attributes, links)
        is_sampled = sampled.decision is Decision.RECORD_AND_SAMPLE
        is_random = parent is None or parent.trace_flags.random_trace_id
        record = SpanRecord(
            name,
            trace_id,
            ids.generate_span_id(),
            sampled.trace_state,
            parent,
            kind,
            cast(Mapping[str, str], attributes),
            start_time or time_ns(),
        )
        span = LeanSpan(self, context, record, _FLAGS[is_sampled + 2 * is_random], sampled)
        is_as_given = sampled is KEPT or len(sampled.attributes) == len(attributes or ())
        plain = attributes is not None and is_as_given and not links
        if plain and is_sampled and not self._provider.watched:
            return span
        if sampled.decision is Decision.DROP:
            return NonRecordingSpan(span.get_span_context())
        with self._decisions.settled(span.get_span_context(), sampled):
            return self._tracer.start_span(
                *(name, context, kind, attributes, links, start_time),
                *(record_exception, set_status_on_exception),
            )

    def start_as_current_span(self, *arguments: Any, **options: Any) -> Any:
        """Have the SDK make a span."""
        return self._tracer.start_as_current_span(*arguments, **options)

    def make_whole(self, span: "LeanSpan") -> Span:
        """Return the SDK's span in place of a lean one: the same at every call."""
        with self._lock, self._decisions.settled(span.get_span_context(), span.sampled):
            if span.whole is None:
                it = span.record
                span.whole = self._tracer.start_span(
                    it.name, span.around, it.kind, it.attributes, None, it.started_at
                )
            return span.whole


def _span_in(context: Context | None) -> SpanContext | None:
    if context is not None and not context:
        return None
    span = get_current_span(context).get_span_context()
    return span if span.is_valid else None


class LeanSpan(Span):
    """A span that is the SDK's as soon as something is said of it."""

    __slots__ = (
        "around",
        "ended",
        "flags",
        "record",
        "sampled",
        "tracer",
        "whole",
    )

    def __init__(
        self,
        tracer: LeanTracer,
        around: Context | None,
        record: SpanRecord,
        flags: TraceFlags,
        sampled: SamplingResult,
    ) -> None:
        self.tracer = tracer
        self.around = around
        self.record = record
        self.flags = flags
        self.sampled = sampled
        self.ended = False
        self.whole: Span | None = None

    def get_span_context(self) -> SpanContext:
        """Return its ids."""
        it = self.record
        return SpanContext(it.trace_id, it.span_id, False, self.flags, it.trace_state)

    def is_recording(self) -> bool:
        """Tell whether it has not ended."""
        return not self.ended

    def end(self, end_time: int | None = None) -> None:
        """End it, once."""
        if self.ended:
            return
        self.ended = True
        if self.whole is None:
            self.record.ended_at = end_time or time_ns()
            self.tracer.ended(self.record)
        else:
            self.whole.end(end_time)

    def _touched(self) -> Span:
        """Return the SDK's span; of one that has ended nothing more is told."""
        if self.ended:
            return INVALID_SPAN
        return self.whole or self.tracer.make_whole(self)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """See `Span`."""
        self._touched().set_attributes(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """See `Span`."""
        self._touched().set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """See `Span`."""
        self._touched().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """See `Span`."""
        self._touched().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        """See `Span`."""
        self._touched().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """See `Span`."""
        self._touched().set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """See `Span`."""
        self._touched().record_exception(exception, attributes, timestamp, escaped)
