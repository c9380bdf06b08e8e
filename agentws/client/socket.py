"""One socket: opened, read to its end, watched for silence."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct

from agentws.client.backoff import parse_retry_after
from agentws.client.wire import PING, PONG, Message, read

if TYPE_CHECKING:  # importing it takes longer than all else here together
    import ssl as ssl_module

    from aiohttp import (
        ClientSession,
        ClientWebSocketResponse,
        TraceConfig,
        TraceRequestEndParams,
        TraceRequestRedirectParams,
    )

_SWITCHING: Final = 101
"""The status of an accepted handshake, whatever else may be wrong with it."""

_CLOSING: Final = 1.0
"""Seconds in which a socket that is closed may take what was written, and answer."""

Direction = Literal["in", "out"]
OnFrame = Callable[[Direction, bytes], object]
"""Called with each message."""

Take = Callable[[Message], bool]
"""Takes a message, and returns whether others should have a turn of the event loop before more."""


class HandshakeFailed(Exception):
    """No socket was opened; `status` where the handshake was answered, `reason` in any case."""

    def __init__(self, reason: str, status: int | None, retry_after: float | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.retry_after = retry_after


class Endpoint(Struct, frozen=True):
    """Where sockets are opened, and how; `silence` in seconds."""

    url: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    ssl: ssl_module.SSLContext | bool
    silence: float


class Socket:
    """One open socket; `take` is given each message that is no keep-alive."""

    def __init__(
        self,
        session: ClientSession,
        ws: ClientWebSocketResponse[Any],
        silence: float,
        take: Take,
        on_frame: OnFrame,
    ) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done when the socket has ended, with why."""
        self.leaving: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        """Done when the server has said that it will close it, with the seconds left."""
        self.session_id: str | None = None
        """The session that the server named for this socket."""
        self.close_code: int | None = None
        self.was_nonsense = False
        self._session = session
        self._ws = ws
        self._silence = silence
        self._take = take
        self._on_frame = on_frame
        self._outgoing: deque[bytes] = deque()
        self._has_outgoing = asyncio.Event()
        self._is_written = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._opened_at = self._heard_at = self._clock()
        self._has_made_sense = False
        self._tasks = [
            asyncio.create_task(work) for work in (self._read(), self._write(), self._watch())
        ]

    @classmethod
    async def open(cls, endpoint: Endpoint, take: Take, on_frame: OnFrame) -> Socket:
        """Open a socket. Raises `HandshakeFailed`."""
        import aiohttp

        watch = _HandshakeWatch()
        # A session of its own, so that closing it drops this socket, whatever the peer does.
        session = aiohttp.ClientSession(trace_configs=[watch.config()])
        try:
            ws = await session.ws_connect(
                endpoint.url,
                headers=endpoint.headers,
                params=endpoint.query,
                ssl=endpoint.ssl,
                heartbeat=endpoint.silence / 2,
                max_msg_size=0,
                decode_text=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSING),
            )
        except BaseException as error:
            await session.close()
            if isinstance(error, (aiohttp.ClientError, OSError)):
                raise _why_not_open(error) from error
            raise
        socket = cls(session, ws, endpoint.silence, take, on_frame)
        socket.session_id = watch.session_id
        return socket

    def send(self, message: bytes) -> None:
        """Send a message, after those before it."""
        self._outgoing.append(message)
        self._has_outgoing.set()

    async def close(self, code: int = 1000) -> None:
        """Send what was to be sent, then close; it takes nothing more from now on."""
        self._take = _ignore
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSING):
                await self._written()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2 * _CLOSING):
                await self._ws.close(code=code)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._session.close()
        self._lose("It was closed")

    async def _written(self) -> None:
        """Wait until all that was to be sent has been, or cannot be."""
        while self._outgoing and not self.lost.done():
            self._is_written.clear()
            await self._is_written.wait()

    def _lose(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
        self._is_written.set()

    async def _read(self) -> None:
        try:
            await self._read_all()
        except Exception as error:  # whatever it is, nobody may wait for more
            self.was_nonsense = True
            self._lose(str(error))
        else:
            self.close_code = self._ws.close_code
            self._lose(f"The socket ended with code {self.close_code}")

    async def _read_all(self) -> None:
        from aiohttp import WSMsgType

        data_types = WSMsgType.TEXT, WSMsgType.BINARY
        while (message := await self._ws.receive()).type in data_types:
            self._heard_at = self._clock()
            self._on_frame("in", message.data)
            others_first = self._take_frame(read(message.data))
            self._has_made_sense = True
            if others_first:
                await asyncio.sleep(0)

    def _take_frame(self, frame: Message) -> bool:
        match frame.type:
            case "ping":
                self.send(PONG)
            case "pong":
                pass
            case "going_away":
                if not self.leaving.done():
                    self.leaving.set_result(frame.grace_seconds)
            case _:
                return self._take(frame)
        return False

    async def _write(self) -> None:
        from aiohttp import WSMsgType

        with contextlib.suppress(ConnectionError):  # the reader notices, too
            while True:
                while self._outgoing:
                    self._on_frame("out", self._outgoing[0])
                    await self._ws.send_frame(self._outgoing[0], WSMsgType.TEXT)
                    self._outgoing.popleft()
                self._is_written.set()
                self._has_outgoing.clear()
                await self._has_outgoing.wait()

    @property
    def made_sense(self) -> bool:
        """Whether anything came, and all of it made sense."""
        return not self.was_nonsense and self._has_made_sense

    @property
    def good_for(self) -> float:
        """How many seconds after its opening it still made sense."""
        return self._heard_at - self._opened_at if self._has_made_sense else 0.0

    async def _watch(self) -> None:
        """Ask for a sign of life after half of `silence`, and give up after all of it."""
        while True:
            await asyncio.sleep(self._heard_at + self._silence / 2 - self._clock())
            if self._clock() - self._heard_at < self._silence / 2:
                continue
            asked_at = self._heard_at
            self.send(PING)
            await asyncio.sleep(asked_at + self._silence - self._clock())
            if self._heard_at == asked_at:
                self._lose(f"Nothing came for {self._silence:g} s")
                return


def _ignore(_message: Message) -> bool:
    return False


class _HandshakeWatch:
    """Follows a handshake: no redirection, and the session that the answer names."""

    def __init__(self) -> None:
        self.session_id: str | None = None

    def config(self) -> TraceConfig:
        """Return what has aiohttp tell of the handshake."""
        from aiohttp import TraceConfig

        config = TraceConfig()
        config.on_request_redirect.append(self._refuse)
        config.on_request_end.append(self._note)
        return config

    async def _refuse(
        self, _session: ClientSession, _context: object, told: TraceRequestRedirectParams
    ) -> None:
        """Go nowhere else: credentials are for the server that was named."""
        status = told.response.status
        raise HandshakeFailed(f"The server answered the handshake with {status}", status, None)

    async def _note(
        self, _session: ClientSession, _context: object, told: TraceRequestEndParams
    ) -> None:
        self.session_id = told.response.headers.get("x-agent-session-id")


def _why_not_open(error: Exception) -> HandshakeFailed:
    from aiohttp import WSServerHandshakeError

    if isinstance(error, WSServerHandshakeError) and error.status != _SWITCHING:
        after = parse_retry_after(error.headers.get("Retry-After") if error.headers else None)
        reason = f"The server answered the handshake with {error.status}"
        return HandshakeFailed(reason, error.status, after)
    return HandshakeFailed(f"No connection: {in_words(error)}", None, None)


def in_words(error: Exception) -> str:
    """Return why there is no connection, without what is for programmers alone."""
    from aiohttp import ClientConnectorError, ClientSSLError

    if not isinstance(error, ClientConnectorError):
        return str(error) or type(error).__name__
    why = error.os_error  # of which there may have been several, one for each address
    number = (
        0 if isinstance(error, ClientSSLError) else why.errno or 0
    )  # TLS has numbers of its own
    known = os.strerror(number) if number > 0 else why.strerror or why
    return f"{error.host}:{error.port} cannot be reached ({known})"
