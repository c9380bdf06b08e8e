"""What one framed socket has yet to say: answers, and the logs of the invocations it follows."""

import asyncio
from collections import deque
from typing import Final

from msgspec import UNSET, Raw

from agentws.connections import Connection
from agentws.protocol import (
    ErrorFrame,
    InvocationError,
    Result,
    ServerFrame,
    StreamChunk,
    StreamEnd,
    encode,
    error_body,
)
from agentws.stores import Follower, Log

BATCH_BYTES: Final = 64 * 1024
"""How much is written at a time: about what a transport takes before it asks to wait."""

UNREAD_ANSWERS: Final = 256
"""How many answers may wait for a client before it is no longer listened to."""


class Following:
    """One invocation that the socket follows: a listener's place in a log, turned into frames."""

    def __init__(self, outbox: "Outbox", log: Log, after: int, action: str) -> None:
        self.invocation_id = log.record.invocation_id
        self._outbox = outbox
        self._log = log
        self._action = action
        self._left = False
        self._follower: Follower = log.follow(after, self._wake)

    def frames(self) -> list[bytes]:
        """Take what the log has for this listener; the last frame of all tells the end."""
        if self._left:  # it was replaced after it had become ready
            return []
        record, number = self._log.record, self._follower.position
        try:
            chunks = self._follower.take(BATCH_BYTES)
        except InvocationError as gap:
            self._outbox.unfollow(self)
            return [encode(self._error(gap, self._action))]
        frames = []
        for chunk in chunks:
            number += 1
            frames.append(
                encode(StreamChunk(record.invocation_id, record.session_id, number, Raw(chunk)))
            )
        if self._follower.finished:
            self._outbox.unfollow(self)
            frames.append(encode(self._end()))
        return frames

    def leave(self) -> None:
        """Stop following."""
        self._left = True
        self._follower.leave()

    def _wake(self) -> None:
        self._outbox.wake(self)

    def _end(self) -> ServerFrame:
        record = self._log.record
        if (error := record.error) is not None:
            return self._error(error, None if self._log.refusal is None else self._action)
        if record.streams:
            return StreamEnd(record.invocation_id, record.session_id)
        return Result(record.invocation_id, Raw(record.result or b"null"), record.session_id)

    def _error(self, error: InvocationError, action: str | None) -> ErrorFrame:
        record = self._log.record
        return ErrorFrame(
            error_body(error), action or UNSET, record.invocation_id, record.session_id
        )


class Outbox:
    """Writes what is ready, in its order, many frames at a time, at the pace of the peer."""

    def __init__(self, connection: Connection, *, compressed: bool) -> None:
        self.written_at = asyncio.get_running_loop().time()
        """When a message was last written, on the event loop's clock."""
        self._connection = connection
        self._compressed = compressed
        self._queue: deque[bytes | Following] = deque()
        self._answers = 0
        self._pong: bytes | None = None
        self._closed = False
        self._followings: dict[str, Following] = {}
        self._flush_handle: asyncio.Handle | None = None
        self._settling: asyncio.Task[None] | None = None

    def post(self, frame: ServerFrame) -> None:
        """Send a frame after what is ready already."""
        self.post_encoded(encode(frame))

    def post_encoded(self, frame: bytes) -> None:
        """Send a frame that is encoded already."""
        if self._closed:
            return
        self._answers += 1
        self._queue.append(frame)
        self._schedule()

    def follow(self, log: Log, after: int, action: str) -> None:
        """Send the chunks of a log numbered above `after`, and its end.

        Replaces an earlier following of the same invocation. `action` is the client's that asked
        for it. Raises `ReplayGap`.
        """
        if self._closed:
            return
        following = Following(self, log, after, action)
        # The new one listens before the old one leaves, so that the invocation is never deserted.
        if (earlier := self._followings.get(following.invocation_id)) is not None:
            earlier.leave()
        self._followings[following.invocation_id] = following

    def unfollow(self, following: Following) -> None:
        """Forget a following that has come to its end."""
        following.leave()
        del self._followings[following.invocation_id]

    def wake(self, following: Following) -> None:
        """Take note that a followed log has news."""
        self._queue.append(following)
        self._schedule()

    def pong(self, data: bytes) -> None:
        """Answer a WebSocket ping; of several that wait, the last is answered (RFC 6455 §5.5.3)."""
        self._pong = data
        self._schedule()

    @property
    def busy(self) -> bool:
        """Whether something is ready that the peer has not taken."""
        return bool(self._queue) or self._settling is not None

    @property
    def backed_up(self) -> bool:
        """Whether the client leaves so many answers unread that it should not ask for more."""
        return self._answers > UNREAD_ANSWERS

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
        for following in self._followings.values():
            following.leave()
        self._followings.clear()
        self._queue.clear()
        self._answers = 0
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
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_handle = None
        if self._pong is not None:
            self._connection.pong(self._pong)
            self._pong = None
        frames = self._collect()
        if not frames:
            return
        self.written_at = asyncio.get_running_loop().time()
        if not self._compressed:
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
        frames: list[bytes] = []
        size = 0
        while self._queue and size < BATCH_BYTES:
            item = self._queue.popleft()
            if isinstance(item, bytes):
                self._answers -= 1
                frames.append(item)
                size += len(item)
            else:
                taken = item.frames()
                frames += taken
                size += sum(map(len, taken))
        return frames
