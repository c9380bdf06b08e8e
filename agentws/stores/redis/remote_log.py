"""Logs that other replicas write, copied as they grow for the followers on this one."""

import asyncio
import time
from functools import partial

from msgspec.structs import replace

from agentws.protocol.encoding import encode
from agentws.protocol.errors import lost
from agentws.stores.log import Log, Outcome
from agentws.stores.redis.commands import Commands, Unavailable
from agentws.stores.redis.pubsub import Message, RemoteCancel, RemotePosition, Subscriptions
from agentws.stores.redis.reader import Reader
from agentws.stores.redis.record_reply import RecordReply, extend
from agentws.stores.redis.timings import Timings
from agentws.stores.redis.upkeep import Upkeep


class RemoteLog:
    """One running invocation of another replica, for whoever listens to it here."""

    def __init__(
        self, seen: RecordReply, reader: Reader, commands: Commands, timings: Timings
    ) -> None:
        self.owner = seen.replica
        """The replica that runs the invocation."""
        record, first, _ = seen.snapshot
        # Its progress would grow old here; who polls looks at Redis.
        self.log = Log(replace(record, progress=None), timings.replay_bytes, first=first)
        self.log.on_attendance = lambda _attended: self.report()
        self._reader = reader
        self._commands = commands
        self._timings = timings
        self._news = asyncio.Event()
        self._news.set()
        self._missing_since: float | None = None
        self._was_attended = True

    def is_deserted(self) -> bool:
        """Tell whether nobody listens now, nor did when this was asked before."""
        was_attended, self._was_attended = self._was_attended, self.log.attended
        return not (was_attended or self._was_attended)

    def look_again(self, _news: bytes = b"") -> None:
        """Take note that there may be news."""
        self._news.set()

    def report(self) -> None:
        """Tell the owner whether anybody listens here, and how much has arrived."""
        position = self.log.last if self.log.attended else None
        self.write(RemotePosition(self.log.record.invocation_id, self._timings.replica, position))

    def write(self, message: Message) -> None:
        """Send something to the owner. Raises nothing: what is not heard is said again."""
        if self._commands.up:
            channel = self._timings.keys.replica(self.owner)
            self._commands.call(b"PUBLISH", channel, encode(message))

    async def run(self) -> None:
        """Copy until the end, at the pace of the fastest follower."""
        log = self.log
        self.report()
        while not log.ended:
            await self._news.wait()
            self._news.clear()
            try:
                seen = await self._reader.look_after(log.record.invocation_id, log.last)
            except Unavailable:  # we are told to look again when Redis is back
                continue
            self._take_over(seen)
            await log.wait_for_followers(self._timings.send_timeout)
            self.report()

    def _take_over(self, seen: RecordReply | None) -> None:
        if seen is None:
            self._miss()
            return
        self._missing_since = None
        extend(self.log, seen)
        record, _, last = seen.snapshot
        if not seen.is_last:
            self._news.set()
        elif record.status != "running":
            if self.log.last < last:  # the rest was removed by somebody else
                self.log.skip(last + 1)
            at = record.finished_at or time.time()
            self.log.record.seen_inputs = record.seen_inputs
            self.log.end(Outcome(record.status, record.result, record.error, at))

    def _miss(self) -> None:
        """Give the owner time to write the record anew, in case that Redis lost it."""
        now = time.monotonic()
        if self._missing_since is None:
            self._missing_since = now
        elif now > self._missing_since + self._timings.lease:
            self.log.end(Outcome("lost", error=lost()))


class RemoteLogs:
    """All that is copied, by id: begun when somebody wants to listen, dropped when nobody does."""

    def __init__(
        self, reader: Reader, commands: Commands, subscriptions: Subscriptions, timings: Timings
    ) -> None:
        self._reader = reader
        self._commands = commands
        self._subscriptions = subscriptions
        self._timings = timings
        self._remote_logs: dict[str, RemoteLog] = {}
        self._upkeep: dict[str, Upkeep] = {}

    def get(self, seen: RecordReply) -> Log:
        """Return the log of an invocation that runs elsewhere; it is up to date soon."""
        invocation_id = seen.snapshot.record.invocation_id
        remote_log = self._remote_logs.get(invocation_id)
        if remote_log is None:
            remote_log = self._remote_logs[invocation_id] = RemoteLog(
                seen, self._reader, self._commands, self._timings
            )
            self._upkeep[invocation_id] = Upkeep(partial(self._run, invocation_id, remote_log))
        return remote_log.log

    def cancel(self, invocation_id: str, superseded_by: str | None) -> None:
        """Ask the replica that runs an invocation to cancel it."""
        if (remote_log := self._remote_logs.get(invocation_id)) is not None:
            remote_log.write(RemoteCancel(invocation_id, superseded_by))

    async def tend(self) -> None:
        """Look at all once more, and drop those that nobody listens to."""
        for invocation_id, remote_log in list(self._remote_logs.items()):
            if remote_log.is_deserted():
                self._upkeep[invocation_id].end()
                await self._forget(invocation_id)
            else:
                remote_log.look_again()

    def end(self) -> None:
        """Copy nothing any more."""
        for upkeep in self._upkeep.values():
            upkeep.end()

    async def close(self) -> None:
        """Wait for the end of what was copied, after `end`."""
        for upkeep in list(self._upkeep.values()):
            await upkeep.ended()

    async def _run(self, invocation_id: str, remote_log: RemoteLog) -> None:
        await self._subscriptions.subscribe(
            self._timings.keys.news(invocation_id), remote_log.look_again
        )
        await remote_log.run()
        await self._forget(invocation_id)

    async def _forget(self, invocation_id: str) -> None:
        self._remote_logs.pop(invocation_id, None)
        self._upkeep.pop(invocation_id, None)
        await self._subscriptions.unsubscribe(self._timings.keys.news(invocation_id))
