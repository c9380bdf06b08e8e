"""The exporters that are configured: for Application Insights, for an OTLP collector, or both.

Imported only where one of them is configured, and each only with its protocol's packages, as all of
them take over half a second.
"""

import re
from collections.abc import Callable, Sequence
from os import environ
from typing import Any, Final

from msgspec import Struct
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
from agentws.telemetry.lean_tracing import SpanRecord
from agentws.telemetry.meters import SCOPE
from agentws.telemetry.operations import TelemetryError
from agentws.telemetry.sampling import EVERYTHING

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
    """Return what exports to a collector.

    Raises `TelemetryError` for a protocol that is none, and `PackageError`.
    """
    for_spans, to_spans = _otlp("TRACES", endpoint)
    for_records, to_records = _otlp("LOGS", endpoint)
    for_metrics, to_metrics = _otlp("METRICS", endpoint)
    return Backend(
        "OTLP",
        for_spans.spans(to_spans, resource),
        for_records.records(endpoint=to_records),
        for_metrics.metrics(endpoint=to_metrics),
    )


def _made_whole(exporter: SpanExporter, resource: Resource) -> Callable[[Spans], bool]:
    """Return what exports spans, all of them as the SDK's."""

    def export(spans: Spans) -> bool:
        whole = [it.readable(resource, SCOPE) if isinstance(it, SpanRecord) else it for it in spans]
        return exporter.export(whole) is SpanExportResult.SUCCESS

    return export


class _Protocol(Struct, frozen=True):
    """What exports by one of the protocols of OTLP."""

    spans: Callable[[str, Resource], Callable[[Spans], bool]]
    records: Callable[..., LogRecordExporter]
    metrics: Callable[..., MetricExporter]


def _otlp(signal: str, endpoint: str) -> tuple[_Protocol, str]:
    """Return a signal's protocol and endpoint as the variables of OTLP want them.

    All other variables are read by the exporters themselves.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environ.get(_PROTOCOL)
    match protocol or "http/protobuf":
        case "http/protobuf":
            return _http(), own or f"{endpoint.rstrip('/')}/v1/{signal.lower()}"
        case "grpc":
            return _grpc(), own or endpoint
        case other:
            raise TelemetryError(
                f"environment {_PROTOCOL} should be http/protobuf or grpc, not {other!r}"
            )


@needed()
def _http() -> _Protocol:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    from agentws.telemetry.lean_export import lean_exporter

    def spans(endpoint: str, resource: Resource) -> Callable[[Spans], bool]:
        if any(environ.get(name) for name in _OF_EACH_SPAN):
            return _made_whole(OTLPSpanExporter(endpoint=endpoint), resource)
        return lean_exporter(endpoint, resource, SCOPE).export

    return _Protocol(spans, OTLPLogExporter, OTLPMetricExporter)


@needed()
def _grpc() -> _Protocol:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    def spans(endpoint: str, resource: Resource) -> Callable[[Spans], bool]:
        return _made_whole(OTLPSpanExporter(endpoint=endpoint), resource)

    return _Protocol(spans, OTLPLogExporter, OTLPMetricExporter)


def sampler_of(settings: TelemetrySettings) -> Sampler:
    """Return the sampler of the settings, or the one that `OTEL_TRACES_SAMPLER` names."""
    if environ.get("OTEL_TRACES_SAMPLER"):
        return TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False).sampler
    ratio = settings.sampling_ratio
    return EVERYTHING if ratio == 1 else ParentBased(TraceIdRatioBased(ratio))
