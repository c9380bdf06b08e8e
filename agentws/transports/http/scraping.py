"""The page that a Prometheus server reads."""

from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from agentws.transports.http.wishes import accepted

if TYPE_CHECKING:
    from agentws.telemetry.prometheus import Scrapes

METRICS: Final = "/metrics"

_OPEN_METRICS: Final = "application/openmetrics-text"
"""https://prometheus.io/docs/specs/om/open_metrics_spec/"""

_TEXT: Final = "text/plain"
"""https://prometheus.io/docs/instrumenting/exposition_formats/"""


def metrics_route(scrapes: "Scrapes") -> web.RouteDef:
    """Return the route of the page: as OpenMetrics where `Accept` names that, else as text."""

    async def metrics(request: web.Request) -> web.Response:
        is_known = accepted(request).get(_OPEN_METRICS, False)
        body, media_type = await scrapes.page(
            f"{_OPEN_METRICS};version=1.0.0" if is_known else _TEXT
        )
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: media_type})

    return web.get(METRICS, metrics)
