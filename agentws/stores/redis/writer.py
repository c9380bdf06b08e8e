"""Writes one log to Redis, behind its followers, in order."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Raw
from msgspec.structs import replace
from redis.exceptions import ResponseError

from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, SessionBusy, already_exists, lost
from agentws.protocol.events import Awaiting, Event
from agentws.protocol.frames import IfSessionBusy
from agentws.stores.log import Log, Outcome
from agentws.stores.redis import scripts
from agentws.stores.redis.commands import Commands, Unavailable, is_wrong_type
from agentws.stores.redis.keys import owner_name, session_name
from agentws.stores.redis.lease import Lease
from agentws.stores.redis.remote_followers import RemoteFollowers
from agentws.stores.redis.timings import Timings
from agentws.stores.store import Runner, Settled

_logger: Final = logging.getLogger("agentws.store")

BATCH_BYTES: Final = 64 * 1024
MOST_CHUNKS: Final = 4096
"""How much of a log is written at a time."""

REPORT_PAUSE: Final = 0.1
"""Seconds between two writes of progress, at least, unless the invocation ends."""

CHUNKS: Final = b"chunks"
EVENT: Final = b"event"
"""The kinds of entries, as they are told apart in a stream."""

_UNKNOWN: Final = (Awaiting("", 0, Raw(b"null")),)
"""Not what any record awaits, so that it is written anew."""


class Writer:
    """One invocation of this replica: claims its id, writes what it says, tells when it is lost.

    At most one command of a writer is under way; what is said meanwhile goes with the next.
    """

    # Of the class until there is progress: most invocations report none, and it costs them nothing.
    _reported: bytes | None = None  # the progress that Redis is known to have
    _report_pause: asyncio.TimerHandle | None = None  # runs until the next may be written

    def __init__(
        self,
        log: Log,
        runner: Runner,
        claim: bytes,
        parts: tuple[Commands, Lease, Timings],
        on_released: Callable[["Writer"], None],
    ) -> None:
        """`claim` is unique; `on_released` is called when nothing is left to be written."""
        self.log = log
        self.claim = claim
        self.runner = runner
        self._commands, self._lease, self._timings = parts
        self._on_released = on_released
        self._position = log.first - 1  # the number of the last chunk that Redis is known to have
        # As a running one, which it is in Redis until its outcome is written there.
        self._birth = encode(log.record)
        self._outcome: Outcome | None = None
        self._is_released = False
        self._is_lost = False
        self._waiter: asyncio.Future[None] | None = None
        self._busy = False
        self._is_paused = False  # since Redis refused to write, until the next try
        self._is_doubtful = False  # what Redis holds must be looked at, and written anew if need be
        self.remote_followers = RemoteFollowers(log)
        """Whoever follows on other replicas."""
        invocation_id = log.record.invocation_id
        self._id = invocation_id.encode()
        names = self._timings.keys
        self._root = names.root
        self._keys = (
            names.record(invocation_id),
            names.chunks(invocation_id),
            self._lease.key,
        )
        self._news = names.news(invocation_id)
        self._awaiting = log.record.awaiting  # the open questions that Redis is known to have
        self._retention_ms = self._timings.retention_ms

    @property
    def invocation_id(self) -> str:
        """The id of the invocation."""
        return self.log.record.invocation_id

    @property
    def is_overdue(self) -> bool:
        """Whether it ended so long ago that nobody need know of it any more."""
        return (
            self._outcome is not None and self._outcome.at + self._timings.retention < time.time()
        )

    def take_id(self, on_settled: Settled, if_session_busy: IfSessionBusy) -> None:
        """Claim the id. Where `on_settled` is told of `Unheard`, that may have been done or not."""
        session = self._lease.session
        try:
            reply = self._send_claim(if_session_busy)
        except Unavailable as error:
            on_settled(error, ())
        else:
            reply.add_done_callback(
                lambda done: self._on_taken(done, session, on_settled, if_session_busy)
            )

    def _on_taken(
        self,
        done: "asyncio.Future[Any]",
        session: bytes,
        on_settled: Settled,
        if_session_busy: IfSessionBusy,
    ) -> None:
        match done.exception():
            case None if done.result() == [b"unleased"] and self._lease.session != session:
                self.take_id(on_settled, if_session_busy)
            case None:
                on_settled(*self._settled(done.result()))
            case Unavailable() as error:
                on_settled(error, ())
            case ResponseError() as error if is_wrong_type(error):  # something that is not ours
                on_settled(already_exists(), ())
            case error:
                _logger.error("Redis refused to claim an id: %s", error)
                on_settled(Unavailable(), ())

    def _settled(self, reply: list[Any]) -> tuple[InvocationError | None, Sequence[str]]:
        """Return why the id was not taken, None where it was, and what else runs in the session."""
        match reply:
            case [b"new" | b"claimed", _, rivals]:
                self.log.on_news = self.go_on
                self.go_on()
                return None, [rival.decode() for rival in rivals]
            case [b"busy", running]:
                return SessionBusy(running.decode()), ()
            case [b"unleased"]:
                self._lease.renew_now()
                return Unavailable(), ()
            case _:
                return already_exists(), ()

    def put_off_expiry(self) -> None:
        """Keep the record in Redis for some more time. Raises `Unavailable`."""
        arguments = self.claim, self._timings.expiry_ms, self._root, self._id
        self._commands.run(scripts.KEEP, self._keys[:2], arguments)

    def verify(self) -> None:
        """Make sure that Redis holds the record and all that was written, and write it anew if not.

        It may have come back without, or with data of some time ago.
        """
        self._is_doubtful = True
        self.go_on()

    # --- writing ---

    def try_again(self) -> None:
        """Write what could not be written before."""
        self._is_paused = False
        self.go_on()

    def go_on(self) -> None:
        """Write what is new, unless something is under way or Redis is away."""
        if not (self._busy or self._is_paused) and self._commands.up and self._has_news:
            self._busy = True
            self._commands.call_soon(self._send)

    def end(self, outcome: Outcome) -> None:
        """Write the outcome after the last chunk, and tell of it when that is done.

        Redis is not waited for where it is away, nor when this is called once more. What is lost
        ends in no other way.
        """
        if self._is_lost:
            return
        if self._outcome is None:
            self._outcome = outcome
            self.go_on()
            if self._commands.up and not (self._is_released or self._is_paused):
                return
        self.wait_no_longer()

    def withdraw(self, outcome: Outcome) -> None:
        """End what will not run after all: its id is free as soon as that is written."""
        self._retention_ms = b"0"
        self.end(outcome)

    @property
    def is_ending(self) -> bool:
        """Whether there is an outcome, written or not."""
        return self._outcome is not None

    async def released(self) -> None:
        """Wait until everything is written or the invocation is lost, unless Redis is away."""
        if self._commands.up and not self._is_released:
            self._waiter = self._commands.waiter()
            await self._waiter

    def wait_no_longer(self) -> None:
        """Tell of the end although it is not written: it may take its time now."""
        if self._outcome is not None and not (self.log.ended or self._is_lost):
            self.log.end(self._outcome)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def lose(self) -> None:
        """Give up an invocation that others have given up, or may have.

        Its end is told when Redis knows it, too: who is told of it shall find it everywhere.
        """
        if self._is_lost:
            return
        self._is_lost = True
        self.runner.stop(lost())
        arguments = (
            self.claim,
            self._news,
            self._timings.retention_ms,
            self._timings.linger_ms,
            self._root,
            self._id,
        )
        try:
            reply = self._commands.run(scripts.LOSE, self._keys[:2], arguments)
        except Unavailable:
            self._end_lost()
        else:
            reply.add_done_callback(lambda _: self._end_lost())

    def _end_lost(self) -> None:
        if not self.log.ended:
            self.log.end(Outcome("lost", error=lost()))
        self._release()

    @property
    def _has_news(self) -> bool:
        if self._is_released or self._is_lost:
            return False
        if self._is_doubtful or self._outcome is not None or self._position < self.log.last:
            return True
        if self._awaiting is not self.log.record.awaiting:
            return True
        return self._report_pause is None and self._has_progress

    @property
    def _has_progress(self) -> bool:
        return self.log.record.progress != self._reported

    def _end_report_pause(self) -> None:
        self._report_pause = None
        self.go_on()

    def _release(self) -> None:
        self._is_released = True
        self.wait_no_longer()
        self.log.on_news = None
        self.remote_followers.clear()
        self._on_released(self)

    def _send(self) -> None:
        try:
            if self._is_doubtful:
                session = self._lease.session
                self._send_claim().add_done_callback(lambda done: self._on_claimed(done, session))
            else:
                self._send_news()
        except Unavailable:
            self._busy = False

    def _send_claim(self, if_session_busy: IfSessionBusy = "parallel") -> "asyncio.Future[Any]":
        log, record = self.log, self.log.record
        return self._commands.run(
            scripts.CLAIM,
            self._keys,
            (
                self.claim,
                self._lease.session,
                self._timings.replica.encode(),
                self._timings.expiry_ms,
                self._birth,
                b"%d" % log.first,
                b"%d" % (log.first - 1),
                self._root,
                self._id,
                owner_name(record.owner),
                session_name(record.owner, record.session_id),
                repr(record.created_at).encode(),
                if_session_busy.encode(),
                b"%d" % self._lease.may_judge,
                self._timings.lease_ms,
            ),
        )

    def _send_news(self) -> None:
        log = self.log
        after = max(self._position, log.first - 1)  # some may have been dropped unwritten
        kind, data, count = self._next_entries(after)
        last = after + count
        final, result, first = b"", b"", log.first
        if is_final := self._outcome is not None and last == log.last:
            final, result = self._final_record()
            first = log.last + 1 - len(log.retained)
        session = self._lease.session
        arguments: tuple[bytes, ...] = (
            self.claim,
            session,
            self._news,
            self._timings.linger_ms if is_final else self._timings.expiry_ms,
            b"%d" % self._position,
            b"%d" % first,
            b"%d" % last,
            kind,
            data,
            final,
            result,
            self._retention_ms,
            self._root,
            self._id,
            self._timings.expiry_ms,
            b"" if (awaiting := log.record.awaiting) is self._awaiting else encode(awaiting),
        )
        size = len(data) + len(result)
        progress = self._next_progress(is_final)
        if progress is not None:
            arguments = (*arguments, progress)
            size += len(progress)
        reply = self._commands.run(scripts.WRITE, self._keys, arguments, size)
        reply.add_done_callback(
            lambda done: self._on_written(done, session, last, awaiting, progress, is_final)
        )

    def _next_progress(self, is_final: bool) -> bytes | None:
        """Return what is to be written of progress, None where there is nothing or it must wait."""
        if not self._has_progress:
            return None
        if not is_final:
            if self._report_pause is not None:
                return None
            self._report_pause = self._commands.call_later(REPORT_PAUSE, self._end_report_pause)
        return self.log.record.progress

    def _next_entries(self, after: int) -> tuple[bytes, bytes, int]:
        """Return the kind of the next entries, what is to be written of them, and how many.

        Chunks go together, an event goes by itself.
        """
        chunks: list[bytes] = []
        size, most = 0, min(BATCH_BYTES, self._timings.replay_bytes // 2)
        for entry in self.log.slice(after, MOST_CHUNKS):
            size += len(entry)
            if chunks and (size > most or isinstance(entry, Event)):
                break
            if isinstance(entry, Event):
                return EVENT, entry, 1
            chunks.append(entry)
        return CHUNKS, b"[%b]" % b",".join(chunks) if chunks else b"", len(chunks)

    def _final_record(self) -> tuple[bytes, bytes]:
        assert self._outcome is not None
        # Progress has a field of its own in Redis, and so has the result.
        record = replace(self.log.record, progress=None, awaiting=())
        self._outcome.note(record)
        result, record.result = record.result or b"", None
        return encode(record), result

    def _on_claimed(self, done: "asyncio.Future[Any]", session: bytes) -> None:
        self._busy = False
        match self._reply(done):
            case [b"new", *_]:
                self._is_doubtful = False
                self._reported = None
                self._awaiting = ()
                self._position = self.log.first - 1
            case [b"claimed", last, _]:
                self._is_doubtful = False
                self._reported = None
                self._awaiting = _UNKNOWN
                self._position = min(self._position, int(last))
            case [b"unleased"] if session == self._lease.session:
                self._lease.renew_now()
                return
            case [b"unleased"]:
                pass
            case None:
                return
            case _:
                self.lose()
        self.go_on()

    def _on_written(
        self,
        done: "asyncio.Future[Any]",
        session: bytes,
        last: int,
        awaiting: tuple[Awaiting, ...],
        progress: bytes | None,
        is_final: bool,
    ) -> None:
        self._busy = False
        match self._reply(done):
            case b"written":
                self._position = max(self._position, last)
                self._awaiting = awaiting
                if progress is not None:
                    self._reported = progress
                if is_final:
                    self._release()
                    return
            case b"doubtful":
                self._is_doubtful = True
            case b"unleased" if session == self._lease.session:
                self._lease.renew_now()
                return
            case b"lost":
                self.lose()
            case None:
                return
        self.go_on()

    def _reply(self, done: "asyncio.Future[Any]") -> Any:
        """Return the reply of a script, None where there was none; it is tried again later."""
        if done.cancelled():
            return None
        error = done.exception()
        if isinstance(error, ResponseError):
            _logger.error("Redis refused to write %s: %s", self._keys[0], error)
            self._is_paused = True
            self.wait_no_longer()
        return None if error is not None else done.result()
