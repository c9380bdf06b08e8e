"""This replica's sign of life in Redis."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    InvalidResponse,
    ReadOnlyError,
    ResponseError,
)

from agentws.stores import StoreError
from agentws.stores.redis import scripts
from agentws.stores.redis.link import FAILURES, Link, Unavailable, describe
from agentws.stores.redis.terms import NEWS_PATIENCE, Terms

_logger: Final = logging.getLogger("agentws.store")

_REFUSALS: Final = (AuthenticationError, AuthorizationError, InvalidResponse, ResponseError)


class Lease:
    """A key that expires unless it is renewed; and what is concluded when it was not.

    Each time Redis comes back, a new session begins. A replica that slept past its lease, because
    its process was stopped or a handler blocked it, learns it from its own clock: others may have
    given its invocations up. A lease that ran out while Redis was away means nothing.
    """

    def __init__(self, link: Link, terms: Terms) -> None:
        self.key = scripts.lease_key(terms.replica)
        self.session = b""
        """What the key holds: the number of times that this replica had to begin anew."""
        self._sessions = 0
        self._link = link
        self._terms = terms
        self._pause = min(terms.lease / 4, NEWS_PATIENCE)
        self._up_since = time.monotonic()
        self._early = asyncio.Event()
        self._doubtful: list[Sequence[bytes]] = []

    @property
    def may_judge(self) -> bool:
        """Whether Redis has been up so long that others would have renewed their leases."""
        return time.monotonic() >= self._up_since + self._terms.lease

    async def take(self) -> None:
        """Begin a session.

        Raises `StoreError` when Redis refuses us, and what redis-py raises when it is away.
        """
        try:
            await self._link.load_scripts()
            self._sessions += 1
            self.session = b"%d" % self._sessions
            await self._renew()
            await self._undo_doubtful()
        except ReadOnlyError:  # a fail-over is under way
            raise
        except _REFUSALS as error:
            raise StoreError(f"store.url: Redis refuses us: {describe(error)}") from error
        except TypeError as error:  # only now does redis-py look at the query of the URL
            raise StoreError(f"store.url has an unknown option: {error}") from error
        self._up_since = time.monotonic() - (await self._uptime() if self._sessions == 1 else 0.0)
        self._link.raise_up()

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
                self._link.fail(error)

    async def watch(self, on_sleep: Callable[[], None]) -> None:
        """Call `on_sleep` each time that this replica has slept past its lease."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(self._pause)
            if time.monotonic() >= before + self._terms.lease:
                self._up_since = time.monotonic()  # nor do we know what happened to Redis
                on_sleep()

    def renew_now(self) -> None:
        """Renew it at once: something shows that it is gone."""
        self._early.set()

    def doubt(self, undo: Sequence[bytes]) -> None:
        """Take note of a command to be sent in the next session.

        It undoes what may or may not have been done in this one; in the next, it is not done.
        """
        self._doubtful.append(undo)

    async def give_up(self) -> None:
        """Let it expire now. Raises what redis-py raises."""
        await self._link.exchange((b"DEL", self.key))

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._pause):
                await self._early.wait()
        except TimeoutError:
            pass
        self._early.clear()

    async def _beat(self) -> bool:
        """Renew the lease, in a new session if need be; tell whether it had run out."""
        if self._link.up:
            return not await self._renew()
        await self.take()
        _logger.info("Redis answers")
        return True

    async def _renew(self) -> bool:
        """Set the key, and tell whether it was there."""
        (before,) = await self._link.exchange(
            (b"SET", self.key, self.session, b"PX", self._terms.lease_ms, b"GET")
        )
        return before is not None

    async def _undo_doubtful(self) -> None:
        if self._doubtful:
            await self._link.exchange(*self._doubtful)
            self._doubtful.clear()

    async def _uptime(self) -> float:
        """Return for how many seconds Redis has been up, 0 where it does not tell."""
        try:
            (info,) = await self._link.exchange((b"INFO", b"server"))
        except ResponseError:
            return 0.0
        found = re.search(rb"uptime_in_seconds:(\d+)", info)
        return float(found[1]) if found else 0.0
