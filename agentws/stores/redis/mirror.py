"""Logs that other replicas write, copied as they grow for the listeners on this one."""

import asyncio
import time
from functools import partial

from msgspec.structs import replace

from agentws.own_task import Upkeep
from agentws.protocol.encoding import encode
from agentws.stores.log import Log, Outcome
from agentws.stores.redis import scripts
from agentws.stores.redis.letters import Attend, Cancel, Letter, Mailbox
from agentws.stores.redis.link import Link, Unavailable
from agentws.stores.redis.reader import Reader
from agentws.stores.redis.sight import Sight, extend, lost
from agentws.stores.redis.terms import Terms


class Mirror:
    """One running invocation of another replica, for whoever listens to it here."""

    def __init__(self, sight: Sight, reader: Reader, link: Link, terms: Terms) -> None:
        self.owner = sight.replica
        """The replica that runs the invocation."""
        record, first, _ = sight.snapshot
        # Its progress would grow old here; who polls looks at Redis.
        self.log = Log(replace(record, progress=None), terms.replay_bytes, first=first)
        self.log.on_attendance = lambda _attended: self.report()
        self._reader = reader
        self._link = link
        self._terms = terms
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
        self.write(Attend(self.log.record.invocation_id, self._terms.replica, position))

    def write(self, letter: Letter) -> None:
        """Send something to the owner. Raises nothing: what is not heard is said again."""
        if self._link.up:
            self._link.call(b"PUBLISH", scripts.replica_channel(self.owner), encode(letter))

    async def run(self) -> None:
        """Copy until the end, at the pace of the fastest listener."""
        log = self.log
        self.report()
        while not log.ended:
            await self._news.wait()
            self._news.clear()
            try:
                sight = await self._reader.look_after(log.record.invocation_id, log.last)
            except Unavailable:  # we are told to look again when Redis is back
                continue
            self._take_over(sight)
            await log.room(self._terms.send_timeout)
            self.report()

    def _take_over(self, sight: Sight | None) -> None:
        if sight is None:
            self._miss()
            return
        self._missing_since = None
        extend(self.log, sight)
        record, _, last = sight.snapshot
        if not sight.is_last:
            self._news.set()
        elif record.status != "running":
            if self.log.last < last:  # the rest was removed by somebody else
                self.log.skip(last + 1)
            at = record.finished_at or time.time()
            self.log.end(Outcome(record.status, record.result, record.error, at))

    def _miss(self) -> None:
        """Give the owner time to write the record anew, in case that Redis lost it."""
        now = time.monotonic()
        if self._missing_since is None:
            self._missing_since = now
        elif now > self._missing_since + self._terms.lease:
            self.log.end(Outcome("lost", error=lost()))


class Mirrors:
    """All that is copied, by id: begun when somebody wants to listen, dropped when nobody does."""

    def __init__(self, reader: Reader, link: Link, mailbox: Mailbox, terms: Terms) -> None:
        self._reader = reader
        self._link = link
        self._mailbox = mailbox
        self._terms = terms
        self._mirrors: dict[str, Mirror] = {}
        self._upkeep: dict[str, Upkeep] = {}

    def get(self, sight: Sight) -> Log:
        """Return the log of an invocation that runs elsewhere; it is up to date soon."""
        invocation_id = sight.snapshot.record.invocation_id
        mirror = self._mirrors.get(invocation_id)
        if mirror is None:
            mirror = self._mirrors[invocation_id] = Mirror(
                sight, self._reader, self._link, self._terms
            )
            self._upkeep[invocation_id] = Upkeep(partial(self._run, invocation_id, mirror))
        return mirror.log

    def cancel(self, invocation_id: str) -> None:
        """Ask the replica that runs an invocation to cancel it."""
        if (mirror := self._mirrors.get(invocation_id)) is not None:
            mirror.write(Cancel(invocation_id))

    async def tend(self) -> None:
        """Look at all once more, and drop those that nobody listens to."""
        for invocation_id, mirror in list(self._mirrors.items()):
            if mirror.is_deserted():
                self._upkeep[invocation_id].end()
                await self._forget(invocation_id)
            else:
                mirror.look_again()

    def end(self) -> None:
        """Copy nothing any more."""
        for upkeep in self._upkeep.values():
            upkeep.end()

    async def close(self) -> None:
        """Wait for the end of what was copied, after `end`."""
        for upkeep in list(self._upkeep.values()):
            await upkeep.ended()

    async def _run(self, invocation_id: str, mirror: Mirror) -> None:
        await self._mailbox.subscribe(scripts.news_channel(invocation_id), mirror.look_again)
        await mirror.run()
        await self._forget(invocation_id)

    async def _forget(self, invocation_id: str) -> None:
        self._mirrors.pop(invocation_id, None)
        self._upkeep.pop(invocation_id, None)
        await self._mailbox.unsubscribe(scripts.news_channel(invocation_id))
