"""The line to Redis: commands go out in order, many at a time, and soon fail without an answer."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from agentws.protocol.errors import PlatformError
from agentws.stores.redis.connection import (
    RedisConnection,
    in_few_words,
    new_connection,
    will_pass,
)
from agentws.stores.redis.scripts import ALL, Script
from agentws.stores.redis.upkeep import Upkeep

_logger: Final = logging.getLogger("agentws.store")

TIMEOUT: Final = 1.4
"""Seconds for which Redis may keep us waiting. Who has to wait for others before him waits twice
as long at most, which is within the 3 s of §10."""

MOST_COMMANDS: Final = 512
MOST_BYTES: Final = 1024 * 1024
"""How much goes out at a time."""

FAILURES: Final = (RedisError, OSError, TimeoutError)


class Unavailable(PlatformError):
    """Redis is away, or cannot do its work."""

    def __init__(self) -> None:
        super().__init__("store_unavailable", "The store of invocations does not answer")


class Unheard(Unavailable):
    """Redis went away before it answered: nobody knows whether it did what it was asked for."""


class _Command(NamedTuple):
    arguments: tuple[bytes, ...]
    reply: "asyncio.Future[Any]"
    size: int


class Commands:
    """Connections to one Redis.

    It is up from `mark_up` on until a command finds no answer; then everything that waits fails,
    and whatever is asked for fails at once, until it is up again.
    """

    def __init__(
        self, url: str, on_failure: Callable[[], None], on_reopened: Callable[[], None]
    ) -> None:
        """Prepare for `url`.

        `on_failure` is called each time that the commands goes down, `on_reopened` each time that a
        connection was cut and another one serves instead: it may lead to another Redis.

        Raises `ValueError` when the URL is malformed, or has options that are not for it to set.
        """
        self.pool = _pool(url)
        self.up = False
        self.trouble = "Redis has not answered yet"
        """What it is that keeps it down, where it is, in a few words without secrets."""
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()  # asking for it takes a system call on Python 3.11
        self._connection = RedisConnection(self.pool, on_reopened)
        self._direct_connection = RedisConnection(self.pool, on_reopened)
        self._queue: list[_Command] = []
        self._wanted = asyncio.Event()
        self._worker = Upkeep(self._work)

    def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes],
        size: int = 0,
    ) -> "asyncio.Future[Any]":
        """Have Redis run a script; see `call`."""
        return self.call(*running(script, keys, arguments), size=size)

    def call(self, *command: bytes, size: int = 0) -> "asyncio.Future[Any]":
        """Send a command after those before it, and return what will hold its reply.

        `size` is the number of bytes in it, where they are many.

        Raises `Unavailable`, now or from the future, which may hold a `ResponseError` as well.
        """
        if not self.up:
            raise Unavailable
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._queue.append(_Command(command, reply, size))
        self._wanted.set()
        return reply

    def waiter(self) -> "asyncio.Future[None]":
        """Return a future of the event loop that the commands belongs to."""
        return self._loop.create_future()

    def call_soon(self, step: Callable[[], None]) -> None:
        """Have something done in the next turn of the event loop."""
        self._loop.call_soon(step)

    def call_later(self, seconds: float, step: Callable[[], None]) -> asyncio.TimerHandle:
        """Have something done after so many seconds."""
        return self._loop.call_later(seconds, step)

    async def exchange(self, *commands: Sequence[bytes]) -> list[Any]:
        """Send some commands past the queue, whether the commands is up or not.

        Raises what redis-py raises, and `TimeoutError`.
        """
        async with asyncio.timeout(TIMEOUT):
            replies = await self._direct_connection.send(commands)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply
        return replies

    async def load_scripts(self) -> None:
        """Make all scripts known to Redis. Raises as `exchange`."""
        await self.exchange(*((b"SCRIPT", b"LOAD", script.text.encode()) for script in ALL))

    def mark_up(self) -> None:
        """From now on, take commands."""
        self.up = True

    def fail(self, error: BaseException) -> None:
        """Take note that Redis does not answer."""
        if not isinstance(error, Unavailable):
            self.trouble = in_few_words(error)
        if self.up:
            self.up = False
            self._connection.retire()  # the name may stand for another server by now
            self._direct_connection.retire()
            _logger.warning("Redis does not answer: %s", describe(error))
            self._on_failure()
        commands, self._queue = self._queue, []
        _refuse(commands)

    def end(self) -> None:
        """Send nothing more of what waits in the queue."""
        self._worker.end()

    async def close(self) -> None:
        """Close all connections, after `end`."""
        self.up = False
        await self._worker.ended()
        _refuse(self._queue)
        with contextlib.suppress(*FAILURES):
            await self._connection.drop()
            await self._direct_connection.drop()

    async def _work(self) -> None:
        while True:
            await self._wanted.wait()
            while self._queue:
                await self._send(self._next_batch())
            self._wanted.clear()

    def _next_batch(self) -> list[_Command]:
        count = size = 0
        while size < MOST_BYTES and count < min(MOST_COMMANDS, len(self._queue)):
            size += self._queue[count].size
            count += 1
        batch = self._queue[:count]
        del self._queue[:count]
        return batch

    async def _send(self, batch: list[_Command]) -> None:
        commands = [command.arguments for command in batch]
        try:
            async with asyncio.timeout(TIMEOUT):
                replies = await self._connection.send(commands)
                if any(isinstance(reply, NoScriptError) for reply in replies):  # it was restarted
                    await self.load_scripts()
                    replies = await self._connection.send(commands)
        except FAILURES as error:
            _refuse(batch)
            self.fail(error)
        except BaseException:
            _refuse(batch)
            raise
        else:
            self._settle_all(batch, replies)

    def _settle_all(self, batch: Sequence[_Command], replies: Sequence[Any]) -> None:
        """Hand out replies; those that say "not me, not now" are no replies, but an outage."""
        outage = next(filter(will_pass, replies), None)
        for command, reply in zip(batch, replies, strict=True):
            _settle(command.reply, Unavailable() if will_pass(reply) else reply)
        if outage is not None:
            self.fail(outage)


_OPTIONS: Final = ("client_name", "db", "password", "socket_keepalive", "username")
"""What a URL may set, besides `ssl_…`; most of the rest would be set against us."""

_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


def _pool(url: str) -> ConnectionPool:
    """Return what makes connections. Raises `ValueError`."""
    for option, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items():
        if option not in _OPTIONS and not option.startswith("ssl_"):
            known = ", ".join((*_OPTIONS, "ssl_…"))
            raise ValueError(f"{option!r} is no option for it; these are: {known}")
        if option in _FILES and not os.path.exists(values[0]):
            raise ValueError(f"{option} names {values[0]!r}, which is not there")
    pool: ConnectionPool = ConnectionPool.from_url(
        url,
        protocol=2,
        socket_timeout=None,  # it would set a timer for each reply; ours is for all together
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        new_connection(pool)
    except TypeError as error:
        raise ValueError("it has an option of TLS that is none, or not for redis://") from error
    except RedisError as error:
        raise ValueError(str(error)) from error
    return pool


def running(script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the command that runs a script."""
    return (b"EVALSHA", script.digest, b"%d" % len(keys), *keys, *arguments)


def describe(error: BaseException) -> str:
    """Return what a failure says of itself, or its name if it says nothing."""
    return str(error) or type(error).__name__


def is_wrong_type(error: ResponseError) -> bool:
    """Tell whether there is something else under a key than we would put there."""
    return "WRONGTYPE" in str(error)  # a script's error begins with the place in the script


def _refuse(commands: list[_Command]) -> None:
    for command in commands:
        _settle(command.reply, Unheard())


def _settle(reply: "asyncio.Future[Any]", outcome: object) -> None:
    if reply.done():  # whoever waited for it has left
        return
    if isinstance(outcome, Exception):
        reply.set_exception(outcome)
        reply.exception()  # not everybody who asks wants to know
    else:
        reply.set_result(outcome)
