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

from agentws.telemetry.sampling import Decisions

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)

_FLAGS: Final = [TraceFlags(flags) for flags in range(4)]
"""All combinations of `SAMPLED` and `RANDOM_TRACE_ID`, made once."""


class EndedSpan(Struct, frozen=True, gc=False):
    """What is told of a span that nobody touched. Times are nanoseconds since the epoch."""

    name: str
    trace_id: int
    span_id: int
    trace_state: TraceState
    parent: SpanContext | None
    kind: SpanKind
    attributes: Mapping[str, str]
    started_at: int
    ended_at: int

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
        ended: Callable[[EndedSpan], object],
    ) -> None:
        """Make a tracer of `provider`, beside `tracer`, which makes the spans that are touched.

        `decisions` is the provider's sampler and its source of ids.
        """
        self._provider = provider
        self._decisions = decisions
        self._tracer = tracer
        self._ended = ended
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
        parent = get_current_span(context).get_span_context()
        known = parent if parent.is_valid else None
        own, sampled = self._decide(known, context, name, kind, attributes, links)
        if sampled.decision is Decision.DROP:
            return NonRecordingSpan(own)
        plain = attributes is not None and len(attributes) == len(sampled.attributes) and not links
        if plain and own.trace_flags.sampled and not self._provider.watched:
            texts, began_at = cast(Mapping[str, str], attributes), start_time or time_ns()
            return LeanSpan(self, name, context, own, known, kind, texts, sampled, began_at)
        with self._decisions.settled(own, sampled):
            return self._tracer.start_span(
                *(name, context, kind, attributes, links, start_time),
                *(record_exception, set_status_on_exception),
            )

    def _decide(
        self, parent: SpanContext | None, context: Context | None, *about: Any
    ) -> tuple[SpanContext, SamplingResult]:
        """Settle the ids of a span, and whether it is sampled."""
        decisions = self._decisions
        if parent is None:
            trace_id, is_random = decisions.generate_trace_id(), True
        else:
            trace_id, is_random = parent.trace_id, parent.trace_flags.random_trace_id
        sampled = decisions.should_sample(context, trace_id, *about)
        flags = _FLAGS[(sampled.decision is Decision.RECORD_AND_SAMPLE) + 2 * is_random]
        span_id = decisions.generate_span_id()
        return SpanContext(trace_id, span_id, False, flags, sampled.trace_state), sampled

    def start_as_current_span(self, *arguments: Any, **options: Any) -> Any:
        """Have the SDK make a span."""
        return self._tracer.start_as_current_span(*arguments, **options)

    def make_whole(self, span: "LeanSpan") -> Span:
        """Return the SDK's span in place of a lean one: the same at every call."""
        with self._lock, self._decisions.settled(span.own, span.sampled):
            if span.whole is None:
                span.whole = self._tracer.start_span(
                    span.name, span.around, span.kind, span.attributes, None, span.began_at
                )
            return span.whole

    def end(self, span: "LeanSpan", ended_at: int) -> None:
        """Hand on a span that nobody has touched."""
        trace_id, span_id, _, _, trace_state, _ = span.own
        self._ended(
            EndedSpan(
                span.name,
                trace_id,
                span_id,
                trace_state,
                span.parent,
                span.kind,
                span.attributes,
                span.began_at,
                ended_at,
            )
        )


class LeanSpan(Span):
    """A span that is the SDK's as soon as something is said of it."""

    __slots__ = (
        "around",
        "attributes",
        "began_at",
        "ended",
        "kind",
        "name",
        "own",
        "parent",
        "sampled",
        "tracer",
        "whole",
    )

    def __init__(
        self,
        tracer: LeanTracer,
        name: str,
        around: Context | None,
        own: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, str],
        sampled: SamplingResult,
        began_at: int,
    ) -> None:
        self.tracer = tracer
        self.name = name
        self.around = around
        self.own = own
        self.parent = parent
        self.kind = kind
        self.attributes = attributes
        self.sampled = sampled
        self.began_at = began_at
        self.ended = False
        self.whole: Span | None = None

    def get_span_context(self) -> SpanContext:
        """Return its ids."""
        return self.own

    def is_recording(self) -> bool:
        """Tell whether it has not ended."""
        return not self.ended

    def end(self, end_time: int | None = None) -> None:
        """End it, once."""
        if self.ended:
            return
        self.ended = True
        if self.whole is None:
            self.tracer.end(self, end_time or time_ns())
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
