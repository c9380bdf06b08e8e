"""The queue between what arrives and who reads."""

import asyncio

import pytest

from agentws.client.events import Chunk, Reconnected
from agentws.client.feed import Feed


async def test_the_cursor_follows_the_reader() -> None:
    feed = Feed(4, cursor=7)
    feed.put(8, Chunk(8, "a"))
    feed.put(0, Reconnected(1, 0.5))
    assert feed.cursor == 7
    assert await feed.next() == Chunk(8, "a")
    assert await feed.next() == Reconnected(1, 0.5)
    assert feed.cursor == 8


async def test_it_has_room_for_so_many_and_tells_when_it_is_half_empty() -> None:
    feed, told = Feed(4, cursor=0), asyncio.Event()
    for number in range(1, 5):
        assert feed.has_room
        feed.put(number, Chunk(number, None))
    assert (feed.has_room, feed.is_crowded) == (False, True)
    feed.on_room = told.set
    await feed.next()
    assert not told.is_set()
    await feed.next()
    assert told.is_set()


async def test_losses_take_no_room_and_are_one_where_nobody_reads() -> None:
    feed = Feed(1, cursor=0)
    for _ in range(100):
        feed.put_loss(Reconnected(2, 0.25))
    assert feed.has_room
    feed.put(1, Chunk(1, None))
    feed.put_loss(Reconnected(1, 1.0))
    entries = [await feed.next() for _ in range(3)]
    assert entries == [Reconnected(200, 25.0), Chunk(1, None), Reconnected(1, 1.0)]


async def test_what_was_there_is_read_before_the_failure_that_ended_it() -> None:
    feed = Feed(4, cursor=0)
    feed.put(1, Chunk(1, None))
    feed.end(ValueError("first"))
    feed.end(ValueError("second"))
    assert await feed.next() == Chunk(1, None)
    for _ in range(2):
        with pytest.raises(ValueError, match="first"):
            await feed.next()
    assert feed.was_read


async def test_what_is_discarded_ends_at_once_and_quietly() -> None:
    feed = Feed(4, cursor=0)
    waiting = asyncio.create_task(feed.next())
    await asyncio.sleep(0)
    feed.discard()
    assert await waiting is None
    feed = Feed(4, cursor=0)
    feed.put(1, Chunk(1, None))
    feed.end(ValueError("never seen"))
    feed.discard()
    assert await feed.next() is None
