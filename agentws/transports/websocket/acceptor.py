"""What every socket goes through before it is served: its place, its handshake, its connection."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from aiohttp import WSCloseCode, web

from agentws.config.settings import WebSocketSettings
from agentws.invocations.caller import Caller
from agentws.transports.handshake import choose_subprotocol, require_key
from agentws.transports.request_fields import REQUEST_ID, SESSION_ID, read_caller
from agentws.transports.session_ids import socket_session
from agentws.transports.websocket.aiohttp_socket import Socket
from agentws.transports.websocket.close_log import ConnectionOptions, Ending, tell_ending
from agentws.transports.websocket.connection import Connection
from agentws.transports.websocket.registry import ConnectionRegistry, Place

AnySocket = TypeVar("AnySocket", bound=Socket)


class Acceptor:
    """Accepts the sockets of one route."""

    def __init__(
        self,
        registry: ConnectionRegistry,
        settings: WebSocketSettings,
        session_id: str,
        subprotocols: Sequence[str],
    ) -> None:
        """Accept what has a place in `registry`.

        `session_id` is the configuration's, or empty; `subprotocols` are the agent's.
        """
        self.settings = settings
        """What holds for the sockets that are accepted."""
        self._registry = registry
        self._session_id = session_id
        self._subprotocols = subprotocols

    def read(self, request: web.Request) -> Caller:
        """Return who wants in, and note the session. Raises `invalid_request`."""
        require_key(request)
        request[SESSION_ID] = socket_session(request, self._session_id)
        return read_caller(request, "websocket", request[REQUEST_ID])

    def place(self) -> Place:
        """Take a place for a socket, to be given back by `with`.

        Raises `PlatformError` (`shutting_down`, `too_many_connections`).
        """
        return self._registry.place()

    async def accept(
        self,
        request: web.Request,
        make: Callable[..., AnySocket],
        *,
        otherwise: Sequence[str] = (),
        **options: Any,
    ) -> tuple[AnySocket, Connection]:
        """Upgrade a request that was read and has a place; `make` makes the socket with `options`.

        `otherwise` are the subprotocols that are spoken where the agent names none.

        Raises `web.HTTPBadRequest` for a malformed handshake, and what the network raises when the
        client is gone already.
        """
        ws = make(
            protocols=choose_subprotocol(request, self._subprotocols or otherwise),
            autoclose=False,
            heartbeat=self.settings.heartbeat or None,
            compress=self.settings.compression,
            max_msg_size=self.settings.max_message_size + 1,  # aiohttp refuses from there on
            **options,
        )
        return ws, await connect(request, ws, request[SESSION_ID], self._registry.options)


async def connect(
    request: web.BaseRequest,
    ws: web.WebSocketResponse,
    session_id: str,
    options: ConnectionOptions,
) -> Connection:
    """Complete the handshake and return the connection.

    Raises as `Acceptor.accept`; a socket whose client is gone already has its log line, too.
    """
    opened_at = time.monotonic()
    try:
        await ws.prepare(request)
        return Connection(request, ws, session_id=session_id, options=options)
    except web.HTTPException:
        raise
    except BaseException:
        ending = Ending(WSCloseCode.ABNORMAL_CLOSURE, "accept_failed")
        tell_ending(request, session_id, ending, time.monotonic() - opened_at, options)
        raise
