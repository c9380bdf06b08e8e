"""Who measures, and for whom: what all meters have in common, whatever reads them."""

import uuid
from collections.abc import Sequence
from os import environ
from typing import Final

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from agentws.config.settings import AgentSettings
from agentws.telemetry.operations import SYSTEM
from agentws.version import __version__

SCOPE: Final = InstrumentationScope("agentws", __version__)


def resource_of(agent: AgentSettings) -> Resource:
    """Return who sends; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win."""
    ours = {
        "service.name": agent.name or SYSTEM,
        "service.version": agent.version or __version__,
        "service.instance.id": str(uuid.uuid4()),
    }
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def meters_for(readers: Sequence[MetricReader], resource: Resource) -> MeterProvider:
    """Return what makes meters, whose values these readers read.

    Exemplars cost each measurement: there are none, unless `OTEL_METRICS_EXEMPLAR_FILTER` decides.
    """
    is_decided = environ.get("OTEL_METRICS_EXEMPLAR_FILTER")
    exemplars = None if is_decided else AlwaysOffExemplarFilter()
    return MeterProvider(readers, resource, shutdown_on_exit=False, exemplar_filter=exemplars)
