"""What one framed socket has yet to send, at the pace of its peer."""

import asyncio
import sys
from typing import Final, Protocol

from agentws.protocol.encoding import encode
from agentws.protocol.frames import ServerFrame
from agentws.transports.websocket.connection import Connection

BATCH_BYTES: Final = 64 * 1024
"""How much is written at a time: about what a transport takes before it asks to wait."""

HIGH_WATER_MARK: Final = 256
"""How many answers and ready sources may wait for a client before it is no longer listened to."""

HIGH_WATER_BYTES: Final = 1024 * 1024
"""How many bytes of answers may wait likewise."""


class FrameSource(Protocol):
    """What has frames ready, as many as there are when they are taken."""

    def frames(self) -> list[bytes]:
        """Take a batch of them, in the order in which they are to be sent."""


class FrameWriter:
    """Writes what is ready, in its order, many frames at a time, at the pace of the peer."""

    __slots__ = (
        "_answer_bytes",
        "_closed",
        "_compressed",
        "_connection",
        "_flush_handle",
        "_longest",
        "_loop",
        "_pong",
        "_queue",
        "_settling",
        "written_at",
    )

    def __init__(self, connection: Connection, *, compressed: bool, max_frame_size: int) -> None:
        """Write to `connection`; longer messages than `max_frame_size` go in fragments, 0 for none.

        What is `compressed` goes whole, as aiohttp sends it.
        """
        self._loop = asyncio.get_running_loop()  # asking for it takes a system call on Python 3.11
        self.written_at = self._loop.time()
        """When a message was last written, on the event loop's clock."""
        self._connection = connection
        self._compressed = compressed
        self._longest = max_frame_size or sys.maxsize
        self._queue: list[bytes | FrameSource] = []  # an empty deque takes 760 bytes
        self._answer_bytes = 0
        self._pong: bytes | None = None
        self._closed = False
        self._flush_handle: asyncio.Handle | None = None
        self._settling: asyncio.Task[None] | None = None

    def post(self, frame: ServerFrame) -> None:
        """Send a frame after what is ready already."""
        self.post_encoded(encode(frame))

    def post_encoded(self, frame: bytes) -> None:
        """Send a frame that is encoded already."""
        if self._closed:
            return
        self._answer_bytes += len(frame)
        self._queue.append(frame)
        self._schedule()

    def enqueue(self, source: FrameSource) -> None:
        """Take note that a source has frames, to be taken in its turn."""
        self._queue.append(source)
        if self._flush_handle is None:
            self._schedule()

    def pong(self, data: bytes) -> None:
        """Answer a WebSocket ping; of several that wait, the last is answered (RFC 6455 §5.5.3)."""
        self._pong = data
        self._schedule()

    @property
    def busy(self) -> bool:
        """Whether something is ready that the peer has not taken."""
        return bool(self._queue) or self._pong is not None or self._settling is not None

    @property
    def is_over_high_water(self) -> bool:
        """Whether the client leaves so many answers unread that it should not ask for more."""
        return len(self._queue) > HIGH_WATER_MARK or self._answer_bytes > HIGH_WATER_BYTES

    async def below_high_water(self) -> None:
        """Wait until the client has read enough of its answers, or is gone."""
        while self.is_over_high_water:
            await self._progress()

    async def emptied(self) -> None:
        """Wait until nothing is left to send, or the client is gone."""
        while self.busy:
            await self._progress()

    def close(self) -> None:
        """Drop everything, and send nothing more."""
        self._closed = True
        self._queue.clear()
        self._answer_bytes = 0
        if self._flush_handle is not None:
            self._flush_handle.cancel()
        if self._settling is not None:
            self._settling.cancel()

    async def _progress(self) -> None:
        if self._settling is not None:
            await asyncio.wait({self._settling})
        else:
            await asyncio.sleep(0)  # a flush is due

    def _schedule(self) -> None:
        """Flush in the next turn of the loop, with all that becomes ready in this one."""
        if self._flush_handle is None and self._settling is None:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._answer_ping()
        frames, size = self._collect()
        self._flush_handle = None  # until here, what is enqueued schedules no other flush
        if frames:
            self.written_at = self._loop.time()
        if frames and not self._compressed and self._go_whole(frames, size):
            self._connection.send(frames, size)
            frames = []
        if frames or self._connection.congested:
            self._settling = asyncio.create_task(self._settle(frames))
        elif self._queue:
            self._schedule()

    def _go_whole(self, frames: list[bytes], size: int) -> bool:
        return size <= self._longest or max(map(len, frames)) <= self._longest

    async def _settle(self, frames: list[bytes]) -> None:
        """Send what is compressed or too long, wait until the peer takes more, and go on."""
        try:
            if self._compressed:
                await self._connection.send_compressed(frames)
            else:
                await self._connection.send_in_fragments(frames, self._longest, self._in_between)
            await self._connection.drained()
        finally:
            self._settling = None
        if self._queue or self._pong is not None:
            self._schedule()

    def _in_between(self) -> None:
        """Answer a ping amid a message, which takes a slow peer its time."""
        self.written_at = self._loop.time()
        self._answer_ping()

    def _answer_ping(self) -> None:
        if self._pong is not None:
            self._connection.pong(self._pong)
            self._pong = None

    def _collect(self) -> tuple[list[bytes], int]:
        """Take frames off the queue, at least one, up to the size of a batch; tell their size."""
        queue, self._queue = self._queue, []
        frames: list[bytes] = []
        size = 0
        for count, item in enumerate(queue, 1):
            if isinstance(item, bytes):
                self._answer_bytes -= len(item)
                frames.append(item)
                size += len(item)
            else:
                taken = item.frames()
                frames += taken
                size += sum(map(len, taken))
            if size >= BATCH_BYTES:
                self._queue[:0] = queue[count:]
                break
        return frames, size
