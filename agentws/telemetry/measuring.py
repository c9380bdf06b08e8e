"""Telemetry of a daemon whose metrics are scraped, and which sends nothing anywhere."""

from opentelemetry import metrics, trace

from agentws.config.settings import AgentSettings
from agentws.telemetry.exporter_noise import keep_exporters_aside
from agentws.telemetry.meters import SCOPE, meters_for, resource_of
from agentws.telemetry.operations import ObservingTelemetry
from agentws.telemetry.prometheus import Scrapes


class Measuring(ObservingTelemetry):
    """Measures for whoever scrapes. Spans go where the agent's module sends them, if anywhere."""

    def __init__(self, agent: AgentSettings) -> None:
        self.scrapes = scrapes = Scrapes()
        meters = meters_for([scrapes.reader], resource_of(agent))
        tracer = trace.get_tracer(SCOPE.name, SCOPE.version)
        super().__init__(tracer, meters.get_meter(SCOPE.name, SCOPE.version), agent)
        keep_exporters_aside()
        metrics.set_meter_provider(meters)  # the agent's own, unless it has set up another
