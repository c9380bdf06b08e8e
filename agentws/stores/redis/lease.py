"""This replica's sign of life in Redis."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    InvalidResponse,
    ResponseError,
)

from agentws.stores.redis.commands import Commands, Unavailable
from agentws.stores.redis.failures import FAILURES, describe, will_pass
from agentws.stores.redis.timings import NEWS_PATIENCE, Timings
from agentws.stores.store import StoreError

_logger: Final = logging.getLogger("agentws.store")

_REFUSALS: Final = (AuthenticationError, AuthorizationError, InvalidResponse, ResponseError)


class Lease:
    """A key that expires unless it is renewed; and what is concluded when it was not.

    Each time Redis comes back, a new session begins. A replica that slept past its lease, because
    its process was stopped or a handler blocked it, learns it from its own clock: others may have
    given its invocations up. A lease that ran out while Redis was away means nothing.
    """

    def __init__(self, commands: Commands, timings: Timings) -> None:
        self.key = timings.keys.lease(timings.replica)
        self.session = b""
        """What the key holds: how often this replica began anew, and when, by Redis's clock."""
        self._sessions = 0
        self._must_begin = True
        self._is_first_try = True
        self._commands = commands
        self._timings = timings
        self._pause = min(timings.lease / 4, NEWS_PATIENCE)
        self._up_since = time.monotonic()
        self._early = asyncio.Event()
        self._doubtful: list[tuple[bytes, ...]] = []

    @property
    def may_judge(self) -> bool:
        """Whether Redis has been up so long that others would have renewed their leases."""
        return time.monotonic() >= self._up_since + self._timings.lease

    async def take(self) -> None:
        """Begin a session.

        Raises `StoreError` when Redis refuses us, and what redis-py raises when it is away.
        """
        is_first_try, self._is_first_try = self._is_first_try, False
        try:
            if not self._commands.up:
                await self._commands.find()
            await self._commands.load_scripts()
            await self._begin_session()
            await self._undo_doubtful()
        except _REFUSALS as error:
            if will_pass(error) or self._may_be_accepted_later(error):
                raise
            raise StoreError(f"store.url: Redis refuses us: {describe(error)}") from error
        # Where Redis was away before, it may be another one that took over, up for long.
        self._up_since = time.monotonic() - (await self._uptime() if is_first_try else 0.0)
        self._must_begin = False
        self._commands.mark_up()

    async def keep(self, on_beat: Callable[[bool], Awaitable[None]]) -> None:
        """Renew the lease for ever.

        `on_beat` is called each time that Redis has answered, with True where what we wrote there
        may be gone.
        """
        while True:
            await self._wait()
            try:
                await on_beat(await self._beat())
            except (StoreError, Unavailable, *FAILURES) as error:
                self._commands.fail(error)

    async def watch(self, on_sleep: Callable[[], None]) -> None:
        """Call `on_sleep` each time that this replica has slept past its lease."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(self._pause)
            if time.monotonic() >= before + self._timings.lease:
                self._up_since = time.monotonic()  # nor do we know what happened to Redis
                on_sleep()

    def renew_now(self) -> None:
        """Renew it at once: something shows that it is gone."""
        self._early.set()

    def begin_anew(self) -> None:
        """Begin another session soon: it may be another Redis that answers now, or an older one."""
        self._must_begin = True
        self._early.set()

    def doubt(self, undo: tuple[bytes, ...]) -> None:
        """Take note of a command to be sent in the next session.

        It undoes what may or may not have been done in this one; in the next, it is not done.
        """
        self._doubtful.append(undo)

    async def give_up(self) -> None:
        """Let it expire now. Raises what redis-py raises."""
        await self._commands.exchange((b"DEL", self.key))

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._pause):
                await self._early.wait()
        except TimeoutError:
            pass
        self._early.clear()

    async def _beat(self) -> bool:
        """Renew the lease, in a new session if need be; tell whether anything may be gone."""
        was_up = self._commands.up
        if was_up and not self._must_begin:
            return not await self._renew()
        await self.take()
        if not was_up:
            _logger.info("Redis answers")
        return True

    async def _begin_session(self) -> None:
        ((seconds, microseconds),) = await self._commands.exchange((b"TIME",))
        self._sessions += 1
        now = int(seconds) * 1000 + int(microseconds) // 1000
        session = b"%d:%d" % (self._sessions, now)
        await self._set(session)
        self.session = session  # not before: what is sent in a session must find it there

    async def _renew(self) -> bool:
        """Set the key anew, and tell whether it was there."""
        return await self._set(self.session) is not None

    async def _set(self, session: bytes) -> object:
        """Set the key, and return what it was."""
        command = (b"SET", self.key, session, b"PX", self._timings.lease_ms, b"GET")
        (before,) = await self._commands.exchange(command)
        return before

    async def _undo_doubtful(self) -> None:
        if self._doubtful:
            await self._commands.exchange(*self._doubtful)
            self._doubtful.clear()

    def _may_be_accepted_later(self, error: Exception) -> bool:
        """Tell whether it was a token that Redis did not accept; another one will come."""
        refused = isinstance(error, AuthenticationError | AuthorizationError)
        return refused and self._commands.route.is_authenticated_by_token

    async def _uptime(self) -> float:
        """Return for how many seconds Redis has been up, 0 where it does not tell."""
        try:
            (info,) = await self._commands.exchange((b"INFO", b"server"))
        except ResponseError:
            return 0.0
        found = re.search(rb"uptime_in_seconds:(\d+)", info)
        return float(found[1]) if found else 0.0
