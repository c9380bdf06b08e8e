"""The line to Redis, where several tasks want something at a time."""

import asyncio

from agentws.stores.redis import scripts
from agentws.stores.redis.commands import Commands
from agentws.stores.redis.keys import Keys
from agentws.stores.redis.route import Route
from tests.support.redis_server import RedisServer


async def test_scripts_that_redis_has_forgotten_are_loaded_while_a_lease_is_renewed(
    own_redis: RedisServer,
) -> None:
    names = Keys("agentws")
    commands = Commands(Route(own_redis.url, names), lambda: None, lambda: None)
    await commands.load_scripts()
    commands.mark_up()

    async def renew() -> None:
        while True:
            assert await commands.exchange((b"PING",)) == [b"PONG"]

    renewing = asyncio.create_task(renew())
    keys = names.record("i"), names.chunks("i")
    try:
        for _ in range(20):
            own_redis.client.script_flush()
            await commands.run(scripts.KEEP, keys, (b"claim", b"1000", names.root, b"i"))
            assert not renewing.done()
    finally:
        renewing.cancel()
        await asyncio.wait({renewing})
        commands.end()
        await commands.close()
