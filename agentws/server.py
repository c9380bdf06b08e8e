"""The daemon: its parts put together, and its life from the first bind to the last socket."""

import asyncio
import logging
import socket
from typing import Any, Final

from aiohttp import web

from agentws.access_log import AccessLogger
from agentws.connections import ConnectionRegistry
from agentws.framed_ws import FramedEndpoint
from agentws.handler import Agent
from agentws.http_api import HttpApi, add_headers, answer_errors
from agentws.invocations import InvocationTable
from agentws.settings import Settings
from agentws.stores.memory import MemoryStore

_logger: Final = logging.getLogger("agentws.server")

CLOSING_TIME: Final = 3.0
"""Seconds for closing the sockets, the agent's shutdown handler and the rest together (§8)."""

_LAST_REQUESTS: Final = 0.25
"""Of these, how many aiohttp waits for answers that are still under way; it may do so twice."""

_BACKLOG: Final = 1024


class BindError(Exception):
    """The address cannot be listened on; the text is one sentence that says why."""


class StartupError(Exception):
    """The agent's startup handler raised; its exception is the cause."""


class Server:
    """One daemon, serving one agent."""

    def __init__(self, settings: Settings, agent: Agent) -> None:
        self._settings = settings
        self._agent = agent
        self._draining = False
        self._registry = ConnectionRegistry(settings.websocket.max_connections)
        self._store = MemoryStore(
            retention=settings.invocations.retention,
            max_retained=settings.invocations.max_retained,
        )
        self._table = InvocationTable(
            agent,
            self._store,
            settings.invocations,
            send_timeout=settings.websocket.send_timeout,
        )
        self._runner = web.AppRunner(
            self._application(),
            access_log_class=AccessLogger,
            access_log=AccessLogger.LOGGER if settings.server.access_log else None,
            keepalive_timeout=settings.http.keepalive_timeout,
            shutdown_timeout=_LAST_REQUESTS,
        )

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Bind, run the agent's startup handler, listen.

        Raises `BindError`, and `StartupError` when the startup handler raises.
        """
        sockets = _bind(self._settings.server.host, self._settings.server.port)
        await self._start_agent()
        await self._runner.setup()
        for sock in sockets:
            await web.SockSite(self._runner, sock, backlog=_BACKLOG).start()
        _logger.info(
            "Listening on %s port %d",
            self._settings.server.host,
            self.port,
            extra={"host": self._settings.server.host, "port": self.port},
        )

    async def drain(self) -> bool:
        """End well (§8): refuse new work, let the old finish, close. Tell whether all has ended.

        Takes `shutdown_grace`, a second for what must be cancelled, and three for the rest.
        """
        grace = self._settings.server.shutdown_grace
        _logger.info("Shutting down: %d invocations run", self._table.running)
        self._draining = True
        self._registry.announce_shutdown(grace)
        all_ended = await self._table.drain(grace)
        closing = {
            asyncio.create_task(self._registry.close_all()),
            asyncio.create_task(self._shut_agent_down()),
        }
        _, late = await asyncio.wait(closing, timeout=CLOSING_TIME - 2 * _LAST_REQUESTS)
        for task in late:
            task.cancel()
        await self._runner.cleanup()
        await self._store.close()
        return all_ended and not late

    def _health(self) -> str:
        return "draining" if self._draining else "healthy"

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[answer_errors])
        app.on_response_prepare.append(add_headers)
        app.add_routes(HttpApi(self._agent.openapi, self._health).routes())
        framed = FramedEndpoint(
            self._registry,
            self._table,
            self._settings.websocket,
            session_id=self._settings.agent.session_id,
        )
        app.add_routes([web.get("/invocations_ws/ws", framed), web.get("/invocations_ws", framed)])
        return app

    async def _start_agent(self) -> None:
        if self._agent.startup is None:
            return
        try:
            await self._agent.startup()
        except Exception as error:
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


def _bind(host: str, port: int) -> list[socket.socket]:
    """Bind, without listening, to every address that `host` stands for. Raises `BindError`."""
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in _addresses(host, port):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
    except OSError as error:
        for sock in sockets:
            sock.close()
        reason = error.strerror or str(error)
        raise BindError(f"cannot listen on {host} port {port}: {reason}") from error
    return sockets


def _addresses(host: str, port: int) -> list[Any]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))
