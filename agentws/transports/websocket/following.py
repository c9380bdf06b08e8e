"""The logs that a framed socket follows, turned into frames."""

from collections.abc import Callable, Iterable

from msgspec import UNSET, Raw

from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, error_body
from agentws.protocol.events import Awaiting, Event, read_event
from agentws.protocol.frames import (
    ErrorFrame,
    Result,
    ServerFrame,
    StreamChunk,
    StreamEnd,
    event_frame,
    question_frame,
)
from agentws.protocol.records import Record
from agentws.stores.log import Follower, Log
from agentws.transports.websocket.frame_writer import BATCH_BYTES, FrameWriter

OnRefusal = Callable[[InvocationError], None]
"""Told why an invocation was not taken on after all."""


class Following(Follower):
    """One invocation that the socket follows: a follower's place in a log."""

    __slots__ = ("_action", "_all", "_left", "_on_refusal")

    def __init__(
        self,
        all_: "Followings",
        log: Log,
        after: int,
        action: str,
        on_refusal: OnRefusal | None,
    ) -> None:
        self._all = all_
        self._action = action
        self._on_refusal = on_refusal
        self._left = False
        super().__init__(log, after)

    @property
    def invocation_id(self) -> str:
        """The invocation that is followed."""
        return self.log.record.invocation_id

    def wake(self) -> None:
        """Have the frames sent in their turn."""
        self._all.writer.enqueue(self)

    def frames(self) -> list[bytes]:
        """Take what the log has for this follower; the last frame of all tells the end."""
        if self._left:  # it was replaced after it had become ready
            return []
        record, number = self.log.record, self.position
        try:
            chunks = self.take(BATCH_BYTES)
        except InvocationError as gap:
            self._all.unfollow(self)
            return [*_questions(record, record.awaiting), encode(self._error(gap, self._action))]
        frames = []
        ids = record.invocation_id, record.session_id
        for chunk in chunks:
            number += 1
            if isinstance(chunk, Event):
                frames.append(encode(event_frame(read_event(chunk), *ids, number)))
            else:
                frames.append(encode(StreamChunk(*ids, number, Raw(chunk))))
        if self.finished:
            self._all.unfollow(self)
            if self.log.refusal is not None and self._on_refusal is not None:
                self._on_refusal(self.log.refusal)
            else:
                frames.append(encode(self._end()))
        return frames

    def leave(self) -> None:
        """Stop following."""
        self._left = True
        self.log.leave(self)

    def _end(self) -> ServerFrame:
        record = self.log.record
        if (error := record.error) is not None:
            # A refused invoke is an action that failed; an invocation that failed is none.
            return self._error(error, None if self.log.refusal is None else self._action)
        if record.streams:
            return StreamEnd(record.invocation_id, record.session_id)
        return Result(record.invocation_id, Raw(record.result or b"null"), record.session_id)

    def _error(self, error: InvocationError, action: str | None) -> ErrorFrame:
        record = self.log.record
        return ErrorFrame(
            error_body(error), action or UNSET, record.invocation_id, record.session_id
        )


class Followings:
    """All that one socket follows."""

    __slots__ = ("_closed", "_followed", "writer")

    def __init__(self, writer: FrameWriter) -> None:
        self.writer = writer
        """What sends the frames."""
        self._followed: dict[Following, None] = {}  # an empty set takes 216 bytes
        self._closed = False

    def follow(
        self, log: Log, after: int, action: str, on_refusal: OnRefusal | None = None
    ) -> None:
        """Send the entries of a log numbered above `after`, and its end.

        Questions that are open and not among these are sent first. `action` is the client's that
        asked for it; `on_refusal` is told of a refusal in place of the client. Raises `ReplayGap`.
        """
        if self._closed:
            return
        if log.record.awaiting:
            for frame in _questions(log.record, log.questions_before(after)):
                self.writer.post_encoded(frame)
        self._followed[Following(self, log, after, action, on_refusal)] = None

    def follow_instead(self, log: Log, after: int, action: str) -> None:
        """Follow a log in place of earlier followings of the same invocation (§5).

        Raises `ReplayGap`; then the earlier ones go on.
        """
        invocation_id = log.record.invocation_id
        earlier = [each for each in self._followed if each.invocation_id == invocation_id]
        # The new one follows before the old one leaves, so that somebody always does.
        self.follow(log, after, action)
        for following in earlier:
            self.unfollow(following)

    def leave(self, invocation_id: str) -> None:
        """Follow an invocation no longer, if it was followed."""
        for following in list(self._followed):
            if following.invocation_id == invocation_id:
                self.unfollow(following)

    def unfollow(self, following: Following) -> None:
        """Leave a log, at its end or before."""
        following.leave()
        del self._followed[following]

    def leave_unended(self) -> None:
        """Follow nothing more that goes on; what has ended is told to its end."""
        for following in list(self._followed):
            if not following.log.ended:
                self.unfollow(following)

    def close(self) -> None:
        """Leave all logs, and follow nothing more."""
        self._closed = True
        for following in self._followed:
            following.leave()
        self._followed.clear()


def _questions(record: Record, awaiting: Iterable[Awaiting]) -> list[bytes]:
    """Return the frames of open questions, for whoever is not sent their places in the log."""
    ids = record.invocation_id, record.session_id
    return [encode(question_frame(question, *ids)) for question in awaiting]
