"""A platform that hands out tokens, and a Redis that takes each until it ends."""

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from tests.support.redis_server import RedisServer

OBJECT_ID: Final = "0b7d6c3e-2f0f-4f2e-9c53-6d1c3f0a5b11"

_AUTH: Final = re.compile(rb"AUTH\r\n\$\d+\r\n[^\r]+\r\n\$\d+\r\n([^\r]+)\r\n")


class Platform:
    """Gives a new token when half of the last one's time is over, and the last one before.

    The user of its Redis has the newest token for a password, and no other.
    """

    def __init__(self, redis: RedisServer, life: int) -> None:
        self.redis = redis
        self.life = life
        self.url = ""
        self.is_down = False
        self.is_unknown = False
        """Whether Redis does not know the identity."""
        self.claims: dict[str, object] = {"oid": OBJECT_ID}
        self.client_ids: set[str | None] = set()
        self.tokens: list[str] = []
        self.refused = 0
        """How often it was asked while it was down."""
        self._ends = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer as App Service and Container Apps do."""
        assert request.headers["X-IDENTITY-HEADER"] == "secret"
        assert request.query["resource"] == "https://redis.azure.com"
        self.client_ids.add(request.query.get("client_id"))
        if self.is_down:
            self.refused += 1
            return web.json_response({"statusCode": 500, "message": "not now"}, status=500)
        if time.time() >= self._ends - self.life / 2:
            self._issue()
        return web.json_response({"access_token": self.tokens[-1], "expires_on": str(self._ends)})

    def _issue(self) -> None:
        self._ends = int(time.time()) + self.life
        claims = {**self.claims, "number": len(self.tokens)}
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        self.tokens.append(f"{self._ends}.{payload}.signature")
        if not self.is_unknown:
            self.admit()

    def admit(self) -> None:
        """Have Redis know the identity by its newest token, and by no other."""
        self.redis.client.acl_setuser(
            OBJECT_ID,
            enabled=True,
            reset_passwords=True,
            passwords=[f"+{self.tokens[-1]}"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
        )


class Door:
    """Cuts connections whose last token has ended: Azure's Redis does, while its own does not."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self.port = 0
        self.cut = 0
        self.renewals = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection("127.0.0.1", self._redis.port)
        except OSError:
            writer.transport.abort()
            return
        back = asyncio.create_task(_copy(onward[0], writer))
        ends = time.time() + 5  # for the first token
        try:
            while True:
                async with asyncio.timeout(ends - time.time()):
                    data = await reader.read(64 * 1024)
                if not data:
                    break
                if found := _AUTH.findall(data):
                    ends = int(found[-1].partition(b".")[0])
                    self.renewals += 1
                onward[1].write(data)
        except TimeoutError:
            self.cut += 1
        except ConnectionError:
            pass
        finally:
            back.cancel()
            writer.close()
            onward[1].close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


@asynccontextmanager
async def platform_of(redis: RedisServer, life: int) -> AsyncIterator[tuple[Platform, Door]]:
    """Run the endpoint and the door."""
    platform, door = Platform(redis, life), Door(redis)
    application = web.Application()
    application.router.add_get("/token", platform.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    platform.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    server = await asyncio.start_server(door.serve, "127.0.0.1", 0)
    door.port = server.sockets[0].getsockname()[1]
    try:
        async with server:
            yield platform, door
    finally:
        await runner.cleanup()
