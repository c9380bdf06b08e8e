"""One socket from its acceptance to its log line, whatever is said on it."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from agentws.telemetry.metrics import Metrics
from agentws.transports.send_deadline import SendDeadline
from agentws.transports.websocket.close_log import (
    ConnectionOptions,
    Ending,
    ErrorCode,
    ending_of,
    may_be_sent,
    tell_ending,
    vanished,
)
from agentws.transports.websocket.data_frames import in_fragments, joined, pong_frame


class Connection:
    """One socket from its acceptance to its log line. It knows nothing of what is said on it."""

    __slots__ = (
        "_deadline",
        "_ending",
        "_finished",
        "_opened_at",
        "_options",
        "_request",
        "_transport",
        "_ws",
        "bytes_received",
        "bytes_sent",
        "session_id",
    )

    def __init__(
        self,
        request: web.BaseRequest,
        ws: web.WebSocketResponse,
        *,
        session_id: str,
        options: ConnectionOptions,
    ) -> None:
        if request.transport is None:
            raise ConnectionResetError("The client left during the handshake")
        self.session_id = session_id
        self.bytes_received = 0
        self.bytes_sent = 0
        self._options = options
        self._request = request
        self._transport = request.transport
        self._ws = ws
        self._deadline: SendDeadline | None = None
        self._opened_at = time.monotonic()
        self._ending: Ending | None = None
        self._finished = False

    @property
    def metrics(self) -> Metrics:
        """The instruments that count what happens on it."""
        return self._options.metrics

    @property
    def lost(self) -> bool:
        """Whether the network connection is gone, or about to go."""
        return self._transport.is_closing()

    @property
    def ended(self) -> bool:
        """Whether it is known how the socket ended."""
        return self._ending is not None

    @property
    def congested(self) -> bool:
        """Whether the peer must take something before more is written."""
        return self._request.protocol.writing_paused

    def send(self, frames: Sequence[bytes], size: int) -> None:
        """Write text messages of `size` bytes at once, together: one system call for all of them.

        aiohttp writes each message on its own, which costs more than all else that is done for a
        small chunk; so these are framed here (RFC 6455 §5.2: final, unmasked, uncompressed) and
        written to the transport that aiohttp writes to. Not to be used where compression was
        negotiated. What is sent to a closing socket is dropped.
        """
        if self._ws.closed or self._transport.is_closing():
            return
        self.bytes_sent += size
        self._transport.write(joined(frames))

    async def send_in_fragments(
        self, frames: Sequence[bytes], longest: int, in_between: Callable[[], object]
    ) -> None:
        """Write text messages at the pace of the peer, in fragments of at most `longest` bytes.

        `in_between` is called whenever control frames may be written. Otherwise as `send`.
        """
        self.bytes_sent += sum(map(len, frames))
        for piece in in_fragments(frames, longest):
            if self._ws.closed or self._transport.is_closing():
                return
            self._transport.write(piece)
            await self.drained()
            in_between()

    def pong(self, data: bytes) -> None:
        """Answer a WebSocket ping (RFC 6455 §5.5.3); `data` is its application data."""
        if not (self._ws.closed or self._transport.is_closing()):
            self._transport.write(pong_frame(data))

    async def send_compressed(self, frames: Sequence[bytes]) -> None:
        """Send text messages through the compression that was negotiated."""
        with self.watching(), contextlib.suppress(ConnectionError):
            for frame in frames:
                await self._ws.send_frame(frame, WSMsgType.TEXT)
                self.bytes_sent += len(frame)

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """Abort a peer that takes nothing while the body waits to send."""
        if self._deadline is None:
            self._deadline = SendDeadline(
                self._transport,
                self._request.protocol,
                self._options.send_timeout,
                self._note_slowness,
            )
        return self._deadline.watch()

    async def drained(self) -> None:
        """Wait until the peer has taken enough, or is gone; the deadline sees to one of both."""
        with self.watching(), contextlib.suppress(ConnectionError):
            await self._request.writer.drain()

    @contextlib.contextmanager
    def reading_held(self) -> Iterator[None]:
        """Read nothing from the network while the body waits."""
        was_reading = self._transport.is_reading()
        if was_reading:
            self._transport.pause_reading()
        try:
            yield
        finally:
            if was_reading and not self._transport.is_closing():
                self._transport.resume_reading()

    async def close(self, code: int, message: str = "") -> None:
        """Close the socket from this side, and wait for the peer's consent for a while."""
        await self._close(Ending(code), message)

    async def fail(self, error_code: ErrorCode, message: str) -> None:
        """Close the socket with 1011 because of an error of this side.

        The error is logged even where the socket had ended otherwise before.
        """
        if self._ending is not None and self._ending.error_code is None:
            self._ending = Ending(self._ending.close_code, error_code)
        await self._close(Ending(WSCloseCode.INTERNAL_ERROR, error_code), message)

    async def answer_close(self, last: WSMessage) -> None:
        """Answer the peer's close with its own code (RFC 6455 §5.5.1); aiohttp's answer is 1000.

        A code that may not be sent is answered with 1002.
        """
        ending = ending_of(last, None)
        was_sent = may_be_sent(ending.close_code)
        await self._close(ending, code=ending.close_code if was_sent else WSCloseCode.OK)

    async def _close(self, ending: Ending, message: str = "", code: int | None = None) -> None:
        self.note_ending(ending)
        # With a drain, aiohttp would wait for a peer that stopped reading beyond any timeout.
        with contextlib.suppress(ConnectionError):
            await self._ws.close(
                code=code or ending.close_code, message=message.encode(), drain=False
            )

    def note_last(self, message: WSMessage) -> None:
        """Note what aiohttp said last."""
        self.note_ending(ending_of(message, self._ws.exception()))

    def note_ending(self, ending: Ending) -> None:
        """Note how the socket ended; the first cause is the true one."""
        if self._ending is None:
            self._ending = ending

    def finish(self, invocations: int = 0) -> None:
        """Let go of the socket and write its log line, once; `invocations` were started on it.

        Where nobody noted how it ended, the peer has vanished.
        """
        if self._finished:
            return
        self._finished = True
        if self._deadline is not None:
            self._deadline.stop()
        self.note_ending(vanished(self._ws.exception()))
        assert self._ending is not None
        if self._ending.close_code == WSCloseCode.ABNORMAL_CLOSURE:
            self._transport.abort()
        elif self._transport.get_write_buffer_size():
            # A closed transport first sends what it holds, however long its peer takes.
            loop = asyncio.get_running_loop()
            loop.call_later(self._options.send_timeout, self._abort_unless_gone)
        tell_ending(
            self._request,
            self.session_id,
            self._ending,
            time.monotonic() - self._opened_at,
            self._options,
            invocations=invocations,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
        )

    def _abort_unless_gone(self) -> None:
        if self._request.transport is not None:
            self._transport.abort()

    def _note_slowness(self) -> None:
        self.note_ending(Ending(WSCloseCode.ABNORMAL_CLOSURE, "slow_client"))
