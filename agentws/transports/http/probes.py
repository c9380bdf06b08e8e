"""Probes for whoever runs the daemon: whether it lives, and whether it should get work."""

from typing import Final

from aiohttp import hdrs, web

from agentws.agent.conversation import Draining
from agentws.stores.store import Store
from agentws.transports.http.answers import json_response

PROBES: Final = frozenset({"/readiness", "/liveness"})
"""What is answered to anybody."""


class Health:
    """Whether new work is welcome here."""

    def __init__(self, store: Store, draining: Draining) -> None:
        self._store = store
        self._draining = draining

    @property
    def status(self) -> str:
        """`healthy`, or why not."""
        if self._draining.begun:
            return "draining"
        return "healthy" if self._store.available else "unavailable"

    async def part(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Have clients of a replica that drains use their connections no more (RFC 9112 §9.6)."""
        if self._draining.begun and response.status != 101:
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"  # aiohttp has decided already


def probe_routes(health: Health) -> list[web.RouteDef]:
    """Return the routes of the probes."""

    async def readiness(_request: web.Request) -> web.Response:
        status = health.status
        return json_response({"status": status}, status=200 if status == "healthy" else 503)

    async def liveness(_request: web.Request) -> web.Response:
        return json_response({"status": "alive"})

    return [web.get("/readiness", readiness), web.get("/liveness", liveness)]
