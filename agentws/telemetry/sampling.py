"""Whether a trace is sampled: asked once, and remembered for as long as it takes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import (
    SpanContext,
)


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
        self._sampler = sampler
        self._settled = threading.local()

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
        return super().generate_span_id() if given is None else given.context.span_id

    def generate_trace_id(self) -> int:
        """See `IdGenerator`."""
        given = self._given()
        return super().generate_trace_id() if given is None else given.context.trace_id

    def should_sample(self, *arguments: Any, **options: Any) -> SamplingResult:
        """See `Sampler`."""
        given = self._given()
        if given is None:
            return self._sampler.should_sample(*arguments, **options)
        return given.sampled

    def get_description(self) -> str:
        """See `Sampler`."""
        return self._sampler.get_description()
