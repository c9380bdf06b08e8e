"""The daemon's life: from the first bind to the last socket."""

import asyncio
import logging
import platform
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from aiohttp import web

from agentws.agent.loading import Served
from agentws.config.settings import Settings
from agentws.config.values import without_credentials
from agentws.daemon.application import LAST_REQUESTS, make_application, make_runner
from agentws.daemon.listening import bind
from agentws.daemon.parts import Parts
from agentws.daemon.supervision import Supervision
from agentws.telemetry.metrics import Metrics
from agentws.version import __version__

_logger: Final = logging.getLogger("agentws.server")

CLOSING_TIME: Final = 3.0
"""Seconds for closing the sockets, the agent's shutdown handler and the rest together (§8)."""

_LAST_CONNECTIONS: Final = 0.1
"""Of these, how many connections are served for after the last one was accepted."""

CANCEL_TIME: Final = 1.0
"""Seconds for a handler that is cancelled at the end, unless `cancel_grace` is less (§8)."""

_BACKLOG: Final = 1024


class StartupError(Exception):
    """The agent's startup handler raised; its exception is the cause."""


class Server:
    """One daemon, serving one agent; to be made inside the event loop that it will run in."""

    def __init__(
        self,
        settings: Settings,
        served: Served,
        origin: Mapping[str, object] = MappingProxyType({}),
        supervision: Supervision | None = None,
    ) -> None:
        """Put the parts together; `origin` is what the log should tell of where settings came from.

        Raises `TelemetryError`, `StoreError` and `PackageError` for settings that cannot be.
        """
        self._origin = origin
        self._supervision = supervision
        self._parts = Parts(settings, served, supervision.development if supervision else None)
        app, self._routes = make_application(self._parts)
        self._runner = make_runner(self._parts, app)

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self._runner.addresses[0][1])

    @property
    def metrics(self) -> Metrics:
        """The instruments that measure it."""
        return self._parts.telemetry.metrics

    @property
    def routes(self) -> Iterable[web.AbstractRoute]:
        """The routes that are served."""
        return self._routes

    async def start(self) -> None:
        """Bind, open the store, run the agent's startup handler, listen.

        Raises `BindError`, `StoreError`, and `StartupError` when the startup handler raises.
        """
        server = self._parts.settings.server
        supervision = self._supervision
        sockets = supervision.sockets if supervision else bind(server.host, server.port)
        try:
            await self._parts.store.open()
            await self._start_agent()
        except BaseException:
            for sock in sockets:
                sock.close()
            await self._parts.store.close()
            raise
        self._parts.access.open()
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock, backlog=_BACKLOG).start()
        self._tell_start()
        if supervision is not None:
            supervision.on_listening()

    def _tell_start(self) -> None:
        """Write the line of the start: what runs here, and with what."""
        settings = self._parts.settings
        host = settings.server.host or "*"
        fields = {
            "version": __version__,
            "python": platform.python_version(),
            "host": host,
            "port": self.port,
            "handler": settings.handler.target or "the built-in echo",
            "store": without_credentials(settings.store.url),
            "replica": self._parts.store.replica,
            **self._origin,
        }
        _logger.info("Listening on %s port %d", host, self.port, extra=fields)

    async def drain(self) -> bool:
        """End well (§8): refuse new work, let the old finish, close. Tell whether all has ended.

        Takes `shutdown_grace`, a second for what must be cancelled, and three for the rest.
        """
        grace = self._parts.settings.server.shutdown_grace
        _logger.info("Shutting down: %d invocations run", self._parts.table.running)
        if self._supervision is not None:  # who connects now is the next process's
            await self._stop_listening()
        self._parts.draining.begin()
        self._parts.registry.announce_shutdown(grace)
        all_ended = await self._drain_handlers(grace)
        closing_since = asyncio.get_running_loop().time()
        closing = {
            asyncio.create_task(self._stop_listening()),
            asyncio.create_task(self._parts.registry.close_all()),
            asyncio.create_task(self._shut_agent_down()),
            asyncio.create_task(self._parts.store.close()),
        }
        patience = CLOSING_TIME - 2 * LAST_REQUESTS - self._parts.telemetry.patience
        done, late = await asyncio.wait(closing, timeout=patience)
        for task in late:
            task.cancel()
        _tell_failures(task.exception() for task in done if not task.cancelled())
        await self._runner.cleanup()
        self._parts.access.close()
        ends = self._parts.table.ends
        _logger.info(
            "Shut down: %d invocations ended, %d were cancelled, %d were given up",
            *ends,
            extra=ends._asdict(),
        )
        elapsed = asyncio.get_running_loop().time() - closing_since
        await self._parts.telemetry.close(CLOSING_TIME - elapsed)
        return all_ended and not late

    async def _stop_listening(self) -> None:
        """Accept no more connections, and serve for a moment what has come on the last ones.

        A gateway cannot know whether a POST on a connection that is cut has run, and asks nobody
        else. One that meets no connection is asked of another replica.
        """
        sites = self._runner.sites.copy()
        for site in sites:
            await site.stop()
        if sites:
            await asyncio.sleep(_LAST_CONNECTIONS)

    async def _drain_handlers(self, grace: float) -> bool:
        """Wait for all that runs, on every transport; tell whether all has ended."""
        patience = min(self._parts.settings.invocations.cancel_grace, CANCEL_TIME)
        drains = [self._parts.table.drain(grace, patience)]
        drains += [
            part.drain(grace, patience)
            for part in (self._parts.raw, self._parts.class_http)
            if part
        ]
        outcomes = await asyncio.gather(*drains, return_exceptions=True)
        _tell_failures(outcomes)  # and go on: sockets, agent and telemetry have an end of their own
        return all(outcome is True for outcome in outcomes)

    async def _start_agent(self) -> None:
        if self._parts.agent.startup is None:
            return
        try:
            await self._parts.agent.startup()
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a signal came first
                raise
            raise StartupError("The agent's startup handler raised") from error

    async def _shut_agent_down(self) -> None:
        if self._parts.agent.shutdown is None:
            return
        try:
            await self._parts.agent.shutdown()
        except asyncio.CancelledError:
            _logger.error("The agent's shutdown handler did not end in time")
            raise
        except BaseException:
            _logger.exception("The agent's shutdown handler raised")


def _tell_failures(outcomes: Iterable[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            _logger.error("A part of the server did not end well", exc_info=outcome)
