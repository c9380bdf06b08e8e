"""Probes for whoever runs the daemon."""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from agentws.envelope import json_response

PROBES: Final = frozenset({"/readiness", "/liveness"})
"""What is answered to anybody."""


class ServiceApi:
    """The routes that have nothing to do with invocations."""

    def __init__(self, health: Callable[[], str]) -> None:
        """`health` tells `healthy`, or why the daemon should get no new work."""
        self._health = health

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, for an application's router."""
        return [
            web.get("/readiness", self.readiness),
            web.get("/liveness", self.liveness),
        ]

    async def readiness(self, _request: web.Request) -> web.Response:
        """Tell whether new work is welcome: 200, else 503."""
        status = self._health()
        return json_response({"status": status}, status=200 if status == "healthy" else 503)

    async def liveness(self, _request: web.Request) -> web.Response:
        """Tell that the event loop turns."""
        return json_response({"status": "alive"})
