"""The way to the Redis that holds our keys: the server of the URL, or a node of its cluster.

All keys are in one slot, so no client of clusters is needed: whoever owns the slot is a Redis like
any other, and its connections are made as the URL says, but to its host and port.
"""

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit, urlunsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError, RedisError, ResponseError

from agentws.stores.redis.failures import FAILURES, TIMEOUT, will_pass
from agentws.stores.redis.identity import Identity, Token
from agentws.stores.redis.keys import Keys

_logger: Final = logging.getLogger("agentws.store")

ANSWER_PATIENCE: Final = 1.0
"""Seconds for which a node may think about who owns the slot."""

MOST_ASKED: Final = 9
"""How many nodes are asked at a time."""

_OPTIONS: Final = ("client_name", "db", "password", "socket_keepalive", "username")
"""What a URL may set, besides `ssl_…`; most of the rest would be set against us."""

_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


class Address(NamedTuple):
    """Where a Redis listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class View(NamedTuple):
    """What a node says of its cluster."""

    owner: Address
    """Who owns our slot."""
    nodes: frozenset[Address]


class Route:
    """Makes connections, and finds out where to.

    The node that answered `MOVED` knows who owns the slot now, so it is asked. Otherwise all nodes
    are that are known, at the same time, since any of them may be dead; and that the owner is still
    the one that has just failed is believed of nobody but itself: of one that hangs, others say so
    until they have elected another.
    """

    def __init__(self, url: str, keys: Keys, identity: Identity | None = None) -> None:
        """Prepare for the Redis of a URL; `identity` authenticates, where it is not the URL.

        Raises `ValueError` when the URL is malformed, or has options that are not for it to set.
        """
        self._url = url
        self._identity = identity
        self._keys = keys
        parts = urlsplit(url)
        named = parse_qs(parts.query).keys() & {"username", "password"}
        if identity and ("@" in parts.netloc or named):
            raise ValueError("it should have no user and password where store.auth is entra")
        self._pool = self._pool_of(url)
        self._is_tls = parts.scheme == "rediss"
        self._seed = self.address = Address(parts.hostname or "", parts.port or 6379)
        self._failed: Address | None = None
        self._has_moved = False
        self._view: View | None = None
        self._is_found = False

    @property
    def token(self) -> Token | None:
        """What connections have to be authenticated with by now, None where it never changes."""
        return self._identity.token if self._identity else None

    @property
    def is_authenticated_by_token(self) -> bool:
        """Whether what Redis refuses today, it may accept tomorrow."""
        return self._identity is not None

    def new_connection(self) -> AbstractConnection:
        """Return a connection that is not open yet and belongs to nobody else."""
        return _connection_of(self._pool)

    def note_failure(self, error: BaseException) -> None:
        """Take note that the Redis that this leads to does not do its work."""
        self._failed = self.address
        self._has_moved = isinstance(error, MovedError)

    async def find(self) -> bool:
        """Find out where the slot is; tell whether it is elsewhere than before.

        Raises what redis-py raises, and `TimeoutError`.
        """
        before = self.address
        view = await self._ask(self._whom_to_ask())
        self._tell(view)
        self._view, self._failed, self._has_moved = view, None, False
        self.address = view.owner if view else self._seed
        if self.address != before:
            self._pool = self._pool_to(self.address)
        return self.address != before

    def _whom_to_ask(self) -> Sequence[Address]:
        if self._has_moved:
            return (self.address,)
        nodes = self._view.nodes if self._view else ()
        return list(dict.fromkeys((self.address, self._seed, *nodes)))[:MOST_ASKED]

    async def _ask(self, addresses: Sequence[Address]) -> View | None:
        asked = [asyncio.create_task(self._ask_one(address)) for address in addresses]
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    view = await answer
                except FAILURES:
                    continue
                if view is None or view.owner != self._failed:
                    return view
            return asked[0].result()
        finally:
            for task in asked:
                task.cancel()
            await asyncio.wait(asked)
            for task in asked:
                if not task.cancelled():
                    task.exception()  # it has been looked at

    async def _ask_one(self, address: Address) -> View | None:
        """Return what a server says of its cluster, None where it is none.

        By `CLUSTER SLOTS`: it is older than `CLUSTER SHARDS`, and is spoken wherever that is.
        """
        connection = _connection_of(self._pool_to(address))
        try:
            async with asyncio.timeout(ANSWER_PATIENCE):
                await connection.send_command("CLUSTER", "SLOTS")
                slots = await connection.read_response()
        except ResponseError as error:
            if will_pass(error):
                raise
            return None
        finally:
            await connection.disconnect(nowait=True)
        async with asyncio.timeout(ANSWER_PATIENCE):  # names may have to be looked up
            return await self._read(slots, address)

    async def _read(self, slots: Sequence[Any], asked: Address) -> View:
        """Read the reply to `CLUSTER SLOTS`. Raises `ClusterDownError` where nobody owns ours."""
        ours = key_slot(self._keys.root)
        members = {_place(member): member for _, _, *its in slots for member in its}
        addresses = {place: await self._address(member, asked) for place, member in members.items()}
        for first, last, owner, *_ in slots:
            if first <= ours <= last:
                return View(addresses[_place(owner)], frozenset(addresses.values()))
        raise ClusterDownError("No node of the cluster serves our slot")

    async def _address(self, member: Sequence[Any], asked: Address) -> Address:
        """Return where a node is: under the name that it announces, where TLS needs one."""
        host, port, *rest = member
        name = host.decode() if host else ""
        if name in ("", "?"):  # the node does not know: it is where this one was found
            return Address(asked.host, port)
        if self._is_tls and _is_ip(name):
            name = _hostname(rest) or await self._name_of(name)
        return Address(name, port)

    async def _name_of(self, ip: str) -> str:
        """Return the URL's host where it stands for that address, too.

        Azure announces the nodes by the one address that they share, with a port for each, and
        its certificates know nothing but names.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._seed.host, None, type=socket.SOCK_STREAM)
        except OSError:
            return ip
        return self._seed.host if any(info[4][0] == ip for info in found) else ip

    def _tell(self, view: View | None) -> None:
        """Say in the log what was found, where it is another than before."""
        if self._is_found and self._view == view:
            return
        self._is_found = True
        if view is None:
            _logger.info("Redis is a single server")
            return
        count = len(view.nodes)
        _logger.info(
            "Redis is a cluster of %d %s: %s owns the slot of %s",
            *(count, "node" if count == 1 else "nodes", view.owner, self._keys.root.decode()),
        )

    def _pool_to(self, address: Address) -> ConnectionPool:
        parts = urlsplit(self._url)
        user, at, _ = parts.netloc.rpartition("@")
        return self._pool_of(urlunsplit(parts._replace(netloc=f"{user}{at}{address}")))

    def _pool_of(self, url: str) -> ConnectionPool:
        """Return what makes connections. Raises `ValueError`."""
        _check_options(url)
        credentials = {"credential_provider": self._identity} if self._identity else {}
        pool: ConnectionPool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # it would set a timer for each reply; ours is for all together
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            **credentials,
        )
        try:
            _connection_of(pool)
        except TypeError as error:
            raise ValueError("it has an option of TLS that is none, or not for redis://") from error
        except RedisError as error:
            raise ValueError(str(error)) from error
        return pool


def _check_options(url: str) -> None:
    for option, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items():
        if option not in _OPTIONS and not option.startswith("ssl_"):
            known = ", ".join((*_OPTIONS, "ssl_…"))
            raise ValueError(f"{option!r} is no option for it; these are: {known}")
        if option in _FILES and not os.path.exists(values[0]):
            raise ValueError(f"{option} names {values[0]!r}, which is not there")


def _connection_of(pool: ConnectionPool) -> AbstractConnection:
    return pool.make_connection()  # type: ignore[no-untyped-call, no-any-return]


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _place(member: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(member[:2])


def _hostname(rest: Sequence[Any]) -> str:
    """Return the name among what a node announces besides its address (Redis 7), or nothing."""
    details = rest[1] if len(rest) > 1 else []
    named = dict(zip(details[::2], details[1::2], strict=False))
    return bytes(named.get(b"hostname", b"")).decode()
