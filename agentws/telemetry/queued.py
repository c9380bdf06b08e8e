"""What is queued for the exporters: spans and log records as they end, metrics now and then."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk._logs import (
    LogRecordProcessor,
    ReadableLogRecord,
    ReadWriteLogRecord,
)
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics.export import (
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from agentws.telemetry.export_queue import ExportQueue, Limits, as_exporter
from agentws.telemetry.exporters import Backend


class MetricReader(PeriodicExportingMetricReader):
    """The SDK's, whose thread is known for one that exports while it does."""

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any
    ) -> None:
        """See `MetricReader`, which has this overridden by whoever receives metrics."""
        with as_exporter():
            super()._receive_metrics(metrics_data, timeout_millis, **options)


class QueuedSpans(SpanProcessor):
    """Puts spans that have ended into all queues."""

    def __init__(self, queues: Sequence[ExportQueue]) -> None:
        self._put = putting_into(queues)

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, if it was sampled."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._put(span)


class QueuedRecords(LogRecordProcessor):
    """Puts log records into a queue."""

    def __init__(self, queue: ExportQueue) -> None:
        self._queue = queue

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Take a record, without the context that it was written in."""
        record = copy.copy(log_record.log_record)
        record.context = Context()
        self._queue.put(
            ReadableLogRecord(
                record,
                log_record.resource or Resource.get_empty(),
                log_record.instrumentation_scope,
                log_record.limits,
            )
        )

    def shutdown(self) -> None:
        """Leave the end to the queue."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's
        """Leave the pace to the queue."""
        return True


def putting_into(queues: Sequence[ExportQueue]) -> Callable[[object], None]:
    """Return what puts a record into all queues."""
    if len(queues) == 1:
        return queues[0].put

    def put(record: object) -> None:
        for queue in queues:
            queue.put(record)

    return put


def queue_of_spans(backend: Backend) -> ExportQueue:
    """Return the queue of spans on their way to a backend."""
    return ExportQueue(f"{backend.name} spans", backend.spans, Limits.of("OTEL_BSP"))


def queue_of_records(backend: Backend) -> ExportQueue:
    """Return the queue of log records on their way to a backend."""

    def export(records: Sequence[Any]) -> bool:
        return backend.records.export(records) is LogRecordExportResult.SUCCESS

    return ExportQueue(f"{backend.name} log records", export, Limits.of("OTEL_BLRP"))
