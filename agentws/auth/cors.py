"""Leave for pages of other origins to call over HTTP.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Mapping
from typing import Any, Final

import aiohttp_cors
from aiohttp import hdrs, web
from aiohttp_cors.abc import AbstractRouterAdapter

from agentws.auth.origins import Origins
from agentws.protocol.errors import InvocationError
from agentws.transports.http.begun_answers import BEGUN
from agentws.transports.routing import Elsewhere, expectation_waits

_EXPOSED: Final = (
    "x-agent-invocation-id",
    "x-agent-session-id",
    "x-platform-error-source",
    "x-platform-server",
    "x-request-id",
    "Location",
    "Preference-Applied",
    "Retry-After",
)
_LEAVE: Final = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]
    allow_headers="*", allow_methods="*", expose_headers=_EXPOSED, max_age=600
)

Leave = Mapping[str, aiohttp_cors.ResourceOptions]
"""What pages may do, by their origin."""


class _AllowedPages(AbstractRouterAdapter):
    """Leave by origin, on every route alike; aiohttp-cors by itself knows no wildcards."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins

    def add_preflight_handler(
        self,
        routing_entity: web.Resource,
        handler: Any,
        webview: bool = False,  # noqa: ARG002 - the signature is given
    ) -> None:
        """Let preflights of a resource be answered."""
        routing_entity.add_route(hdrs.METH_OPTIONS, handler, expect_handler=expectation_waits)

    def is_preflight_request(self, request: web.Request) -> bool:
        """Tell whether a page only asks for leave."""
        return request.method == hdrs.METH_OPTIONS

    def is_cors_enabled_on_request(self, request: web.Request) -> bool:
        """Give leave everywhere, errors included, but where the agent itself has spoken of it."""
        return hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in request[BEGUN].headers

    def set_config_for_routing_entity(self, routing_entity: web.Resource, config: Leave) -> None:
        """Know no exceptions."""

    async def get_preflight_request_config(
        self, preflight_request: web.Request, _origin: str, _requested_method: str
    ) -> Leave:
        """Return the leave of the page that asks. Raises `invalid_request`."""
        for name in (hdrs.ACCESS_CONTROL_REQUEST_METHOD, hdrs.ACCESS_CONTROL_REQUEST_HEADERS):
            if not preflight_request.headers.get(name, "").isascii():  # it is told back
                raise InvocationError("invalid_request", f"{name} must be ASCII")
        return self.get_non_preflight_request_config(preflight_request)

    def get_non_preflight_request_config(self, request: web.Request) -> Leave:
        """Return the leave of the page that calls."""
        origin = request.headers.get(hdrs.ORIGIN, "")
        is_allowed = self._origins.admit(origin, request.headers.get(hdrs.HOST, ""))
        return {origin: _LEAVE} if is_allowed else {}


def allow_origins(app: web.Application, origins: Origins) -> None:
    """Let pages of these origins call every HTTP route, and read what it answers.

    To be called after `answers.begin` is among the application's signals.
    """
    cors = aiohttp_cors.CorsConfig(app, router_adapter=_AllowedPages(origins))
    for resource in app.router.resources():
        if not isinstance(resource, Elsewhere):
            cors.add(resource)
