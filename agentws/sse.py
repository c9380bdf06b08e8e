"""Server-Sent Events: the log of an invocation as an event stream (§6).

https://html.spec.whatwg.org/multipage/server-sent-events.html

Written here and not with aiohttp-sse, which writes every event by itself: measured on one machine,
that took 38 times the CPU time of writing together what is ready together.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from msgspec.json import format as format_json

from agentws.connections import SendDeadline
from agentws.protocol.encoding import encode
from agentws.protocol.errors import ReplayGap, error_body
from agentws.stores.log_reader import LogReader

_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",  # what compresses on the way would hold events back
    "X-Accel-Buffering": "no",  # asks nginx to pass events on as they come
}
_KEEP_ALIVE: Final = b": keep-alive\n\n"
_EVENT_ENDS: Final = (b"\n\n", b"\n\r\n")
_TAIL: Final = 3
"""How many of the last bytes tell whether they end a line, or an event."""

Data = bytes | bytearray | memoryview

END_ID: Final = "end"
"""The id of the event that ends an invocation, where chunks have their number."""


def needs_comments(request: web.BaseRequest, response: web.StreamResponse) -> bool:
    """Tell whether an answer is an event stream that may be silent, and can hold comments."""
    return (
        response.content_type == _HEADERS["Content-Type"]
        and request.method != hdrs.METH_HEAD
        and response.content_length is None
        and not response.compression
    )


class SilenceBreaker:
    """Comments in an event stream that an agent writes, after each silence.

    They come between two lines only: an agent that hands on what another server sends may have
    written half of one.
    """

    def __init__(self, writer: AbstractStreamWriter, patience: float) -> None:
        """Watch what is written from now on; a comment follows `patience` seconds of silence."""
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        self._write, self._write_eof = writer.write, writer.write_eof
        self._patience = patience
        self._written_at = self._loop.time()
        self._tail = b""
        # aiohttp has no hook that sees the bytes, which alone tell where a line ends.
        vars(writer).update(write=self._pass_on, write_eof=self._end)
        self._task = self._loop.create_task(self._break_silences())

    def stop(self) -> None:
        """Write no more; stopping twice does nothing."""
        self._task.cancel()
        vars(self._writer).pop("write", None)
        vars(self._writer).pop("write_eof", None)

    async def _pass_on(self, chunk: Data, **options: Any) -> None:
        self._written_at = self._loop.time()
        self._tail = (self._tail + bytes(memoryview(chunk).cast("B")[-_TAIL:]))[-_TAIL:]
        await self._write(chunk, **options)

    async def _end(self, chunk: bytes = b"") -> None:
        self.stop()
        await self._write_eof(chunk)

    async def _break_silences(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(self._written_at + self._patience - self._loop.time())
                if self._loop.time() >= self._written_at + self._patience:
                    self._written_at = self._loop.time()
                    await self._write(self._comment())

    def _comment(self) -> bytes:
        """Return a comment that fits in here, none amid a line."""
        if not self._tail or self._tail.endswith(_EVENT_ENDS):
            return _KEEP_ALIVE
        # A blank line would end the event that is being written.
        return _KEEP_ALIVE.rstrip() + b"\n" if self._tail.endswith(b"\n") else b""


class EventStream:
    """One client that follows a log over HTTP."""

    def __init__(self, reader: LogReader, *, keep_alive: float, send_timeout: float) -> None:
        """Make a stream of what `reader` reads.

        A comment is sent after `keep_alive` seconds of silence, 0 for never; a client that takes
        nothing for `send_timeout` seconds is dropped.
        """
        self._reader = reader
        self._silence = keep_alive or None
        self._send_timeout = send_timeout
        self._ended = False

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send the headers at once, then events until the log ends.

        Raises `ConnectionError` when the client has left.
        """
        response = web.StreamResponse(headers=_HEADERS)
        if request.transport is None:
            raise ConnectionResetError("The client left before the answer")
        deadline = SendDeadline(request.transport, request.protocol, self._send_timeout)
        try:
            await response.prepare(request)
            while not self._ended:
                events = await self._next_events()
                with deadline.watch():
                    await response.write(events)
            with deadline.watch():
                await response.write_eof()
        finally:
            deadline.stop()
        return response

    async def _next_events(self) -> bytes:
        number = self._reader.position
        try:
            chunks = await self._reader.read(self._silence)
        except TimeoutError:
            return _KEEP_ALIVE
        except ReplayGap as gap:
            self._ended = True
            return _event("error", encode({"error": error_body(gap)}))  # the invocation goes on
        events = _chunk_events(chunks, number + 1)
        if self._reader.finished:
            self._ended = True
            events += self._end_event()
        return events

    def _end_event(self) -> bytes:
        record = self._reader.log.record
        if record.error is not None:
            return _end("error", encode({"error": error_body(record.error)}))
        if not record.streams:
            return _end("result", record.result or b"null")
        ids = {"invocation_id": record.invocation_id, "session_id": record.session_id}
        return _end("stream_end", encode(ids))


def _chunk_events(chunks: Sequence[bytes], first: int) -> bytes:
    return b"".join(
        b"id: %d\nevent: stream_chunk\ndata: %b\n\n" % (number, _on_one_line(chunk))
        for number, chunk in enumerate(chunks, first)
    )


def _on_one_line(data: bytes) -> bytes:
    """Return JSON without the line breaks that only `msgspec.Raw` can have brought in."""
    return data if b"\n" not in data and b"\r" not in data else format_json(data, indent=-1)


def _end(name: str, data: bytes) -> bytes:
    return b"id: %b\n%b" % (END_ID.encode(), _event(name, data))


def _event(name: str, data: bytes) -> bytes:
    """Return an event without an id, so that it moves no client's `Last-Event-ID`."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _on_one_line(data))
