"""The daemon: its parts put together, and its life from the first bind to the last socket."""

import asyncio
import logging
import platform
import socket
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from aiohttp import hdrs, web
from opentelemetry import metrics, trace

from agentws import __version__, answers
from agentws.access_log import AccessLogger, ServerLogger
from agentws.agent.handlers import Agent
from agentws.agent.loading import Served
from agentws.auth import AccessControl
from agentws.class_api import ClassApi
from agentws.config.requirements import PackageError, needed
from agentws.config.settings import Settings, without_credentials
from agentws.connections import ConnectionRegistry, Terms
from agentws.cors import allow_origins
from agentws.envelope import add_headers, answering_errors
from agentws.framed_ws import FramedEndpoint
from agentws.http_api import HttpApi
from agentws.invocations import InvocationTable
from agentws.origins import Origins
from agentws.raw_ws import RawEndpoint
from agentws.routing import serve_routes
from agentws.service_api import PROBES, ServiceApi
from agentws.stores.memory import MemoryStore
from agentws.stores.store import Store
from agentws.stores.store import StoreError as StoreError
from agentws.telemetry.operations import ObservingTelemetry, Telemetry

_logger: Final = logging.getLogger("agentws.server")

CLOSING_TIME: Final = 3.0
"""Seconds for closing the sockets, the agent's shutdown handler and the rest together (§8)."""

_LAST_REQUESTS: Final = 0.25
"""Of these, how many aiohttp waits for answers that are still under way; it may do so twice."""

_LAST_CONNECTIONS: Final = 0.1
"""Of these, how many connections are served for after the last one was accepted."""

CANCEL_TIME: Final = 1.0
"""Seconds for a handler that is cancelled at the end, unless `cancel_grace` is less (§8)."""

_LINGER: Final = 1.0
"""Seconds for which the rest of a refused body is read, so that its sender reads the answer."""

_FIELD_SIZE: Final = 16 * 1024
"""Bytes of the request line, and of a header field: a token may name hundreds of groups."""

_BACKLOG: Final = 1024

_EVERYWHERE: Final = ("", "*", "::")
"""Hosts that stand for every address, of IPv4 and IPv6."""

_FRAMED: Final = "/invocations_ws/ws"
_RAW: Final = "/invocations_ws"


class BindError(Exception):
    """The address cannot be listened on; the text is one sentence that says why."""


class StartupError(Exception):
    """The agent's startup handler raised; its exception is the cause."""


class Server:
    """One daemon, serving one agent; to be made inside the event loop that it will run in."""

    def __init__(
        self,
        settings: Settings,
        served: Served,
        origin: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Put the parts together; `origin` is what the log should tell of where settings came from.

        Raises `TelemetryError` for wrong settings of telemetry.
        """
        self._settings = settings
        self._origin = origin
        self._draining = False
        self._agent = (
            served if isinstance(served, Agent) else Agent(subprotocols=served.subprotocols)
        )
        self._telemetry = _telemetry(settings)
        self._origins = Origins((*settings.auth.allowed_origins, *settings.http.cors_origins))
        self._access = AccessControl(
            settings.auth,
            origins=self._origins,
            probes=PROBES,
            sockets={_FRAMED, _RAW},
        )
        self._registry = ConnectionRegistry(
            settings.websocket.max_connections,
            Terms(
                self._telemetry.metrics,
                settings.websocket.send_timeout,
                settings.server.trust_forwarded,
            ),
        )
        self._store = _make_store(settings)
        self._table = InvocationTable(
            self._agent,
            self._store,
            settings.invocations,
            self._telemetry,
            send_timeout=settings.websocket.send_timeout,
            logs_ends=settings.server.invocation_log,
        )
        self._raw = self._raw_endpoint(served)
        self._class_api = (
            None
            if isinstance(served, Agent)
            else ClassApi(
                served,
                self._telemetry,
                session_id=settings.agent.session_id,
                keep_alive=settings.http.sse_keepalive_interval,
            )
        )
        self._runner = web.AppRunner(
            self._application(),
            access_log_class=AccessLogger,
            access_log=AccessLogger.LOGGER if settings.server.access_log else None,
            logger=ServerLogger(_logger),
            # Where aiohttp refuses an encoding, nothing of ours answers. In class style, the agent
            # reads the body by aiohttp's request, which has no other way to inflate it.
            auto_decompress=self._class_api is not None,
            max_line_size=_FIELD_SIZE,
            max_field_size=_FIELD_SIZE,
            keepalive_timeout=settings.http.keepalive_timeout,
            lingering_time=_LINGER,
            handler_cancellation=True,  # a client that leaves is a lost listener, at once (§5)
            shutdown_timeout=_LAST_REQUESTS,
        )

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self._runner.addresses[0][1])

    @property
    def routes(self) -> Iterable[web.AbstractRoute]:
        """The routes that are served."""
        return self._routes

    async def start(self) -> None:
        """Bind, open the store, run the agent's startup handler, listen.

        Raises `BindError`, `StoreError`, and `StartupError` when the startup handler raises.
        """
        sockets = _bind(self._settings.server.host, self._settings.server.port)
        try:
            await self._store.open()
            await self._start_agent()
        except BaseException:
            for sock in sockets:
                sock.close()
            await self._store.close()
            raise
        self._access.open()
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock, backlog=_BACKLOG).start()
        self._tell_start()

    def _tell_start(self) -> None:
        """Write the line of the start: what runs here, and with what."""
        settings = self._settings
        host = settings.server.host or "*"
        fields = {
            "version": __version__,
            "python": platform.python_version(),
            "host": host,
            "port": self.port,
            "handler": settings.handler.target or "the built-in echo",
            "store": without_credentials(settings.store.url),
            "replica": self._store.replica,
            **self._origin,
        }
        _logger.info("Listening on %s port %d", host, self.port, extra=fields)

    async def drain(self) -> bool:
        """End well (§8): refuse new work, let the old finish, close. Tell whether all has ended.

        Takes `shutdown_grace`, a second for what must be cancelled, and three for the rest.
        """
        grace = self._settings.server.shutdown_grace
        _logger.info("Shutting down: %d invocations run", self._table.running)
        self._draining = True
        self._registry.announce_shutdown(grace)
        all_ended = await self._drain_handlers(grace)
        closing_since = asyncio.get_running_loop().time()
        closing = {
            asyncio.create_task(self._stop_listening()),
            asyncio.create_task(self._registry.close_all()),
            asyncio.create_task(self._shut_agent_down()),
            asyncio.create_task(self._store.close()),
        }
        patience = CLOSING_TIME - 2 * _LAST_REQUESTS - self._telemetry.patience
        done, late = await asyncio.wait(closing, timeout=patience)
        for task in late:
            task.cancel()
        _tell_failures(task.exception() for task in done if not task.cancelled())
        await self._runner.cleanup()
        self._access.close()
        ends = self._table.ends
        _logger.info(
            "Shut down: %d invocations ended, %d were cancelled, %d were given up",
            *ends,
            extra=ends._asdict(),
        )
        elapsed = asyncio.get_running_loop().time() - closing_since
        await self._telemetry.close(CLOSING_TIME - elapsed)
        return all_ended and not late

    async def _stop_listening(self) -> None:
        """Accept no more connections, and serve for a moment what has come on the last ones.

        A gateway cannot know whether a POST on a connection that is cut has run, and asks nobody
        else. One that meets no connection is asked of another replica.
        """
        for site in self._runner.sites.copy():
            await site.stop()
        await asyncio.sleep(_LAST_CONNECTIONS)

    async def _drain_handlers(self, grace: float) -> bool:
        """Wait for all that runs, on every transport; tell whether all has ended."""
        patience = min(self._settings.invocations.cancel_grace, CANCEL_TIME)
        drains = [self._table.drain(grace, patience)]
        drains += [part.drain(grace, patience) for part in (self._raw, self._class_api) if part]
        outcomes = await asyncio.gather(*drains, return_exceptions=True)
        _tell_failures(outcomes)  # and go on: sockets, agent and telemetry have an end of their own
        return all(outcome is True for outcome in outcomes)

    def _health(self) -> str:
        if self._draining:
            return "draining"
        return "healthy" if self._store.available else "unavailable"

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[answering_errors(self._access.admit)])
        app.on_response_prepare.extend((add_headers, self._part, answers.begin))
        if self._class_api is not None:
            app.on_response_prepare.append(self._class_api.keep_alive)
        api = self._class_api or HttpApi(
            self._table,
            self._settings,
            openapi=self._agent.openapi,
            asyncapi=self._agent.asyncapi,
        )
        framed = FramedEndpoint(
            self._registry,
            self._table,
            self._settings.websocket,
            session_id=self._settings.agent.session_id,
            subprotocols=self._agent.subprotocols,
        )
        routes = [*ServiceApi(self._health).routes(), *api.routes()]
        routes.append(web.get(_FRAMED, framed.serve))
        if endpoint := self._raw or (framed if self._agent.invoke is not None else None):
            routes.append(web.get(_RAW, endpoint.serve))
        self._routes = serve_routes(app, routes)
        if self._origins.some_are_allowed:
            allow_origins(app, self._origins)
        return app

    async def _part(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Have clients of a replica that drains use their connections no more (RFC 9112 §9.6)."""
        if self._draining and response.status != 101:
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"  # aiohttp has decided already

    def _raw_endpoint(self, served: Served) -> RawEndpoint | None:
        handler = served.serve_socket if isinstance(served, Agent) else served.handle_websocket
        if handler is None:
            return None
        return RawEndpoint(
            handler,
            self._registry,
            self._settings.websocket,
            session_id=self._settings.agent.session_id,
            subprotocols=self._agent.subprotocols,
        )

    async def _start_agent(self) -> None:
        if self._agent.startup is None:
            return
        try:
            await self._agent.startup()
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a signal came first
                raise
            raise StartupError("The agent's startup handler raised") from error

    async def _shut_agent_down(self) -> None:
        if self._agent.shutdown is None:
            return
        try:
            await self._agent.shutdown()
        except asyncio.CancelledError:
            _logger.error("The agent's shutdown handler did not end in time")
            raise
        except BaseException:
            _logger.exception("The agent's shutdown handler raised")


def _tell_failures(outcomes: Iterable[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            _logger.error("A part of the server did not end well", exc_info=outcome)


def _make_store(settings: Settings) -> Store:
    """Return the store that the settings name. Raises `StoreError`."""
    kept = settings.invocations
    if settings.store.url == "memory://":
        return MemoryStore(retention=kept.retention, max_retained=kept.max_retained)
    try:
        with needed():
            from agentws.stores.redis.store import RedisStore
    except PackageError as error:
        raise StoreError(f"store.url needs agentws[redis]: {error}") from error
    return RedisStore(
        settings.store.url,
        lease=settings.store.lease,
        retention=kept.retention,
        max_retained=kept.max_retained,
        replay_bytes=kept.replay_bytes,
        send_timeout=settings.websocket.send_timeout,
    )


def _telemetry(settings: Settings) -> Telemetry:
    """Return what the settings ask for, else what the agent's module has set up, else silence."""
    if settings.telemetry.connection_string or settings.telemetry.otlp_endpoint:
        with needed():
            from agentws.telemetry.exporting import start
        return start(settings.telemetry, settings.agent)
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return Telemetry()
    tracer, meter = trace.get_tracer("agentws"), metrics.get_meter("agentws")
    return ObservingTelemetry(tracer, meter, settings.agent)


def _bind(host: str, port: int) -> list[socket.socket]:
    """Bind, without listening, to every address that `host` stands for. Raises `BindError`."""
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                takes_ipv4 = host in _EVERYWHERE and socket.has_dualstack_ipv6()
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not takes_ipv4)
            sock.bind(address)
    except (OSError, UnicodeError) as error:  # the latter for what is no name of a host
        for sock in sockets:
            sock.close()
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise BindError(f"cannot listen on {host or '*'} port {port}: {reason}") from error
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """Return families and addresses; one of both families where all are meant, and it is there."""
    if host in _EVERYWHERE:
        host = "::" if host == "::" or socket.has_dualstack_ipv6() else "0.0.0.0"
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
