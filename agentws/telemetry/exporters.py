"""The exporters that are configured: for Application Insights, for an OTLP collector, or both.

Imported only where one of them is configured, and each only with its protocol's packages, as all of
them take over half a second.
"""

import re
from collections.abc import Callable
from os import environ
from typing import Any, Final

from msgspec import Struct
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from agentws.config.requirements import needed
from agentws.config.settings import TelemetrySettings
from agentws.telemetry.operations import TelemetryError

_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"

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


def application_insights(connection_string: str) -> Backend:
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
        AzureMonitorTraceExporter(**options),
        AzureMonitorLogExporter(**options),
        AzureMonitorMetricExporter(**options),
    )


def collector(endpoint: str) -> Backend:
    """Return what exports to a collector.

    Raises `TelemetryError` for a protocol that is none, and `PackageError`.
    """
    for_spans, to_spans = _otlp("TRACES", endpoint)
    for_records, to_records = _otlp("LOGS", endpoint)
    for_metrics, to_metrics = _otlp("METRICS", endpoint)
    return Backend(
        "OTLP",
        for_spans.spans(endpoint=to_spans),
        for_records.records(endpoint=to_records),
        for_metrics.metrics(endpoint=to_metrics),
    )


class _Protocol(Struct, frozen=True):
    """The exporters that speak one of the protocols of OTLP."""

    spans: Callable[..., SpanExporter]
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

    return _Protocol(OTLPSpanExporter, OTLPLogExporter, OTLPMetricExporter)


@needed()
def _grpc() -> _Protocol:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return _Protocol(OTLPSpanExporter, OTLPLogExporter, OTLPMetricExporter)


def sampler_of(settings: TelemetrySettings) -> Sampler:
    """Return the sampler of the settings, or the one that `OTEL_TRACES_SAMPLER` names."""
    if environ.get("OTEL_TRACES_SAMPLER"):
        return TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False).sampler
    ratio = settings.sampling_ratio
    return ParentBased(ALWAYS_ON if ratio == 1 else TraceIdRatioBased(ratio))
