"""The parts of one daemon, put together: who is handed what."""

from typing import TYPE_CHECKING

from opentelemetry import metrics, trace

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.agent.conversation import Draining
from agentws.agent.handlers import Agent
from agentws.agent.loading import Served
from agentws.agent.readiness import Readiness
from agentws.auth.access import AccessControl
from agentws.auth.origins import LOOPBACK_NAMES, Hosts, Origins
from agentws.config.requirements import PackageError, needed
from agentws.config.settings import Settings
from agentws.config.values import is_loopback
from agentws.invocations.table import InvocationTable
from agentws.stores.memory import MemoryStore
from agentws.stores.store import Store, StoreError
from agentws.telemetry.operations import ObservingTelemetry, Telemetry
from agentws.telemetry.tally import Tally
from agentws.transports.http.class_http import ClassHttp
from agentws.transports.http.http_api import HttpApi
from agentws.transports.http.probes import PROBES, Health
from agentws.transports.websocket.acceptor import Acceptor
from agentws.transports.websocket.close_log import ConnectionOptions
from agentws.transports.websocket.framed_ws import FramedEndpoint
from agentws.transports.websocket.raw_ws import RawEndpoint
from agentws.transports.websocket.registry import ConnectionRegistry

if TYPE_CHECKING:
    from agentws.console.routes import Console
    from agentws.console.state import Development

FRAMED_PATH = "/invocations_ws/ws"
RAW_PATH = "/invocations_ws"


class Parts:
    """Everything that serves one agent; to be made inside the event loop that it will run in."""

    def __init__(
        self, settings: Settings, served: Served, development: "Development | None" = None
    ) -> None:
        """Raise `TelemetryError`, `StoreError` and `PackageError` for settings that cannot be."""
        self.settings = settings
        self.agent = served if isinstance(served, Agent) else _agent_around(served)
        self.telemetry = _make_telemetry(settings)
        self.store = make_store(settings)
        self.draining = Draining()
        self.health = self._make_health()
        self.table = self._make_table()
        self.registry = ConnectionRegistry(
            settings.websocket.max_connections, _connection_options(settings, self.telemetry)
        )
        self.console = self._make_console(development) if settings.console.enabled else None
        self.origins = Origins(
            (*settings.auth.allowed_origins, *settings.http.cors_origins),
            this_machine=development is not None,
        )
        self.access = self._make_access()
        acceptor = Acceptor(
            self.registry, settings.websocket, settings.agent.session_id, self.agent.subprotocols
        )
        self.framed = FramedEndpoint(acceptor, self.table)
        serve_socket = self.agent.serve_socket
        self.raw = RawEndpoint(acceptor, serve_socket, self.draining) if serve_socket else None
        self.class_http = None if isinstance(served, Agent) else self._make_class_http(served)
        self.api = self.class_http or HttpApi(self.table, settings, self.agent, self.draining)

    def _make_health(self) -> Health:
        """Return what answers the probes, and have metrics tell of it, and of the limits."""
        readiness = Readiness(self.agent.readiness) if self.agent.readiness else None
        health = Health(self.store, self.draining, readiness)
        settings, metrics = self.settings, self.telemetry.metrics
        metrics.watch_checks(lambda: health.known)
        metrics.tell_limits(settings.invocations.max_running, settings.websocket.max_connections)
        return health

    def _make_table(self) -> InvocationTable:
        settings = self.settings
        return InvocationTable(
            self.agent,
            self.store,
            settings.invocations,
            self.telemetry,
            send_timeout=settings.websocket.send_timeout,
            logs_ends=settings.server.invocation_log,
            draining=self.draining,
        )

    def _make_access(self) -> AccessControl:
        return AccessControl(
            self.settings.auth,
            origins=self.origins,
            hosts=_hosts(self.settings, self.origins),
            probes=PROBES,
            pages=self.console.open_paths if self.console else (),
            sockets={FRAMED_PATH, RAW_PATH},
        )

    def _make_class_http(self, served: InvocationWebSocketHandler) -> ClassHttp:
        return ClassHttp(
            served,
            self.telemetry,
            self.draining,
            session_id=self.settings.agent.session_id,
            keep_alive=self.settings.http.sse_keepalive_interval,
        )

    def _make_console(self, development: "Development | None") -> "Console":
        from agentws.console.routes import Console
        from agentws.console.state import State

        tally = Tally()
        self.telemetry.metrics.keep(tally)
        state = State(
            table=self.table,
            store=self.store,
            sockets=self.registry,
            tally=tally,
            draining=self.draining,
            development=development,
        )
        return Console(self.settings, state, is_development=development is not None)


def _hosts(settings: Settings, origins: Origins) -> Hosts | None:
    """Return the names that a daemon may be called by, where a page could make up others for it."""
    host = settings.server.host
    if not (settings.console.enabled and is_loopback(host)):
        return None
    return Hosts((*LOOPBACK_NAMES, host), origins)


def _agent_around(served: InvocationWebSocketHandler) -> Agent:
    """Return an agent in class style as one that has its raw socket's handler, and no other."""
    agent = Agent(subprotocols=served.subprotocols)
    agent.serve_socket = served.handle_websocket
    return agent


def _connection_options(settings: Settings, telemetry: Telemetry) -> ConnectionOptions:
    return ConnectionOptions(
        telemetry.metrics, settings.websocket.send_timeout, settings.server.trust_forwarded
    )


def make_store(settings: Settings) -> Store:
    """Return the store that the settings name. Raises `StoreError`."""
    kept = settings.invocations
    if settings.store.url == "memory://":
        return MemoryStore(retention=kept.retention, max_retained=kept.max_retained)
    try:
        with needed():
            from agentws.stores.redis.identity import Identity
            from agentws.stores.redis.store import RedisStore
    except PackageError as error:
        raise StoreError(f"store.url needs agentws[redis]: {error}") from error
    try:
        identity = Identity() if settings.store.auth == "entra" else None
    except PackageError as error:
        raise StoreError(f"store.auth = entra needs agentws[azure]: {error}") from error
    return RedisStore(
        settings.store.url,
        prefix=settings.store.prefix,
        identity=identity,
        lease=settings.store.lease,
        retention=kept.retention,
        max_retained=kept.max_retained,
        replay_bytes=kept.replay_bytes,
        send_timeout=settings.websocket.send_timeout,
    )


def _make_telemetry(settings: Settings) -> Telemetry:
    """Return what the settings ask for, else what the agent's module has set up, else silence.

    With the console, there is no silence: it shows what is measured.
    """
    if settings.telemetry.connection_string or settings.telemetry.otlp_endpoint:
        with needed():
            from agentws.telemetry.exporting import start
        return start(settings.telemetry, settings.agent)
    if settings.telemetry.prometheus:
        with needed():
            from agentws.telemetry.measuring import Measuring
        return Measuring(settings.agent)
    is_set_up = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    if not (is_set_up or settings.console.enabled):
        return Telemetry()
    tracer, meter = trace.get_tracer("agentws"), metrics.get_meter("agentws")
    return ObservingTelemetry(tracer, meter, settings.agent)
