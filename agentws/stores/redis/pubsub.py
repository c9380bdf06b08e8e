"""What replicas tell each other through Redis: requests, and hints that there is news.

Pub/sub delivers at most once. So nothing depends on a single message: a request is repeated until
its effect shows, and who waits for news looks from time to time without any.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct
from redis.asyncio.connection import AbstractConnection

from agentws.protocol.inputs import Delivery
from agentws.protocol.records import Failure
from agentws.stores.redis.failures import FAILURES, TIMEOUT
from agentws.stores.redis.identity import Token
from agentws.stores.redis.route import Route

_logger: Final = logging.getLogger("agentws.store")


class RemoteCancel(Struct, tag="cancel"):
    """Cancel an invocation that the receiver runs, for a client or for another that takes over."""

    invocation_id: str
    superseded_by: str | None = None


class RemotePosition(Struct, tag="attend"):
    """Somebody listens to an invocation that the receiver runs, on the replica that says so.

    All chunks up to `position` have arrived there; None when nobody listens there any more.
    """

    invocation_id: str
    replica: str
    position: int | None


class RemoteInput(Struct, tag="input"):
    """Hand an input to an invocation that the receiver runs, and tell `replica` what came of it.

    It may be sent several times under the same name.
    """

    invocation_id: str
    replica: str
    name: str
    delivery: Delivery


class RemoteReceipt(Struct, tag="receipt"):
    """What came of the input of that name.

    `failure` tells why it was refused; `is_gone` that its invocation does not run here.
    """

    name: str
    failure: Failure | None = None
    is_gone: bool = False


Message = RemoteCancel | RemotePosition | RemoteInput | RemoteReceipt
_messages: Final[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message)


def read_message(data: bytes) -> Message | None:
    """Decode a message; None for anything else that came on the channel."""
    try:
        return _messages.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


OnMessage = Callable[[bytes], None]


class Subscriptions:
    """The channels that this replica listens to, on one connection of their own.

    Not redis-py's `PubSub`: when a subscription fails, that opens a new connection under whoever
    reads from the old one.
    """

    def __init__(self, route: Route, on_failure: Callable[[BaseException], None]) -> None:
        self._route = route
        self._on_failure = on_failure
        self._channels: dict[bytes, OnMessage] = {}
        self._connection: AbstractConnection | None = None
        self._token: Token | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def is_outdated(self) -> bool:
        """Whether there is a newer token: a connection that listens takes no other."""
        return self._token is not self._route.token

    async def open(self) -> None:
        """Listen, on a new connection, to all channels. Raises what redis-py raises.

        The old connection is read from until the new one is there, so that nothing is missed while
        there is but a new token.
        """
        old, self._reader = self._reader, None
        token = self._route.token
        connection = self._route.new_connection()
        try:
            async with asyncio.timeout(TIMEOUT):
                await connection.connect()  # type: ignore[no-untyped-call]
                self._connection = connection  # so what changes from now on, changes there
                await connection.send_command("SUBSCRIBE", *self._channels)
        except BaseException:
            if connection is self._connection:
                self._connection = None
            await connection.disconnect(nowait=True)
            raise
        else:
            self._token = token
            self._reader = asyncio.create_task(self._read(connection))
        finally:
            await _end(old)

    async def subscribe(self, channel: bytes, on_message: OnMessage) -> None:
        """Listen to one more channel; without a connection, as soon as there is one."""
        self._channels[channel] = on_message
        await self._change("SUBSCRIBE", channel)

    async def unsubscribe(self, channel: bytes) -> None:
        """Listen to one channel less."""
        if self._channels.pop(channel, None) is not None:
            await self._change("UNSUBSCRIBE", channel)

    async def close(self) -> None:
        """Close the connection."""
        reader, self._reader = self._reader, None
        await _end(reader)

    async def _change(self, command: str, channel: bytes) -> None:
        if self._connection is None:
            return
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._connection.send_command(command, channel)
        except FAILURES as error:
            self._on_failure(error)

    async def _read(self, connection: AbstractConnection) -> None:
        try:
            while True:
                match await connection.read_response():
                    case [b"message", channel, data] if channel in self._channels:
                        self._channels[channel](data)
        except FAILURES as error:
            if connection is self._connection:
                self._on_failure(error)
        finally:
            if connection is self._connection:
                self._connection = None
            await connection.disconnect(nowait=True)


async def _end(reader: "asyncio.Task[None] | None") -> None:
    if reader is not None:
        reader.cancel()
        await asyncio.wait({reader})
