"""What one framed socket has yet to say: answers, and the logs of the invocations it follows."""

import asyncio
from typing import Final

from msgspec import UNSET, Raw

from agentws.connections import Connection
from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, error_body
from agentws.protocol.frames import ErrorFrame, Result, ServerFrame, StreamChunk, StreamEnd
from agentws.stores.log import Follower, Log

BATCH_BYTES: Final = 64 * 1024
"""How much is written at a time: about what a transport takes before it asks to wait."""

MOST_UNREAD: Final = 256
"""How many answers and ready logs may wait for a client before it is no longer listened to."""

MOST_UNREAD_BYTES: Final = 1024 * 1024
"""How many bytes of answers may wait likewise."""


class Following(Follower):
    """One invocation that the socket follows: a listener's place in a log, turned into frames."""

    __slots__ = ("_action", "_left", "_outbox")

    def __init__(self, outbox: "Outbox", log: Log, after: int, action: str) -> None:
        self._outbox = outbox
        self._action = action
        self._left = False
        super().__init__(log, after)

    @property
    def invocation_id(self) -> str:
        """The invocation that is followed."""
        return self.log.record.invocation_id

    def wake(self) -> None:
        """Have the frames sent in their turn."""
        self._outbox.enqueue(self)

    def frames(self) -> list[bytes]:
        """Take what the log has for this listener; the last frame of all tells the end."""
        if self._left:  # it was replaced after it had become ready
            return []
        record, number = self.log.record, self.position
        try:
            chunks = self.take(BATCH_BYTES)
        except InvocationError as gap:
            self._outbox.unfollow(self)
            return [encode(self._error(gap, self._action))]
        frames = []
        for chunk in chunks:
            number += 1
            frames.append(
                encode(StreamChunk(record.invocation_id, record.session_id, number, Raw(chunk)))
            )
        if self.finished:
            self._outbox.unfollow(self)
            frames.append(encode(self._end()))
        return frames

    def leave(self) -> None:
        """Stop following."""
        self._left = True
        self.log.leave(self)

    def _end(self) -> ServerFrame:
        record = self.log.record
        if (error := record.error) is not None:
            return self._error(error, None if self.log.refusal is None else self._action)
        if record.streams:
            return StreamEnd(record.invocation_id, record.session_id)
        return Result(record.invocation_id, Raw(record.result or b"null"), record.session_id)

    def _error(self, error: InvocationError, action: str | None) -> ErrorFrame:
        record = self.log.record
        return ErrorFrame(
            error_body(error), action or UNSET, record.invocation_id, record.session_id
        )


class Outbox:
    """Writes what is ready, in its order, many frames at a time, at the pace of the peer."""

    __slots__ = (
        "_answer_bytes",
        "_closed",
        "_compressed",
        "_connection",
        "_flush_handle",
        "_followings",
        "_loop",
        "_pong",
        "_queue",
        "_settling",
        "written_at",
    )

    def __init__(self, connection: Connection, *, compressed: bool) -> None:
        self._loop = asyncio.get_running_loop()  # asking for it takes a system call on Python 3.11
        self.written_at = self._loop.time()
        """When a message was last written, on the event loop's clock."""
        self._connection = connection
        self._compressed = compressed
        self._queue: list[bytes | Following] = []  # an empty deque takes 760 bytes
        self._answer_bytes = 0
        self._pong: bytes | None = None
        self._closed = False
        self._followings: dict[Following, None] = {}  # an empty set takes 216 bytes
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

    def follow(self, log: Log, after: int, action: str) -> None:
        """Send the chunks of a log numbered above `after`, and its end.

        `action` is the client's that asked for it. Raises `ReplayGap`.
        """
        if not self._closed:
            self._followings[Following(self, log, after, action)] = None

    def follow_instead(self, log: Log, after: int, action: str) -> None:
        """Follow a log in place of earlier followings of the same invocation (§5).

        Raises `ReplayGap`; then the earlier ones go on.
        """
        invocation_id = log.record.invocation_id
        earlier = [each for each in self._followings if each.invocation_id == invocation_id]
        # The new one listens before the old one leaves, so that the invocation is never deserted.
        self.follow(log, after, action)
        for following in earlier:
            self.unfollow(following)

    def unfollow(self, following: Following) -> None:
        """Leave a log, at its end or before."""
        following.leave()
        del self._followings[following]

    def leave_unended(self) -> None:
        """Follow nothing more that goes on; what has ended is told to its end."""
        for following in list(self._followings):
            if not following.log.ended:
                self.unfollow(following)

    def enqueue(self, following: Following) -> None:
        """Take note that a followed log has news."""
        self._queue.append(following)
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
    def backed_up(self) -> bool:
        """Whether the client leaves so many answers unread that it should not ask for more."""
        return len(self._queue) > MOST_UNREAD or self._answer_bytes > MOST_UNREAD_BYTES

    async def room(self) -> None:
        """Wait until the client has read enough of its answers, or is gone."""
        while self.backed_up:
            await self._progress()

    async def emptied(self) -> None:
        """Wait until nothing is left to send, or the client is gone."""
        while self.busy:
            await self._progress()

    def close(self) -> None:
        """Drop everything and follow nothing more."""
        self._closed = True
        for following in self._followings:
            following.leave()
        self._followings.clear()
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
        if self._pong is not None:
            self._connection.pong(self._pong)
            self._pong = None
        frames = self._collect()
        self._flush_handle = None  # until here, what is enqueued schedules no other flush
        if frames:
            self.written_at = self._loop.time()
        if frames and not self._compressed:
            self._connection.send(frames)
            frames = []
        if frames or self._connection.congested:
            self._settling = asyncio.create_task(self._settle(frames))
        elif self._queue:
            self._schedule()

    async def _settle(self, frames: list[bytes]) -> None:
        """Send what must be compressed, wait until the peer takes more, and go on."""
        try:
            if frames:
                await self._connection.send_compressed(frames)
            await self._connection.drained()
        finally:
            self._settling = None
        if self._queue or self._pong is not None:
            self._schedule()

    def _collect(self) -> list[bytes]:
        """Take frames off the queue, at least one, up to the size of a batch."""
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
        return frames
