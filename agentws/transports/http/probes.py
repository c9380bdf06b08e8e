"""Probes for whoever runs the daemon: whether it lives, and whether it should get work."""

from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

from agentws.agent.conversation import Draining
from agentws.agent.readiness import READY, Readiness
from agentws.stores.store import Store
from agentws.transports.http.answers import json_response

PROBES: Final = frozenset({"/readiness", "/liveness"})
"""What is answered to anybody."""


class Health:
    """Whether new work is welcome here."""

    def __init__(self, store: Store, draining: Draining, agent: Readiness | None) -> None:
        """Ask the store, and the agent where it has something to say of itself."""
        self._store = store
        self._draining = draining
        self._agent = agent

    @property
    def known(self) -> Mapping[str, bool]:
        """What is well, as far as is known without asking the agent; draining is not."""
        known = {"draining": not self._draining.begun, "store": not self._store.trouble}
        if self._agent is not None and self._agent.last is not None:
            known["agent"] = self._agent.last == READY
        return known

    async def checks(self) -> Mapping[str, str]:
        """Return `ok` for each of what is needed, or a few words on what is wrong with it."""
        checks = {"store": self._store.trouble or READY}
        if self._agent is not None:
            checks["agent"] = await self._agent.ask()
        return checks

    def status(self, checks: Mapping[str, str]) -> str:
        """Return `healthy`, or why not, in a word (§1)."""
        if self._draining.begun:
            return "draining"
        return "healthy" if set(checks.values()) == {READY} else "unavailable"

    async def part(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Have clients of a replica that drains use their connections no more (RFC 9112 §9.6)."""
        if self._draining.begun and response.status != 101:
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"  # aiohttp has decided already


def probe_routes(health: Health) -> list[web.RouteDef]:
    """Return the routes of the probes."""

    async def readiness(_request: web.Request) -> web.Response:
        checks = await health.checks()
        status = health.status(checks)
        body = {"status": status, "checks": checks}
        return json_response(body, status=200 if status == "healthy" else 503)

    async def liveness(_request: web.Request) -> web.Response:
        return json_response({"status": "alive"})

    return [web.get("/readiness", readiness), web.get("/liveness", liveness)]
