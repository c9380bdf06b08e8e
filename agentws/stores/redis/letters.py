"""What replicas tell each other through Redis: requests, and hints that there is news.

Pub/sub delivers at most once. So nothing depends on a single message: a request is repeated until
its effect shows, and who waits for news looks from time to time without any.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from agentws.stores.redis.link import FAILURES

_logger: Final = logging.getLogger("agentws.store")


class Cancel(Struct, tag="cancel"):
    """Cancel an invocation that the receiver runs."""

    invocation_id: str


class Attend(Struct, tag="attend"):
    """Somebody listens to an invocation that the receiver runs, on the replica that says so.

    All chunks up to `position` have arrived there; None when nobody listens there any more.
    """

    invocation_id: str
    replica: str
    position: int | None


Letter = Cancel | Attend
_letters: Final[msgspec.json.Decoder[Letter]] = msgspec.json.Decoder(Letter)


def read_letter(data: bytes) -> Letter | None:
    """Decode a letter; None for anything else that came on the channel."""
    try:
        return _letters.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


OnMessage = Callable[[bytes], None]


class Mailbox:
    """The channels that this replica listens to, on one connection of their own."""

    def __init__(self, redis: Redis, on_failure: Callable[[BaseException], None]) -> None:
        self._redis = redis
        self._on_failure = on_failure
        self._channels: dict[bytes, OnMessage] = {}
        self._pubsub: PubSub | None = None
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen, on a new connection, to all channels. Raises what redis-py raises."""
        await self.close()
        self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        await self._pubsub.subscribe(*self._channels)
        self._reader = asyncio.create_task(self._read(self._pubsub))

    async def subscribe(self, channel: bytes, on_message: OnMessage) -> None:
        """Listen to one more channel; without a connection, as soon as there is one."""
        self._channels[channel] = on_message
        await self._change(channel, PubSub.subscribe)

    async def unsubscribe(self, channel: bytes) -> None:
        """Listen to one channel less."""
        if self._channels.pop(channel, None) is not None:
            await self._change(channel, PubSub.unsubscribe)

    async def close(self) -> None:
        """Close the connection."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
            self._reader = None
        if self._pubsub is not None:
            pubsub, self._pubsub = self._pubsub, None
            with contextlib.suppress(*FAILURES):
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _change(
        self, channel: bytes, change: Callable[[PubSub, bytes], Awaitable[None]]
    ) -> None:
        if self._pubsub is None:
            return
        try:
            await change(self._pubsub, channel)
        except FAILURES as error:
            self._on_failure(error)

    async def _read(self, pubsub: PubSub) -> None:
        try:
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
                if message is not None and message["type"] == "message":
                    self._deliver(message["channel"], message["data"])
        except FAILURES as error:
            self._on_failure(error)

    def _deliver(self, channel: bytes, data: bytes) -> None:
        if (on_message := self._channels.get(channel)) is not None:
            on_message(data)
