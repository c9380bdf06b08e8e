"""Comments in the silences of event streams that an agent writes itself."""

import asyncio
import contextlib
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from agentws.transports.http.sse import KEEP_ALIVE
from agentws.transports.http.wishes import EVENTS

_EVENT_ENDS: Final = (b"\n\n", b"\n\r\n")

_TAIL: Final = 3
"""How many of the last bytes tell whether they end a line, or an event."""

Data = bytes | bytearray | memoryview


def needs_comments(request: web.BaseRequest, response: web.StreamResponse) -> bool:
    """Tell whether an answer is an event stream that may be silent, and can hold comments."""
    return (
        response.content_type == EVENTS
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
            return KEEP_ALIVE
        # A blank line would end the event that is being written.
        return KEEP_ALIVE.rstrip() + b"\n" if self._tail.endswith(b"\n") else b""
