"""Whether a trace is sampled: asked once, and remembered for as long as it takes."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.util.types import Attributes

EVERYTHING: Final = ParentBased(ALWAYS_ON)
"""Samples each trace, but for those of callers that do not."""

KEPT: Final = SamplingResult(Decision.RECORD_AND_SAMPLE)
"""What it says of nearly every span, but for the span's attributes."""


class _Decided(NamedTuple):
    """What was settled about a span before the SDK is asked to make it."""

    context: SpanContext
    sampled: SamplingResult


class Decisions(RandomIdGenerator, Sampler):
    """Decides each span once: its ids, and whether it is sampled.

    The SDK's tracer takes both from here. It draws and decides anew, but for a span of which that
    is settled already: another trace id would be another decision.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        """What decides, for whoever has nothing settled."""
        self.ids = RandomIdGenerator()
        """What draws, likewise."""
        self._settled = threading.local()

    def decide(
        self,
        parent: SpanContext | None,
        context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link] | None,
    ) -> SamplingResult:
        """Decide a span, whose parent is that of `context`."""
        if self.sampler is EVERYTHING and (
            parent is None or (parent.trace_flags.sampled and not parent.trace_state)
        ):
            return KEPT
        return self.sampler.should_sample(context, trace_id, name, kind, attributes, links)

    @contextmanager
    def settled(self, context: SpanContext, sampled: SamplingResult) -> Iterator[None]:
        """Have the next span that the SDK makes in this thread be that one."""
        self._settled.span = _Decided(context, sampled)
        try:
            yield
        finally:
            self._settled.span = None

    def _given(self) -> _Decided | None:
        return getattr(self._settled, "span", None)

    def generate_span_id(self) -> int:
        """See `IdGenerator`."""
        given = self._given()
        return self.ids.generate_span_id() if given is None else given.context.span_id

    def generate_trace_id(self) -> int:
        """See `IdGenerator`."""
        given = self._given()
        return self.ids.generate_trace_id() if given is None else given.context.trace_id

    def should_sample(self, *arguments: Any, **options: Any) -> SamplingResult:
        """See `Sampler`."""
        given = self._given()
        if given is None or given.sampled is KEPT:
            return self.sampler.should_sample(*arguments, **options)
        return given.sampled

    def get_description(self) -> str:
        """See `Sampler`."""
        return self.sampler.get_description()
