"""One connection to Redis."""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from agentws.stores.redis.failures import NoToken, will_pass
from agentws.stores.redis.identity import Token
from agentws.stores.redis.route import Route

_pack: Final = cast(
    Callable[[tuple[bytes, ...]], bytes],  # where its types know of commands of one word only
    pack_command,
)


class RedisConnection:
    """Sends some commands at a time and reads their replies.

    After any trouble the connection is dropped, for nobody could tell to what the next reply on it
    belongs; redis-py itself keeps one whose handshake was interrupted. So it is after a reply that
    says "not me, not now": the next connection may lead to the Redis that has taken over.
    """

    def __init__(self, route: Route, on_reopened: Callable[[], None]) -> None:
        """`on_reopened` is called when a connection was cut and another one serves instead."""
        self._route = route
        self._on_reopened = on_reopened
        self._token: Token | None = None  # by which the connection is authenticated
        self._connection: AbstractConnection | None = None
        self._is_retired = False

    async def send(self, commands: Sequence[tuple[bytes, ...]]) -> list[Any]:
        """Return the replies, errors among them.

        A connection that was cut is opened anew, once: all that is sent may be sent twice. Raises
        what redis-py raises when there is no connection.
        """
        message = b"".join(map(_pack, commands))
        try:
            return await self._exchange(message, len(commands))
        except NoToken:
            raise
        except RedisConnectionError:
            replies = await self._exchange(message, len(commands))
            self._on_reopened()
            return replies

    def retire(self) -> None:
        """Have a new connection opened for what is sent next."""
        self._is_retired = True

    async def drop(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _exchange(self, message: bytes, count: int) -> list[Any]:
        if self._is_retired:
            await self.drop()
        token = self._route.token
        try:
            if self._connection is None:
                self._connection = self._route.new_connection()
                self._is_retired = False
                self._token = token  # or a newer one
            elif token is not None and token is not self._token:
                await self._authenticate(token)
            await self._connection.send_packed_command(message)
            return await self._read(self._connection, count)
        except BaseException:
            await self.drop()
            raise

    async def _read(self, connection: AbstractConnection, count: int) -> list[Any]:
        replies: list[Any] = []
        for _ in range(count):
            try:
                replies.append(await connection.read_response())
            except ResponseError as error:
                replies.append(error)
                if will_pass(error):
                    self.retire()
        return replies

    async def _authenticate(self, token: Token) -> None:
        """Authenticate anew, before the old token expires and Redis closes the connection."""
        assert self._connection is not None
        await self._connection.send_command("AUTH", token.user, token.text)
        await self._connection.read_response()
        self._token = token
