"""The log of one invocation: its record, its numbered chunks, and the followers that follow it."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from msgspec import Struct, field

from agentws.protocol.errors import InvocationError, ReplayGap
from agentws.protocol.events import Awaiting, Closed, Question, awaiting_after, make_event
from agentws.protocol.records import Failure, Record, Status, StreamState, encode_record

HIGH_WATER_MARK: Final = 64 * 1024
"""How many bytes a writer may be ahead of its fastest follower: about a socket's buffer."""

BATCH: Final = 128
"""How many chunks a follower takes at a time, so that others have their turn."""


class Outcome(Struct):
    """How an invocation ended: with a status, and the handler's result (JSON) or an error."""

    status: Status
    result: bytes | None = None
    error: InvocationError | None = None
    at: float = field(default_factory=time.time)

    def note(self, record: Record) -> None:
        """Put down in a record how it ended."""
        record.status = self.status
        record.finished_at = self.at
        record.result = self.result
        record.failure = None if self.error is None else Failure.of(self.error)


class Snapshot(NamedTuple):
    """What is known of an invocation at one moment: its record, and which chunks are held."""

    record: Record
    first: int
    last: int

    def describe(self) -> bytes:
        """Return the record as JSON, as `get_invocation` answers it (§5)."""
        return self._encode(with_result=True)

    def describe_listed(self) -> bytes:
        """Return the record as JSON without its result, as lists of invocations hold it (§5)."""
        return self._encode(with_result=False)

    def _encode(self, *, with_result: bool) -> bytes:
        # A coroutine has something to replay once it has asked.
        has_entries = self.record.streams or self.last > 0
        stream = StreamState(self.first, self.last) if has_entries else None
        return encode_record(self.record, stream, with_result=with_result)


class Log:
    """What one invocation has said so far: numbered entries, chunks nearly all of them.

    One writer appends and, between appends, waits while it is too far ahead; any number of
    `Follower`s take. Entries are JSON texts numbered 1, 2, 3 …, of chunks or, by their class,
    events; the last `replay_bytes` bytes of them are held for replay, and beyond that whatever the
    fastest follower has not taken yet, so that a lone one that reads loses nothing (§5).
    """

    __slots__ = (
        "_chunks",
        "_dropped",
        "_followers",
        "_held_bytes",
        "_is_unattended",
        "_replay_bytes",
        "_resumed",
        "first",
        "last",
        "on_attendance",
        "on_end",
        "on_news",
        "record",
        "refusal",
        "written",
    )

    def __init__(
        self, record: Record, replay_bytes: int = 0, chunks: Sequence[bytes] = (), first: int = 1
    ) -> None:
        """Open the log of a new invocation, or lay out an ended one, with what is held of it."""
        self.record = record
        self.first = first
        """The number of the oldest chunk held; the last number + 1 when none is."""
        self.last = first + len(chunks) - 1
        """The number of the newest chunk, 0 before the first."""
        self.on_news: Callable[[], None] | None = None
        """Called after each chunk and each report, for whoever takes note without listening."""
        self.on_attendance: Callable[[bool], None] | None = None
        """Called with False when the last follower leaves, with True when one comes after that."""
        self.on_end: Callable[[], None] | None = None
        """Called once, when the log ends."""
        self.refusal: InvocationError | None = None
        """Why the invocation was not taken on, where it was not."""
        self._chunks = list(chunks)
        self._dropped = 0  # chunks at the head of the list that are no longer held
        self._held_bytes = sum(map(len, chunks)) if chunks else 0
        self.written = self._held_bytes
        """How many bytes were appended, held or not."""
        self._replay_bytes = replay_bytes
        self._followers: list[Follower] = []
        self._is_unattended = False
        self._resumed: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will be appended."""
        return self.record.status != "running"  # asked often, so not by way of the record

    @property
    def attended(self) -> bool:
        """Whether anybody listens."""
        return bool(self._followers)

    @property
    def held(self) -> tuple[bytes, ...]:
        """The chunks from `first` to `last`."""
        return tuple(self._chunks[self._dropped :]) if self._chunks else ()

    @property
    def retained(self) -> tuple[bytes, ...]:
        """The newest of the chunks held, as many as the bound allows: what outlives the followers.

        Until the end, more may be held for a follower that has yet to take it.
        """
        held, size = self.held, self._held_bytes
        if size <= self._replay_bytes:
            return held
        surplus = 0
        while size > self._replay_bytes:
            size -= len(held[surplus])
            surplus += 1
        return held[surplus:]

    @property
    def snapshot(self) -> Snapshot:
        """What is known of the invocation now."""
        return Snapshot(self.record, self.first, self.last)

    # --- the writer's side ---

    def append(self, chunk: bytes) -> None:
        """Add a chunk, and wake the followers."""
        self.last += 1
        self._chunks.append(chunk)
        self._held_bytes += len(chunk)
        self.written += len(chunk)
        if self._held_bytes > self._replay_bytes:
            self._trim(self._fastest_position())
        for follower in self._followers:
            if follower.position < self.last:
                follower.notify()
            else:  # it asked to start beyond this one
                follower.taken_bytes = self.written
        if self.on_news is not None:
            self.on_news()

    def append_event(self, event: Question | Closed) -> None:
        """Add an event, numbered among the chunks; the record tells which questions are open."""
        record = self.record
        record.awaiting = awaiting_after(record.awaiting, event, self.last + 1)
        self.append(make_event(event))

    def forget_questions(self) -> None:
        """Have the record tell of no open questions any more, without a word to followers."""
        if self.record.awaiting:
            self.record.awaiting = ()
            if self.on_news is not None:
                self.on_news()

    def report(self, progress: bytes) -> None:
        """Put progress (JSON) into the record. It wakes no follower: it is for those who poll."""
        self.record.progress = progress
        if self.on_news is not None:
            self.on_news()

    def skip(self, first: int) -> None:
        """Go on at number `first`: what was before is not held.

        A follower that has yet to take some of it is told of a gap (`take` raises `ReplayGap`): the
        log is a copy, and what it misses is gone at its source.
        """
        self._chunks.clear()
        self._dropped = self._held_bytes = 0
        self.first, self.last = first, first - 1
        for follower in self._followers:
            if follower.position < self.last:
                follower.notify()

    @property
    def is_over_high_water(self) -> bool:
        """Whether the writer is a window ahead of its fastest follower, and should wait."""
        limit = min(HIGH_WATER_MARK, self._replay_bytes)
        for follower in self._followers:  # a loop, as this is asked at every chunk
            if follower.lag <= limit:
                return False
        return bool(self._followers)

    async def wait_for_followers(self, patience: float) -> None:
        """Wait until the fastest follower has caught up, or for `patience` seconds."""
        if not self.is_over_high_water:
            return
        self._resumed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(patience):
                await self._resumed
        except TimeoutError:
            self._trim(self.last)
        finally:
            self._resumed = None

    def end(self, outcome: Outcome) -> None:
        """End the log: nothing more will be appended."""
        outcome.note(self.record)
        self.on_news = None
        on_end = self.on_end
        self.on_attendance = self.on_end = None  # they hold the invocation, which holds this log
        if on_end is not None:
            on_end()
        for follower in self._followers:
            follower.notify()

    def refuse(self, reason: InvocationError) -> None:
        """End a log that was never taken on: nothing ran, and nobody will find it."""
        self.refusal = reason
        self.end(Outcome("failed", error=reason))

    # --- the followers' side ---

    def join(self, follower: "Follower") -> None:
        """Take on a follower, and wake it at once where it has something to take."""
        self._followers.append(follower)
        if self._is_unattended:
            self._tell_attendance()
        if self._resumed is not None:
            self.resume_writer()
        if self.ended or follower.position < self.last:
            follower.notify()

    def leave(self, follower: "Follower") -> None:
        """Forget a follower; the writer no longer waits for it. Leaving twice does nothing."""
        try:
            self._followers.remove(follower)
        except ValueError:
            return
        if self._resumed is not None:
            self.resume_writer()
        if self.on_attendance is not None and not self._followers:
            self._tell_attendance()

    def _tell_attendance(self) -> None:
        self._is_unattended = not self._followers
        if self.on_attendance is not None:
            self.on_attendance(not self._is_unattended)

    def slice(self, after: int, limit: int) -> Sequence[bytes]:
        """Return at most `limit` chunks from those numbered above `after`, oldest first."""
        start = self._dropped + after + 1 - self.first
        return self._chunks[start : start + limit]

    def resume_writer(self) -> None:
        """Let the writer go on if it waited for a follower that has now taken enough."""
        if self._resumed is not None and not self._resumed.done() and not self.is_over_high_water:
            self._trim(self._fastest_position())
            self._resumed.set_result(None)

    def questions_before(self, after: int) -> tuple[Awaiting, ...]:
        """Return the open questions that a replay of what comes after `after` does not hold.

        Where it holds a gap it holds nothing, and all of them are returned.
        """
        if after + 1 < self.first:
            return self.record.awaiting
        return tuple(each for each in self.record.awaiting if each.sequence_number <= after)

    def bytes_after(self, after: int) -> int:
        """Return how many bytes the chunks numbered above `after` have, of those held."""
        start = self._dropped + after + 1 - self.first
        return sum(map(len, self._chunks[start:]))

    def _fastest_position(self) -> int:
        return max((follower.position for follower in self._followers), default=self.last)

    def _trim(self, floor: int) -> None:
        """Drop the oldest chunks beyond the bound, none above `floor`."""
        chunks = self._chunks
        while self._held_bytes > self._replay_bytes and self.first <= min(floor, self.last):
            self._held_bytes -= len(chunks[self._dropped])
            chunks[self._dropped] = b""
            self._dropped += 1
            self.first += 1
        # Cutting the head off a list moves the rest: only when that is the smaller part.
        if self._dropped > len(chunks) // 2:
            del chunks[: self._dropped]
            self._dropped = 0


class Follower(ABC):
    """One follower's place in a log. Derive from it to say what it does when there is news."""

    __slots__ = ("_is_notified", "log", "position", "taken_bytes")

    def __init__(self, log: Log, after: int = 0) -> None:
        """Listen from now on to the chunks numbered above `after`.

        What is there already is news as much as what is to come, so `wake` may be called before
        this returns: whoever derives sets up what `wake` needs first. Raises `ReplayGap` when some
        of those chunks are no longer held.
        """
        if after + 1 < log.first:
            raise ReplayGap(log.first)
        self.log = log
        self.position = after
        """The number of the last chunk taken."""
        self.taken_bytes = log.written
        if after < log.last:
            self.taken_bytes -= log.bytes_after(after)
        self._is_notified = False
        log.join(self)

    @property
    def lag(self) -> int:
        """How many bytes were written that this follower wants and has not taken."""
        return 0 if self.position >= self.log.last else self.log.written - self.taken_bytes

    @abstractmethod
    def wake(self) -> None:
        """Take note that there is something to take; called once, until it is taken."""

    @property
    def finished(self) -> bool:
        """Whether the log has ended and everything in it was taken."""
        return self.log.ended and self.position >= self.log.last

    def notify(self) -> None:
        """Wake the follower unless it is awake."""
        if not self._is_notified:
            self._is_notified = True
            self.wake()

    def take(self, max_bytes: int) -> Sequence[bytes]:
        """Return the next chunks; the first of them is number `position` + 1 of before.

        They are as many as fit in `max_bytes`, at least one where there is one, and at most
        `BATCH`. Raises `ReplayGap` when the follower fell behind what is held.
        """
        log = self.log
        self._is_notified = False
        if self.position >= log.last:
            return ()
        if self.position + 1 < log.first:
            raise ReplayGap(log.first)
        chunks, size = log.slice(self.position, BATCH), log.written - self.taken_bytes
        if size > max_bytes or self.position + len(chunks) < log.last:  # these are not all
            chunks, size = _fitting(chunks, max_bytes)
        self.position += len(chunks)
        self.taken_bytes += size
        if self.position < log.last:
            self.notify()
        log.resume_writer()
        return chunks

    def leave(self) -> None:
        """Stop listening."""
        self.log.leave(self)


def _fitting(chunks: Sequence[bytes], max_bytes: int) -> tuple[Sequence[bytes], int]:
    """Return the chunks that fit in `max_bytes`, at least one, and their size."""
    size = 0
    for count, chunk in enumerate(chunks):
        if count and size + len(chunk) > max_bytes:
            return chunks[:count], size
        size += len(chunk)
    return chunks, size
