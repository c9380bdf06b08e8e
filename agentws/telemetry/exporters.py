"""The exporters that are configured: for Application Insights, for an OTLP collector, or both.

Imported only where one of them is configured, as the packages behind them take over half a second.
"""

import re
from collections.abc import Callable, Sequence
from os import environ
from typing import Any, Final, TypeVar

from msgspec import Struct
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_spans
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_spans
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from agentws.config.requirements import needed
from agentws.config.settings import TelemetrySettings
from agentws.telemetry.lean_export import lean_exporter
from agentws.telemetry.lean_tracing import SpanRecord
from agentws.telemetry.meters import SCOPE
from agentws.telemetry.operations import TelemetryError
from agentws.telemetry.sampling import EVERYTHING

Exporter = TypeVar("Exporter")

_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"

_OFF: Final = (
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
    "APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED",
)
"""What the exporter for Application Insights would send or fetch of its own accord."""


_OF_EACH_SPAN: Final = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED",
)
"""What the SDK's exporter for HTTP does only with a session of its own, or with each span."""

Spans = Sequence[SpanRecord | ReadableSpan]


class Backend(Struct, frozen=True):
    """One place where telemetry goes."""

    name: str
    spans: Callable[[Spans], bool]
    """Tells whether they were taken."""
    records: LogRecordExporter
    metrics: MetricExporter


def application_insights(connection_string: str, resource: Resource) -> Backend:
    """Return what exports to the resource of a connection string. Raises `PackageError`."""
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
        _made_whole(AzureMonitorTraceExporter(**options), resource),
        AzureMonitorLogExporter(**options),
        AzureMonitorMetricExporter(**options),
    )


def collector(endpoint: str, resource: Resource) -> Backend:
    """Return what exports to a collector. Raises `TelemetryError` for a protocol that is none."""

    def over_http(endpoint: str) -> Callable[[Spans], bool]:
        if any(environ.get(name) for name in _OF_EACH_SPAN):
            return _made_whole(http_spans.OTLPSpanExporter(endpoint=endpoint), resource)
        return lean_exporter(endpoint, resource, SCOPE).export

    def over_grpc(endpoint: str) -> Callable[[Spans], bool]:
        return _made_whole(grpc_spans.OTLPSpanExporter(endpoint=endpoint), resource)

    return Backend(
        "OTLP",
        _of_protocol("TRACES", over_http, over_grpc, endpoint),
        _of_protocol("LOGS", http_logs.OTLPLogExporter, grpc_logs.OTLPLogExporter, endpoint),
        _of_protocol(
            "METRICS", http_metrics.OTLPMetricExporter, grpc_metrics.OTLPMetricExporter, endpoint
        ),
    )


def _made_whole(exporter: SpanExporter, resource: Resource) -> Callable[[Spans], bool]:
    """Return what exports spans, all of them as the SDK's."""

    def export(spans: Spans) -> bool:
        whole = [it.readable(resource, SCOPE) if isinstance(it, SpanRecord) else it for it in spans]
        return exporter.export(whole) is SpanExportResult.SUCCESS

    return export


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


def sampler_of(settings: TelemetrySettings) -> Sampler:
    """Return the sampler of the settings, or the one that `OTEL_TRACES_SAMPLER` names."""
    if environ.get("OTEL_TRACES_SAMPLER"):
        return TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False).sampler
    ratio = settings.sampling_ratio
    return EVERYTHING if ratio == 1 else ParentBased(TraceIdRatioBased(ratio))
