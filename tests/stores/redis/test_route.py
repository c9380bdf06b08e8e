"""What nodes of a cluster say of where they are, in all the ways there are (§10)."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ClusterDownError, MovedError

from agentws.stores.redis.keys import Keys
from agentws.stores.redis.route import Address, Route
from tests.support.certificates import certificate

Slots = list[Any]


class Node:
    """Tells all who ask the same of its cluster, and takes no notice of what else they say."""

    def __init__(self, slots: Slots | Exception) -> None:
        self.slots = slots
        self.port = 0
        self.asked = 0
        self.hangs = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while message := await reader.read(1024):
            if self.hangs:
                continue
            writer.write(b"+OK\r\n" * message.count(b"SETINFO"))
            if b"SLOTS" in message:
                self.asked += 1
                writer.write(resp(self.slots))
        writer.close()


def resp(value: object) -> bytes:
    """Encode a reply."""
    match value:
        case Exception():
            return b"-%b\r\n" % str(value).encode()
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % value
        case str():
            return b"$%d\r\n%b\r\n" % (len(value), value.encode())
        case list():
            return b"*%d\r\n%b" % (len(value), b"".join(map(resp, value)))
    raise TypeError


@asynccontextmanager
async def listening(
    slots: Slots | Exception, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Node]:
    node = Node(slots)
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        node.port = server.sockets[0].getsockname()[1]
        yield node


def all_slots(*owner: object) -> Slots:
    return [[0, 16383, list(owner)]]


@pytest.mark.parametrize("host", [None, "", "?"])
async def test_a_node_that_does_not_know_where_it_is_is_where_it_was_asked(host: str) -> None:
    async with listening(all_slots(host, 7001, "name", ["ip", "10.0.0.1"])) as node:
        route = Route(f"redis://localhost:{node.port}", Keys("agentws"))
        assert await route.find()
        assert route.address == Address("localhost", 7001)


async def test_without_tls_the_preferred_endpoint_is_taken() -> None:
    slots = all_slots("10.0.0.1", 7001, "name", ["hostname", "redis-1.example"])
    async with listening(slots) as node:
        route = Route(f"redis://localhost:{node.port}", Keys("agentws"))
        await route.find()
        assert route.address == Address("10.0.0.1", 7001)


@pytest.mark.parametrize(
    ("owner", "found"),
    [
        pytest.param(
            ("10.0.0.1", 7001, "name", ["hostname", "redis-1.example"]), "redis-1.example", id="7"
        ),
        pytest.param(("redis-1.example", 7001, "name"), "redis-1.example", id="a name"),
        pytest.param(("127.0.0.1", 7001, "name"), "localhost", id="the URL's own address"),
        pytest.param(("10.0.0.1", 7001, "name"), "10.0.0.1", id="another address"),
    ],
)
async def test_with_tls_a_name_is_taken_where_there_is_one(
    tmp_path: Path, owner: tuple[object, ...], found: str
) -> None:
    async with listening(all_slots(*owner), certificate(tmp_path)) as node:
        url = f"rediss://localhost:{node.port}?ssl_ca_certs={tmp_path / 'server.pem'}"
        route = Route(url, Keys("agentws"))
        await route.find()
        assert route.address == Address(found, 7001)


async def test_of_many_ranges_the_owner_of_our_slot_is_taken() -> None:
    slots = [[0, 1746, ["a", 1, "x"]], [1747, 1747, ["b", 2, "y"], ["c", 3, "z"]]]
    async with listening(slots) as node:
        route = Route(f"redis://127.0.0.1:{node.port}", Keys("agentws"))
        await route.find()
        assert route.address == Address("b", 2)
        other = Route(f"redis://127.0.0.1:{node.port}", Keys("another"))
        with pytest.raises(ClusterDownError):
            await other.find()


@pytest.mark.parametrize(
    "refusal", ["ERR This instance has cluster support disabled", "ERR not allowed", "NOPERM no"]
)
async def test_what_knows_of_no_cluster_is_a_single_server(refusal: str) -> None:
    async with listening(Exception(refusal)) as node:
        route = Route(f"redis://127.0.0.1:{node.port}", Keys("agentws"))
        assert not await route.find()
        assert route.address == Address("127.0.0.1", node.port)


async def test_who_says_that_the_slot_has_moved_is_asked_where() -> None:
    async with listening([]) as first, listening([]) as second:
        old, new = all_slots("127.0.0.1", first.port), all_slots("127.0.0.1", second.port)
        first.slots = second.slots = old
        route = Route(f"redis://127.0.0.1:{second.port}", Keys("agentws"))
        await route.find()
        first.slots = new  # which the other does not know yet
        second.asked = 0
        route.note_failure(MovedError(f"1747 127.0.0.1:{second.port}"))
        assert await route.find()
        assert (route.address.port, second.asked) == (second.port, 0)


async def test_who_knows_of_another_owner_than_the_one_that_failed_is_believed() -> None:
    async with listening([]) as first, listening([]) as second:
        owners = [["127.0.0.1", first.port], ["127.0.0.1", second.port]]
        first.slots = second.slots = [[0, 16383, *owners]]
        route = Route(f"redis://127.0.0.1:{first.port}", Keys("agentws"))
        assert not await route.find()
        second.slots = [[0, 16383, *reversed(owners)]]  # the first, cut off, believes in itself
        route.note_failure(TimeoutError())
        assert await route.find()
        assert route.address.port == second.port


async def test_of_an_owner_that_hangs_nobody_is_believed_that_it_is_one() -> None:
    async with listening([]) as first, listening([]) as second:
        owners = [["127.0.0.1", first.port], ["127.0.0.1", second.port]]
        first.slots = second.slots = [[0, 16383, *owners]]
        route = Route(f"redis://127.0.0.1:{second.port}", Keys("agentws"))
        assert await route.find()
        first.hangs = True
        route.note_failure(TimeoutError())
        with pytest.raises(TimeoutError):
            await route.find()
        second.slots = [[0, 16383, *reversed(owners)]]  # it has been elected
        assert await route.find()
        assert route.address.port == second.port
