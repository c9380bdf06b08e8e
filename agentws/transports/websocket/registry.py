"""The sockets that are open, and whether there may be one more."""

import asyncio
from typing import Protocol, Self

from aiohttp import WSCloseCode

from agentws.protocol.errors import PlatformError, shutting_down
from agentws.protocol.frames import Farewell
from agentws.transports.websocket.close_log import ConnectionOptions


class OpenSocket(Protocol):
    """What the registry asks of a socket, of whatever kind."""

    def going_away(self, reason: Farewell, grace: float) -> None:
        """Tell the client that the socket will be closed within `grace` seconds."""

    async def close(self, code: int) -> None:
        """Send what is left to send, and close."""


class ConnectionRegistry:
    """The sockets that are open, and whether there may be one more."""

    def __init__(self, max_connections: int, options: ConnectionOptions) -> None:
        self.options = options
        self._max_connections = max_connections
        self._places_taken = 0
        self._open: set[OpenSocket] = set()
        options.metrics.watch_sockets(lambda: self.count)
        self._draining = False

    @property
    def count(self) -> int:
        """How many sockets are open."""
        return len(self._open)

    def place(self) -> "Place":
        """Take a place for a socket that is about to be accepted, to be given back by `with`.

        Raises `PlatformError` (`shutting_down`, `too_many_connections`).
        """
        if self._draining:
            raise self._counted(shutting_down())
        if self._places_taken >= self._max_connections:
            limit = f"The server holds its limit of {self._max_connections} connections"
            raise self._counted(PlatformError("too_many_connections", limit))
        self._places_taken += 1
        return Place(self)

    def _counted(self, refusal: PlatformError) -> PlatformError:
        self.options.metrics.error(refusal.code)
        return refusal

    def occupy(self, socket: OpenSocket) -> None:
        """Know a socket while it is open, so that it can be told and closed."""
        self._open.add(socket)

    def vacate(self, socket: OpenSocket | None) -> None:
        """Give a place back, and forget the socket that had it, if one had."""
        self._places_taken -= 1
        if socket is not None:
            self._open.discard(socket)

    def announce_shutdown(self, grace: float) -> None:
        """Admit no more, and tell every socket that it will be closed within `grace` seconds."""
        self._draining = True
        for socket in self._open:
            socket.going_away("shutdown", grace)

    async def close_all(self) -> None:
        """Close all sockets with 1001, together."""
        closings = [socket.close(WSCloseCode.GOING_AWAY) for socket in self._open]
        await asyncio.gather(*closings, return_exceptions=True)


class Place:
    """One socket's place among the connections, held inside `with`."""

    __slots__ = ("_registry", "_socket")

    def __init__(self, registry: ConnectionRegistry) -> None:
        self._registry = registry
        self._socket: OpenSocket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._registry.vacate(self._socket)

    def give(self, socket: OpenSocket) -> None:
        """Give the place to a socket, now that it is accepted."""
        self._socket = socket
        self._registry.occupy(socket)
