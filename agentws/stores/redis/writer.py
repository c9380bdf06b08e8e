"""Writes one log to Redis, behind its listeners, in order."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from copy import copy
from typing import Any, Final

from redis.exceptions import ResponseError

from agentws.protocol import InvocationError, encode
from agentws.stores import Stop
from agentws.stores.log import Follower, Log, Outcome
from agentws.stores.redis import scripts
from agentws.stores.redis.lease import Lease
from agentws.stores.redis.link import Link, Unavailable, is_wrong_type
from agentws.stores.redis.sight import lost
from agentws.stores.redis.terms import Terms

_logger: Final = logging.getLogger("agentws.store")

BATCH_BYTES: Final = 64 * 1024
MOST_CHUNKS: Final = 4096
"""How much of a log is written at a time."""

GUEST_PATIENCE: Final = 5.0
"""Seconds without word from a replica after which nobody is thought to listen there."""


class Guest(Follower):
    """Whoever listens to a log on one other replica: its place is as far as chunks arrived there.

    It counts as a listener: the invocation is not deserted, and its stream waits for it.
    """

    __slots__ = ("heard_at",)

    def __init__(self, log: Log, position: int) -> None:
        self.heard_at = time.monotonic()
        super().__init__(log, max(position, log.first - 1))

    def wake(self) -> None:
        """See `Follower.wake`; it learns of news through Redis."""

    def advance(self, position: int) -> None:
        """Take note of how far it has come."""
        self.heard_at = time.monotonic()
        log = self.log
        self.position = max(self.position, min(position, log.last))
        self.taken_bytes = log.written - log.bytes_after(max(self.position, log.first - 1))
        log.make_room()


class Writer:
    """One invocation of this replica: claims its id, writes what it says, tells when it is lost.

    At most one command of a writer is under way; what is said meanwhile goes with the next.
    """

    def __init__(
        self,
        log: Log,
        stop: Stop,
        claim: bytes,
        parts: tuple[Link, Lease, Terms],
        on_released: Callable[["Writer"], None],
    ) -> None:
        """`claim` is unique; `on_released` is called when nothing is left to be written."""
        self.log = log
        self.claim = claim
        self.stop = stop
        self._link, self._lease, self._terms = parts
        self._on_released = on_released
        self._position = log.first - 1  # the number of the last chunk written
        self._outcome: Outcome | None = None
        self._is_released = False
        self._waiter: asyncio.Future[None] | None = None
        self._busy = False
        self._rests = False  # since Redis refused to write, until the next try
        self._is_gone = False  # the record vanished from Redis, and must be written anew
        self._guests: dict[str, Guest] = {}
        invocation_id = log.record.invocation_id
        self._keys = (
            scripts.record_key(invocation_id),
            scripts.chunks_key(invocation_id),
            self._lease.key,
        )
        self._news = scripts.news_channel(invocation_id)

    @property
    def invocation_id(self) -> str:
        """The id of the invocation."""
        return self.log.record.invocation_id

    @property
    def is_overdue(self) -> bool:
        """Whether it ended so long ago that nobody need know of it any more."""
        return self._outcome is not None and self._outcome.at + self._terms.retention < time.time()

    async def take_id(self) -> None:
        """Claim the id. Raises `InvocationError`: `already_exists` or `store_unavailable`."""
        try:
            reply = await self._send_claim()
        except ResponseError as error:
            if not is_wrong_type(error):
                _logger.error("Redis refused to claim an id: %s", error)
                raise Unavailable from None
            reply = b"taken"  # by something that is not ours
        if reply == b"unleased":
            self._lease.renew_now()
            raise Unavailable
        if reply not in (b"new", b"claimed"):
            raise InvocationError("already_exists", "An invocation with this id exists")
        self.log.on_append = self.go_on
        self.go_on()

    def put_off_expiry(self) -> None:
        """Keep the record in Redis for some more time. Raises `Unavailable`."""
        self._link.run(scripts.KEEP, self._keys[:2], (self.claim, self._terms.expiry_ms))

    def verify(self) -> None:
        """Make sure that the record is still in Redis and ours, and write it anew if it is gone."""
        self._is_gone = True
        self.go_on()

    # --- writing ---

    def try_again(self) -> None:
        """Write what could not be written before."""
        self._rests = False
        self.go_on()

    def go_on(self) -> None:
        """Write what is new, unless something is under way or Redis is away."""
        if not (self._busy or self._rests) and self._link.up and self._has_news:
            self._busy = True
            self._link.call_soon(self._send)

    def end(self, outcome: Outcome) -> None:
        """Write the outcome after the last chunk."""
        self._outcome = outcome
        self.go_on()

    async def released(self) -> None:
        """Wait until everything is written or the invocation is lost, unless Redis is away."""
        if self._link.up and not self._is_released:
            self._waiter = self._link.waiter()
            await self._waiter

    def wait_no_longer(self) -> None:
        """Let whoever waits go on: it may take its time now."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def lose(self) -> None:
        """Give up an invocation that others have given up, or may have."""
        self._release()
        error = lost()
        if not self.log.ended:
            self.log.end(Outcome("lost", error=error))
        self.stop(error)
        with contextlib.suppress(Unavailable):
            self._link.run(
                scripts.LOSE,
                self._keys[:2],
                (self.claim, self._news, self._terms.retention_ms, self._terms.linger_ms),
            )

    @property
    def _has_news(self) -> bool:
        if self._is_released:
            return False
        return self._is_gone or self._outcome is not None or self._position < self.log.last

    def _release(self) -> None:
        self._is_released = True
        self.wait_no_longer()
        self.log.on_append = None
        self._guests.clear()
        self._on_released(self)

    def _send(self) -> None:
        try:
            if self._is_gone:
                self._send_claim().add_done_callback(self._on_claimed)
            else:
                self._send_news()
        except Unavailable:
            self._busy = False

    def _send_claim(self) -> "asyncio.Future[Any]":
        log = self.log
        self._position = max(self._position, log.first - 1)
        return self._link.run(
            scripts.CLAIM,
            self._keys,
            (
                self.claim,
                self._lease.session,
                self._terms.replica.encode(),
                self._terms.expiry_ms,
                encode(log.record),
                b"%d" % log.first,
                b"%d" % (log.first - 1),
            ),
        )

    def _send_news(self) -> None:
        log = self.log
        first = self._position = max(self._position, log.first - 1)
        chunks = self._next_chunks()
        last = self._position + len(chunks)
        data = b"[%b]" % b",".join(chunks) if chunks else b""
        final, result, first = b"", b"", log.first
        if is_final := self._outcome is not None and last == log.last:
            final, result = self._final_record()
            first = log.last + 1 - len(log.retained)
        arguments: tuple[bytes, ...] = (
            self.claim,
            self._lease.session,
            self._news,
            self._terms.linger_ms if is_final else self._terms.expiry_ms,
            b"%d" % first,
            b"%d" % last,
            data,
            final,
            result,
            self._terms.retention_ms,
        )
        size = len(data) + len(result)
        reply = self._link.run(scripts.WRITE, self._keys, arguments, size)
        reply.add_done_callback(lambda done: self._on_written(done, last, is_final=is_final))

    def _next_chunks(self) -> list[bytes]:
        chunks: list[bytes] = []
        size, most = 0, min(BATCH_BYTES, self._terms.replay_bytes // 2)
        for chunk in self.log.slice(self._position, MOST_CHUNKS):
            size += len(chunk)
            if chunks and size > most:
                break
            chunks.append(chunk)
        return chunks

    def _final_record(self) -> tuple[bytes, bytes]:
        assert self._outcome is not None
        record = copy(self.log.record)
        self._outcome.note(record)
        result, record.result = record.result or b"", None
        return encode(record), result

    def _on_claimed(self, done: "asyncio.Future[Any]") -> None:
        self._busy = False
        match self._reply(done):
            case b"new":
                self._is_gone = False
                self._position = self.log.first - 1
            case b"claimed":
                self._is_gone = False
            case b"unleased":
                self._lease.renew_now()
                return
            case None:
                return
            case _:
                self.lose()
        self.go_on()

    def _on_written(self, done: "asyncio.Future[Any]", last: int, *, is_final: bool) -> None:
        self._busy = False
        match self._reply(done):
            case b"written":
                self._position = max(self._position, last)
                if is_final:
                    self._release()
            case b"gone":
                self._is_gone = True
            case b"unleased":
                self._lease.renew_now()
                return
            case b"lost":
                self.lose()
            case None:
                return
        self.go_on()

    def _reply(self, done: "asyncio.Future[Any]") -> object:
        """Return the reply of a script, None where there was none; it is tried again later."""
        if done.cancelled():
            return None
        error = done.exception()
        if isinstance(error, ResponseError):
            _logger.error("Redis refused to write %s: %s", self._keys[0], error)
            self._rests = True
            self.wait_no_longer()
        return None if error is not None else done.result()

    # --- listeners on other replicas ---

    def attend(self, replica: str, position: int | None) -> None:
        """Take note of who listens on another replica, and how far he is; None when he left."""
        guest = self._guests.get(replica)
        if position is None:
            if guest is not None:
                self._guests.pop(replica).leave()
        elif guest is not None:
            guest.advance(position)
        elif not self.log.ended:
            self._guests[replica] = Guest(self.log, position)

    def dismiss_guests(self, before: float) -> None:
        """Forget replicas that were last heard of before that time of the monotonic clock."""
        for replica, guest in list(self._guests.items()):
            if guest.heard_at < before:
                self._guests.pop(replica).leave()

    def excuse_guests(self) -> None:
        """Wait for word from other replicas from now on: until now, none could have come."""
        for guest in self._guests.values():
            guest.heard_at = time.monotonic()
