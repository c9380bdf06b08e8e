"""Telemetry that leaves the daemon, from its start to its end."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import environ
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import (
    LoggerProvider,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader as AnyReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

from agentws.config.otel_variables import Signal, exports
from agentws.config.requirements import PackageError, needed
from agentws.config.settings import AgentSettings, TelemetrySettings
from agentws.telemetry.export_queue import ExportQueue, as_exporter
from agentws.telemetry.exporter_noise import _Others, keep_exporters_aside, without_secrets
from agentws.telemetry.exporters import (
    Backend,
    application_insights,
    collector,
    sampler_of,
)
from agentws.telemetry.lean_tracing import LeanTracer, WatchedProvider
from agentws.telemetry.logs import InvocationFilter
from agentws.telemetry.meters import SCOPE, meters_for, resource_of
from agentws.telemetry.operations import ObservingTelemetry, TelemetryError
from agentws.telemetry.queued import (
    MetricReader,
    QueuedRecords,
    QueuedSpans,
    putting_into,
    queue_of_records,
    queue_of_spans,
)
from agentws.telemetry.sampling import Decisions

if TYPE_CHECKING:
    from agentws.telemetry.prometheus import Scrapes


def start(settings: TelemetrySettings, agent: AgentSettings) -> ObservingTelemetry:
    """Export to what is configured from now on, the agent's own spans, metrics and log lines too.

    Raises `TelemetryError` when the configuration is not accepted, and `PackageError`.
    """
    backends = []
    resource = resource_of(agent)
    try:
        if settings.connection_string:
            backends.append(application_insights(settings.connection_string, resource))
        if settings.otlp_endpoint:
            backends.append(collector(settings.otlp_endpoint, resource))
        scrapes = _scrapes() if settings.prometheus else None
        return Exporting(backends, resource, sampler_of(settings), agent, scrapes)
    except (TelemetryError, PackageError):
        raise
    except Exception as error:
        raise TelemetryError(
            f"telemetry is wrongly configured: {without_secrets(str(error))}"
        ) from error


@needed()
def _scrapes() -> "Scrapes":
    from agentws.telemetry.prometheus import Scrapes

    return Scrapes()


class Exporting(ObservingTelemetry):
    """Telemetry that leaves the daemon."""

    patience = 1.0

    def __init__(
        self,
        backends: Sequence[Backend],
        resource: Resource,
        sampler: Sampler,
        agent: AgentSettings,
        scrapes: "Scrapes | None",
    ) -> None:
        signals: tuple[Signal, ...] = ("TRACES", "LOGS", "METRICS")
        of_traces, of_logs, of_metrics = (
            backends if exports(signal, environ) else [] for signal in signals
        )
        spans = [queue_of_spans(backend) for backend in of_traces]
        records = [queue_of_records(backend) for backend in of_logs]
        self._queues = [*spans, *records]
        self._readers = [MetricReader(backend.metrics) for backend in of_metrics]
        self.scrapes = scrapes
        readers: list[AnyReader] = [*self._readers]
        if scrapes is not None:
            readers.append(scrapes.reader)
        meters = meters_for(readers, resource)
        decisions = Decisions(sampler)
        tracers = WatchedProvider(
            decisions, resource, shutdown_on_exit=False, id_generator=decisions
        )
        tracers.add_span_processor(QueuedSpans(spans))
        tracers.watched = False
        loggers = LoggerProvider(resource, shutdown_on_exit=False)
        for queue in records:
            loggers.add_log_record_processor(QueuedRecords(queue))
        keep_exporters_aside()
        self._handler = _log_handler(loggers) if records else None
        tracer = tracers.get_tracer(SCOPE.name, SCOPE.version)
        meter = meters.get_meter(SCOPE.name, SCOPE.version)
        super().__init__(LeanTracer(tracers, decisions, tracer, putting_into(spans)), meter, agent)
        self._count_losses(meter)
        _offer_to_agent(tracers, meters, loggers)

    async def close(self, seconds: float) -> None:
        """Send the rest within so many seconds, to all backends at the same time."""
        if self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
        await super().close(seconds)
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


class _Message(logging.Formatter):
    """The text of a line alone, in characters that can be sent."""

    def format(self, record: logging.LogRecord) -> str:
        return record.getMessage().encode("utf-8", "replace").decode()


def _offer_to_agent(
    tracers: TracerProvider, meters: MeterProvider, loggers: LoggerProvider
) -> None:
    """Let the agent's own spans and metrics go the same way, unless it has set up another."""
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    set_logger_provider(loggers)


def _in_a_thread(work: Callable[[float], object], argument: float) -> threading.Thread:
    def run() -> None:
        with as_exporter():
            work(argument)

    thread = threading.Thread(target=run, name="export end", daemon=True)
    thread.start()
    return thread


def _log_handler(loggers: LoggerProvider) -> logging.Handler:
    """Have every log line exported, but for what exporting itself brings about."""
    handler = LoggingHandler(logger_provider=loggers)
    handler.setFormatter(_Message())
    handler.addFilter(_Others())
    handler.addFilter(InvocationFilter())
    logging.getLogger().addHandler(handler)
    return handler
