"""Where telemetry goes: Application Insights, an OTLP collector, or both.

Imported only where one of them is configured, as the packages behind it take over half a second.
"""

import asyncio
import copy
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import environ
from typing import Any, Final, TypeVar

from msgspec import Struct
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_spans
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_spans
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import (
    LoggerProvider,
    LogRecordProcessor,
    ReadableLogRecord,
    ReadWriteLogRecord,
)
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, ExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from agentws import __version__
from agentws.config.otel_variables import Signal, exports
from agentws.config.requirements import PackageError, needed
from agentws.config.settings import AgentSettings, TelemetrySettings
from agentws.export_queue import ExportQueue, Limits, exporting, is_exporting
from agentws.lean_tracing import Decisions, EndedSpan, LeanTracer, WatchedProvider
from agentws.logs import InvocationFilter
from agentws.telemetry import SYSTEM, ObservingTelemetry, TelemetryError

Exporter = TypeVar("Exporter")

_SCOPE: Final = InstrumentationScope("agentws", __version__)

_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"

_WARNING_PAUSE: Final = 60.0
"""Seconds between two warnings of a backend that is in trouble."""

_LONGEST_WARNING: Final = 300
"""Characters: some exporters would print what they could not send."""

_KEY: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)

_OFF: Final = (
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
    "APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED",
)
"""What the exporter for Application Insights would send or fetch of its own accord."""


class Backend(Struct, frozen=True):
    """One place where telemetry goes."""

    name: str
    spans: SpanExporter
    records: LogRecordExporter
    metrics: MetricExporter


def start(settings: TelemetrySettings, agent: AgentSettings) -> ObservingTelemetry:
    """Export to what is configured from now on, the agent's own spans, metrics and log lines too.

    Raises `TelemetryError` when the configuration is not accepted, and `PackageError`.
    """
    backends = []
    resource = _resource(agent)
    try:
        if settings.connection_string:
            backends.append(_application_insights(settings.connection_string))
        if settings.otlp_endpoint:
            backends.append(_collector(settings.otlp_endpoint))
        return Exporting(backends, resource, _sampler(settings), agent)
    except (TelemetryError, PackageError):
        raise
    except Exception as error:
        raise TelemetryError(f"telemetry is wrongly configured: {_plain(str(error))}") from error


class Exporting(ObservingTelemetry):
    """Telemetry that leaves the daemon."""

    patience = 1.0

    def __init__(
        self,
        backends: Sequence[Backend],
        resource: Resource,
        sampler: Sampler,
        agent: AgentSettings,
    ) -> None:
        signals: tuple[Signal, ...] = ("TRACES", "LOGS", "METRICS")
        of_traces, of_logs, of_metrics = (
            backends if exports(signal, environ) else [] for signal in signals
        )
        spans = [_queue_of_spans(backend, resource) for backend in of_traces]
        records = [_queue_of_records(backend) for backend in of_logs]
        self._queues = [*spans, *records]
        self._readers = [_MetricReader(backend.metrics) for backend in of_metrics]
        meters = MeterProvider(
            self._readers, resource, shutdown_on_exit=False, exemplar_filter=_exemplars()
        )
        decisions = Decisions(sampler)
        tracers = WatchedProvider(
            decisions, resource, shutdown_on_exit=False, id_generator=decisions
        )
        tracers.add_span_processor(QueuedSpans(spans))
        tracers.watched = False
        loggers = LoggerProvider(resource, shutdown_on_exit=False)
        for queue in records:
            loggers.add_log_record_processor(QueuedRecords(queue))
        _keep_exporters_aside()
        self._handler = _log_handler(loggers) if records else None
        tracer = tracers.get_tracer(_SCOPE.name, _SCOPE.version)
        meter = meters.get_meter(_SCOPE.name, _SCOPE.version)
        super().__init__(LeanTracer(tracers, decisions, tracer, _putter(spans)), meter, agent)
        self._count_losses(meter)
        _offer_to_agent(tracers, meters, loggers)

    async def close(self, seconds: float) -> None:
        """Send the rest within so many seconds, to all backends at the same time."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
        with ThreadPoolExecutor(1) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, self._close, seconds)

    def _close(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for queue in self._queues:
            queue.close()
        lasts = [_in_a_thread(reader.shutdown, seconds * 1000) for reader in self._readers]
        ends: list[ExportQueue | threading.Thread] = [*self._queues, *lasts]
        for end in ends:
            end.join(max(0.0, deadline - time.monotonic()))

    def _count_losses(self, meter: metrics.Meter) -> None:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(queue.lost, {"queue": queue.name}) for queue in self._queues]

        meter.create_observable_counter(
            "agentws.telemetry.lost", [observe], "{record}", "Spans and log records not exported"
        )


class _MetricReader(PeriodicExportingMetricReader):
    """The SDK's, whose thread is known for one that exports while it does."""

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **options: Any
    ) -> None:
        """See `MetricReader`, which has this overridden by whoever receives metrics."""
        with exporting():
            super()._receive_metrics(metrics_data, timeout_millis, **options)


class QueuedSpans(SpanProcessor):
    """Puts spans that have ended into all queues."""

    def __init__(self, queues: Sequence[ExportQueue]) -> None:
        self._put = _putter(queues)

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


class ExportersAside(logging.Filter):
    """Keeps what the exporters say to themselves, but for one warning in a while.

    It has to be asked in the thread that writes the line, as the filter of a handler or logger is.
    """

    def __init__(self, pause: float = _WARNING_PAUSE) -> None:
        super().__init__()
        self._pause = pause
        self._next_at = 0.0
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let all other lines through, and of theirs a warning now and then."""
        if not is_exporting():
            return True
        with self._lock:
            now = time.monotonic()
            if record.levelno < logging.WARNING or now < self._next_at:
                return False
            self._next_at = now + self._pause
        _soften(record)
        return True


class _Others(logging.Filter):
    """Lets through what does not come of exporting, which would otherwise go on for ever."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the signature is given
        return not is_exporting()


class _Message(logging.Formatter):
    """The text of a line alone, in characters that can be sent."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage().encode("utf-8", "replace").decode()


def _putter(queues: Sequence[ExportQueue]) -> Callable[[object], None]:
    """Return what puts a record into all queues."""
    if len(queues) == 1:
        return queues[0].put

    def put(record: object) -> None:
        for queue in queues:
            queue.put(record)

    return put


def _soften(record: logging.LogRecord) -> None:
    """Make one short warning of what an exporter has to say, without keys."""
    text = _plain(record.getMessage())
    record.name, record.levelno, record.levelname = "agentws.telemetry", logging.WARNING, "WARNING"
    record.msg, record.args = f"Telemetry does not get through: {text}", None
    record.exc_info = record.exc_text = None


def _plain(text: str) -> str:
    """Return the beginning of a text on one line, without keys, credentials and queries."""
    bare = _KEY.sub("***", " ".join(text.split()))
    bare = re.sub(r"\?\S+", "?***", re.sub(r"//[^/\s]*@", "//***@", bare))
    return bare[:_LONGEST_WARNING]


def _application_insights(connection_string: str) -> Backend:
    environ.update(dict.fromkeys(_OFF, "true"))  # where the exporter looks, at its import too
    with needed():
        from azure.monitor.opentelemetry.exporter import (
            AzureMonitorLogExporter,
            AzureMonitorMetricExporter,
            AzureMonitorTraceExporter,
        )
    options: dict[str, Any] = {
        # The path is put behind the endpoint with a slash of its own.
        "connection_string": re.sub("/+(?=;|$)", "", connection_string.rstrip("; ")),
        "disable_offline_storage": True,  # what waits, waits in the queue, which is bounded
        "max_envelopes_per_second": 0,  # every span leaves
    }
    return Backend(
        "Application Insights",
        AzureMonitorTraceExporter(**options),
        AzureMonitorLogExporter(**options),
        AzureMonitorMetricExporter(**options),
    )


def _collector(endpoint: str) -> Backend:
    return Backend(
        "OTLP",
        _of_protocol("TRACES", http_spans.OTLPSpanExporter, grpc_spans.OTLPSpanExporter, endpoint),
        _of_protocol("LOGS", http_logs.OTLPLogExporter, grpc_logs.OTLPLogExporter, endpoint),
        _of_protocol(
            "METRICS", http_metrics.OTLPMetricExporter, grpc_metrics.OTLPMetricExporter, endpoint
        ),
    )


def _of_protocol(
    signal: str, http: Callable[..., Exporter], grpc: Callable[..., Exporter], endpoint: str
) -> Exporter:
    """Make an exporter as the variables of OTLP want it; all others it reads by itself.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environ.get(_PROTOCOL)
    match protocol or "http/protobuf":
        case "http/protobuf":
            return http(endpoint=own or f"{endpoint.rstrip('/')}/v1/{signal.lower()}")
        case "grpc":
            return grpc(endpoint=own or endpoint)
        case other:
            raise TelemetryError(
                f"environment {_PROTOCOL} should be http/protobuf or grpc, not {other!r}"
            )


def _queue_of_spans(backend: Backend, resource: Resource) -> ExportQueue:
    def export(spans: Sequence[EndedSpan | ReadableSpan]) -> bool:
        whole = [it.readable(resource, _SCOPE) if isinstance(it, EndedSpan) else it for it in spans]
        return backend.spans.export(whole) is SpanExportResult.SUCCESS

    return ExportQueue(f"{backend.name} spans", export, Limits.of("OTEL_BSP"))


def _queue_of_records(backend: Backend) -> ExportQueue:
    def export(records: Sequence[Any]) -> bool:
        return backend.records.export(records) is LogRecordExportResult.SUCCESS

    return ExportQueue(f"{backend.name} log records", export, Limits.of("OTEL_BLRP"))


def _sampler(settings: TelemetrySettings) -> Sampler:
    """Return the sampler of the settings, or the one that `OTEL_TRACES_SAMPLER` names."""
    if environ.get("OTEL_TRACES_SAMPLER"):
        return TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False).sampler
    ratio = settings.sampling_ratio
    return ParentBased(ALWAYS_ON if ratio == 1 else TraceIdRatioBased(ratio))


def _exemplars() -> ExemplarFilter | None:
    """Return None where `OTEL_METRICS_EXEMPLAR_FILTER` decides; they cost each measurement."""
    return None if environ.get("OTEL_METRICS_EXEMPLAR_FILTER") else AlwaysOffExemplarFilter()


def _resource(agent: AgentSettings) -> Resource:
    """Return who sends; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win."""
    ours = {
        "service.name": agent.name or SYSTEM,
        "service.version": agent.version or __version__,
        "service.instance.id": str(uuid.uuid4()),
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def _offer_to_agent(
    tracers: TracerProvider, meters: MeterProvider, loggers: LoggerProvider
) -> None:
    """Let the agent's own spans and metrics go the same way, unless it has set up another."""
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    set_logger_provider(loggers)


def _in_a_thread(work: Callable[[float], object], argument: float) -> threading.Thread:
    def run() -> None:
        with exporting():
            work(argument)

    thread = threading.Thread(target=run, name="export end", daemon=True)
    thread.start()
    return thread


def _keep_exporters_aside() -> None:
    for handler in logging.getLogger().handlers:
        handler.addFilter(ExportersAside())


def _log_handler(loggers: LoggerProvider) -> logging.Handler:
    """Have every log line exported, but for what exporting itself brings about."""
    handler = LoggingHandler(logger_provider=loggers)
    handler.setFormatter(_Message())
    handler.addFilter(_Others())
    handler.addFilter(InvocationFilter())
    logging.getLogger().addHandler(handler)
    return handler
