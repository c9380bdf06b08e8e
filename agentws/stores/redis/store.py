"""The store that several replicas share.

A replica keeps the logs of what it runs in memory, as without Redis, and has each of them written
behind its followers by a `Writer`. What others run, it copies into a `RemoteLog` as long as
somebody here follows. A `Lease` tells the others that it lives.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from agentws.protocol.errors import (
    Cancelled,
    InvocationError,
    already_exists,
    cancelled,
    superseded,
)
from agentws.protocol.frames import IfSessionBusy
from agentws.protocol.identifiers import new_id
from agentws.protocol.inputs import Delivery
from agentws.stores.listing import Page, Query
from agentws.stores.log import Log, Outcome, Snapshot
from agentws.stores.redis import scripts
from agentws.stores.redis.commands import Commands, Unheard, running
from agentws.stores.redis.deliveries import Deliveries
from agentws.stores.redis.failures import FAILURES, NoToken, describe
from agentws.stores.redis.identity import Identity
from agentws.stores.redis.keys import Keys
from agentws.stores.redis.lease import Lease
from agentws.stores.redis.pubsub import (
    RemoteCancel,
    RemoteInput,
    RemotePosition,
    RemoteReceipt,
    Subscriptions,
    read_message,
)
from agentws.stores.redis.reader import Reader
from agentws.stores.redis.remote_followers import REMOTE_PATIENCE
from agentws.stores.redis.remote_log import RemoteLogs
from agentws.stores.redis.route import Route
from agentws.stores.redis.timings import Timings
from agentws.stores.redis.upkeep import Upkeep
from agentws.stores.redis.writer import Writer
from agentws.stores.store import Runner, Settled, StoreError

_logger: Final = logging.getLogger("agentws.store")

CLOSE_PATIENCE: Final = 0.5
"""Seconds for which the rest is written at the very end."""


class _Retained(NamedTuple):
    invocation_id: str
    claim: bytes
    until: float


class RedisStore:
    """Logs of all replicas that use the same Redis."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        identity: Identity | None = None,
        lease: float,
        retention: float,
        max_retained: int,
        replay_bytes: int,
        send_timeout: float,
    ) -> None:
        """Prepare the store; to be made inside the event loop. Times are seconds.

        What has another `prefix` in that Redis belongs to another service. Where there is an
        `identity`, it authenticates by its tokens. Others take this replica
        for dead when it has not been heard of for `lease` seconds. It remembers `max_retained` of
        the invocations that ended on it. Raises `StoreError` when the URL is malformed.
        """
        self._timings = Timings(
            replica=new_id(),
            keys=Keys(prefix),
            lease=lease,
            retention=retention,
            replay_bytes=replay_bytes,
            send_timeout=send_timeout,
        )
        try:
            route = Route(url, self._timings.keys, identity)
        except ValueError as error:
            raise StoreError(f"store.url is malformed: {error}") from error
        self._identity = identity
        self._commands = Commands(route, self._on_failure, self._on_reopened)
        self._lease = Lease(self._commands, self._timings)
        self._subscriptions = Subscriptions(route, self._commands.fail)
        self._reader = Reader(self._commands, self._lease, self._timings)
        self._deliveries = Deliveries(self._commands, self._timings)
        self._remote_logs = RemoteLogs(
            self._reader, self._commands, self._subscriptions, self._timings
        )
        self._max_retained = max_retained
        self._claims = 0
        self._writers: dict[str, Writer] = {}
        self._retained: deque[_Retained] = deque()  # in the order of their end
        self._expiry_put_off_at = time.monotonic()
        self._upkeep: list[Upkeep] = []
        self._warned_of = ""  # a policy

    @property
    def replica(self) -> str:
        """See `Store.replica`."""
        return self._timings.replica

    @property
    def trouble(self) -> str:
        """See `Store.trouble`."""
        return "" if self._commands.up else self._commands.trouble

    async def open(self) -> None:
        """See `Store.open`. Without Redis, the store waits for it."""
        channel = self._timings.keys.replica(self._timings.replica)
        await self._subscriptions.subscribe(channel, self._on_message)
        if self._identity is not None:
            self._upkeep.append(Upkeep(self._identity.keep))
        try:
            await self._lease.take()
            await self._subscriptions.open()
            await self._warn_of_eviction()
        except FAILURES as error:
            self._commands.fail(error)
            if not isinstance(error, NoToken):  # which is told already
                _logger.warning("The store waits for Redis: %s", describe(error))
        self._upkeep += [
            Upkeep(partial(self._lease.keep, self._on_beat)),
            Upkeep(partial(self._lease.watch, self._on_sleep)),
        ]

    async def ping(self) -> str:
        """See `Store.ping`."""
        return await self._commands.ping()

    def claim(
        self,
        log: Log,
        runner: Runner,
        on_settled: Settled,
        if_session_busy: IfSessionBusy = "parallel",
    ) -> None:
        """See `Store.claim`."""
        if log.record.invocation_id in self._writers:  # it ended, and Redis does not know it yet
            on_settled(already_exists(), ())
            return
        self._claims += 1
        claim = f"{self._timings.replica}/{self._claims}".encode()
        parts = self._commands, self._lease, self._timings
        writer = Writer(log, runner, claim, parts, self._on_released)
        writer.take_id(partial(self._on_claim_settled, writer, on_settled), if_session_busy)

    def _on_claim_settled(
        self,
        writer: Writer,
        on_settled: Settled,
        refusal: InvocationError | None,
        rivals: Sequence[str],
    ) -> None:
        if refusal is None:
            self._writers[writer.invocation_id] = writer
        elif isinstance(refusal, Unheard):
            self._lease.doubt(self._release(writer.invocation_id, writer.claim))
        on_settled(refusal, rivals)

    def withdraw(self, log: Log, refusal: InvocationError) -> None:
        """See `Store.withdraw`."""
        log.refusal = refusal
        writer = self._writers.get(log.record.invocation_id)
        if writer is not None and writer.log is log:
            writer.withdraw(Outcome("failed", error=refusal))
        else:
            log.refuse(refusal)

    async def look_up(self, invocation_id: str) -> Snapshot | None:
        """See `Store.look_up`."""
        if (writer := self._writers.get(invocation_id)) is not None:
            return writer.log.snapshot
        seen = await self._reader.look(invocation_id)
        return None if seen is None else seen.snapshot

    async def find(self, invocation_id: str) -> Log | None:
        """See `Store.find`."""
        if (writer := self._writers.get(invocation_id)) is not None:
            return writer.log
        seen = await self._reader.look(invocation_id)
        if seen is None:
            return None
        if not seen.snapshot.record.ended:
            return self._remote_logs.get(seen)
        return await self._reader.lay_out(seen)

    def finish(self, log: Log, outcome: Outcome) -> None:
        """See `Store.finish`."""
        writer = self._writers.get(log.record.invocation_id)
        if writer is not None and writer.log is log:
            writer.end(outcome)
        else:
            log.end(outcome)

    async def list(self, query: Query) -> Page:
        """See `Store.list`; what runs here is told as it is, not as Redis knows it."""
        page = await self._reader.list(query)
        found = [self._newest(snapshot) for snapshot in page.found]
        wanted = [each for each in found if query.status in (None, each.record.shown_status)]
        return Page(wanted, page.next)

    def _newest(self, snapshot: Snapshot) -> Snapshot:
        writer = self._writers.get(snapshot.record.invocation_id)
        return snapshot if writer is None else writer.log.snapshot

    async def cancel(self, invocation_id: str, reason: Cancelled) -> None:
        """See `Store.cancel`."""
        self._remote_logs.cancel(invocation_id, reason.superseded_by)

    async def deliver(self, invocation_id: str, delivery: Delivery) -> bool:
        """See `Store.deliver`."""
        seen = await self._reader.look(invocation_id)
        if seen is None or seen.snapshot.record.ended:
            return False
        return await self._deliveries.send(invocation_id, seen.replica, delivery)

    async def close(self) -> None:
        """See `Store.close`."""
        ended = [writer for writer in self._writers.values() if writer.is_ending]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_PATIENCE):
                    await asyncio.gather(*(writer.released() for writer in ended))
        finally:  # whatever cuts this short, nothing begins anew
            for upkeep in self._upkeep:
                upkeep.end()
            self._remote_logs.end()
            self._commands.end()
        try:
            for upkeep in self._upkeep:
                await upkeep.ended()
            await self._remote_logs.close()
            if self._commands.up:
                with contextlib.suppress(*FAILURES):
                    await self._lease.give_up()
        finally:
            await self._subscriptions.close()
            await self._commands.close()
            if self._identity is not None:
                self._identity.close()

    def _on_released(self, writer: Writer) -> None:
        """Retain what is written, or lost, as long as it is retained, and no more than allowed."""
        now = time.monotonic()
        self._writers.pop(writer.invocation_id, None)
        self._retained.append(
            _Retained(writer.invocation_id, writer.claim, now + self._timings.retention)
        )
        while self._retained and self._retained[0].until <= now:
            self._retained.popleft()
        if len(self._retained) > self._max_retained:
            oldest = self._retained.popleft()
            if self._commands.up:
                self._commands.call(*self._release(oldest.invocation_id, oldest.claim))

    def _on_failure(self) -> None:
        """Hold up no end for Redis, and look at once whether it was but a moment."""
        self._lease.renew_now()
        for writer in list(self._writers.values()):
            writer.wait_no_longer()

    def _on_reopened(self) -> None:
        """Make sure of all that was written: who cuts connections may have forgotten something."""
        self._lease.begin_anew()

    def _on_sleep(self) -> None:
        """Give up what runs here: others may have done so already."""
        if self._writers:
            _logger.error(
                "This replica slept past its lease: the %d invocations that it ran are lost",
                len(self._writers),
                extra={"replica": self._timings.replica, "lost": len(self._writers)},
            )
        self._lease.begin_anew()  # what is not said to be lost now, will be for its old session
        for writer in list(self._writers.values()):
            writer.lose()

    async def _on_beat(self, is_new: bool) -> None:
        """Do what the time has come for, and what is to be made up for after Redis was away."""
        if is_new:
            await self._make_up()
        elif self._subscriptions.is_outdated or not await self._hear_ourselves():
            await self._subscriptions.open()
        for writer in list(self._writers.values()):
            writer.remote_followers.drop_silent(time.monotonic() - REMOTE_PATIENCE)
            writer.try_again()
            if writer.is_overdue:
                del self._writers[writer.invocation_id]
        if time.monotonic() >= self._expiry_put_off_at + self._timings.lease:
            self._put_off_expiry()
        await self._remote_logs.tend()
        self._reader.tell_losses()

    async def _make_up(self) -> None:
        await self._subscriptions.open()
        await self._warn_of_eviction()
        for writer in self._writers.values():
            writer.remote_followers.excuse_silence()
            writer.verify()

    async def _warn_of_eviction(self) -> None:
        """Say once that Redis would forget what runs when it is full, instead of refusing more."""
        policy = await self._commands.eviction_policy()
        if policy not in ("", "noeviction", self._warned_of):
            self._warned_of = policy
            _logger.warning(
                "Redis evicts what it holds when it is full, running invocations among it: its "
                "maxmemory-policy is %s, and should be noeviction",
                policy,
            )

    async def _hear_ourselves(self) -> bool:
        """Tell whether what is said to us arrives."""
        return bool(
            await self._commands.call(
                b"PUBLISH", self._timings.keys.replica(self._timings.replica), b""
            )
        )

    def _put_off_expiry(self) -> None:
        self._expiry_put_off_at = time.monotonic()
        for writer in self._writers.values():
            writer.put_off_expiry()

    def _on_message(self, data: bytes) -> None:
        """Do what another replica asks for."""
        match read_message(data):
            case RemoteInput() as message:
                self._deliveries.on_input(message, self._take_input)
            case RemoteReceipt() as receipt:
                self._deliveries.on_receipt(receipt)
            case RemoteCancel(invocation_id, superseded_by):
                if (writer := self._writers.get(invocation_id)) is not None:
                    by = superseded_by
                    writer.runner.stop(cancelled() if by is None else superseded(by))
            case RemotePosition(invocation_id, replica, position):
                if (writer := self._writers.get(invocation_id)) is not None:
                    writer.remote_followers.note(replica, position)

    def _take_input(self, message: RemoteInput) -> None:
        self._writers[message.invocation_id].runner.deliver(message.delivery)

    def _release(self, invocation_id: str, claim: bytes) -> tuple[bytes, ...]:
        """Return the command that has Redis forget an invocation of ours."""
        names = self._timings.keys
        keys = names.record(invocation_id), names.chunks(invocation_id)
        return running(scripts.RELEASE, keys, (claim, names.root, invocation_id.encode()))
