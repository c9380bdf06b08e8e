"""The line to Redis: commands go out in order, many at a time, and soon fail without an answer."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from agentws.protocol.errors import PlatformError
from agentws.stores.redis.connection import RedisConnection
from agentws.stores.redis.failures import FAILURES, TIMEOUT, describe, in_few_words, will_pass
from agentws.stores.redis.route import Route
from agentws.stores.redis.scripts import ALL, Script
from agentws.stores.redis.upkeep import Upkeep

_logger: Final = logging.getLogger("agentws.store")

MOST_COMMANDS: Final = 512
MOST_BYTES: Final = 1024 * 1024
"""How much goes out at a time."""

_LOADING: Final = tuple((b"SCRIPT", b"LOAD", script.text.encode()) for script in ALL)


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
        self, route: Route, on_failure: Callable[[], None], on_reopened: Callable[[], None]
    ) -> None:
        """Prepare for the Redis that `route` leads to.

        `on_failure` is called each time that the commands goes down, `on_reopened` each time that a
        connection was cut and another one serves instead: it may lead to another Redis.
        """
        self.route = route
        self.up = False
        self.trouble = "Redis has not answered yet"
        """What it is that keeps it down, where it is, in a few words without secrets."""
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()  # asking for it takes a system call on Python 3.11
        self._connection = RedisConnection(route, on_reopened)
        self._direct_connection = RedisConnection(route, on_reopened)
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

    async def exchange(self, *commands: tuple[bytes, ...]) -> list[Any]:
        """Send some commands past the queue, whether the commands is up or not.

        One task at a time may: who reads a reply takes it for its own. Raises what redis-py raises,
        and `TimeoutError`.
        """
        async with asyncio.timeout(TIMEOUT):
            return _granted(await self._direct_connection.send(commands))

    async def find(self) -> None:
        """Find the Redis that holds our keys. Raises what redis-py raises, and `TimeoutError`."""
        if await self.route.find():
            self._retire()

    async def ping(self) -> str:
        """Return what keeps Redis from answering, in a few words without secrets, if anything."""
        try:
            await self.exchange((b"PING",))
        except FAILURES as error:
            return in_few_words(error)
        return ""

    async def load_scripts(self) -> None:
        """Make all scripts known to Redis. Raises as `exchange`."""
        await self.exchange(*_LOADING)

    async def eviction_policy(self) -> str:
        """Return what Redis does when it is full, "" where it keeps that secret.

        Raises as `exchange`.
        """
        try:
            (info,) = await self.exchange((b"INFO", b"memory"))
        except ResponseError:
            return ""
        found = re.search(rb"maxmemory_policy:(\S+)", info)
        return found[1].decode() if found else ""

    def mark_up(self) -> None:
        """From now on, take commands."""
        self.up = True

    def fail(self, error: BaseException) -> None:
        """Take note that Redis does not answer."""
        self.route.note_failure(error)
        if not isinstance(error, Unavailable):
            self.trouble = in_few_words(error)
        if self.up:
            self.up = False
            self._retire()  # the name may stand for another server by now
            _logger.warning("Redis does not answer: %s", describe(error))
            self._on_failure()
        commands, self._queue = self._queue, []
        _refuse(commands)

    def _retire(self) -> None:
        self._connection.retire()
        self._direct_connection.retire()

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
                    _granted(await self._connection.send(_LOADING))
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
        errors = [reply for reply in replies if isinstance(reply, ResponseError)]
        outage = next(filter(will_pass, errors), None)
        for command, reply in zip(batch, replies, strict=True):
            is_none = outage is not None and will_pass(reply)
            _settle(command.reply, Unavailable() if is_none else reply)
        if outage is not None:
            self.fail(outage)


def running(script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the command that runs a script."""
    return (b"EVALSHA", script.digest, b"%d" % len(keys), *keys, *arguments)


def _granted(replies: list[Any]) -> list[Any]:
    """Return replies, none of which refuses; raise the first `ResponseError` that does."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


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
