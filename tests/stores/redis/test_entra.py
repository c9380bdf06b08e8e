"""A Redis that knows us by tokens of the platform's identity, which end soon (§10)."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.config.test_requirements import serve as run
from tests.conftest import LogLines, Serve
from tests.support.entra import Door, Platform, platform_of
from tests.support.load import LEASE, Counter, under_load
from tests.support.redis_server import RedisServer
from tests.support.replicas import Pair, Stage, becomes, begin, probed
from tests.support.waiting import eventually

LIFE = 3
"""Seconds for which a token holds."""

SECONDS = 8.0
"""For how long there is a load."""

CLIENT_ID = "9f3f5a0e-client"


@pytest.fixture
async def platform_and_door(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Platform, Door]]:
    async with platform_of(own_redis, LIFE) as (platform, door):
        monkeypatch.setenv("IDENTITY_ENDPOINT", platform.url)
        monkeypatch.setenv("IDENTITY_HEADER", "secret")
        monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT_ID)
        yield platform, door


@pytest.fixture
def platform(platform_and_door: tuple[Platform, Door]) -> Platform:
    return platform_and_door[0]


@pytest.fixture
def door(platform_and_door: tuple[Platform, Door]) -> Door:
    return platform_and_door[1]


def store(door: Door) -> dict[str, object]:
    return {"url": f"redis://127.0.0.1:{door.port}", "lease": LEASE, "auth": "entra"}


async def keep_it_up(serve: Serve, platform: Platform, door: Door, seconds: float) -> None:
    """Hold a load for some time, in which no token is late."""
    counter = Counter()
    first, second = [await serve(counter.agent, store=store(door)) for _ in range(2)]
    async with under_load(Pair(first, second), counter) as load:
        await asyncio.sleep(seconds)
    print(len(platform.tokens), "tokens,", door.renewals, "authentications")  # noqa: T201
    assert not load.codes
    assert load.latest < 1
    assert door.cut == 0
    assert len(platform.tokens) >= seconds / LIFE
    assert platform.client_ids == {CLIENT_ID}


async def test_tokens_are_renewed_on_every_connection_before_they_end(
    serve: Serve, platform: Platform, door: Door
) -> None:
    await keep_it_up(serve, platform, door, SECONDS)


@pytest.mark.soak
async def test_tokens_are_renewed_for_a_long_time(
    serve: Serve, platform: Platform, door: Door, soak_seconds: float
) -> None:
    await keep_it_up(serve, platform, door, soak_seconds)


async def test_without_a_token_the_store_is_away_until_there_is_one(
    serve: Serve, platform: Platform, door: Door, stage: Stage, log_lines: LogLines
) -> None:
    platform.is_down = True
    server = await serve(stage.agent, store=store(door))
    assert await probed(server) == {
        "status": "unavailable",
        "checks": {"store": "no token for Redis can be had"},
    }
    async with server.connect() as client:
        frame = await client.ask(action="invoke", payload=1)
        assert frame["error"]["code"] == "store_unavailable"
        platform.is_down = False
        await becomes(server, "healthy")
        await begin(client, stage, 1)
    warnings = [
        line.getMessage()
        for line in log_lines.records
        if line.name.startswith(("agentws.store", "azure")) and line.levelname == "WARNING"
    ]
    assert len(warnings) == 1
    assert warnings[0].startswith("The managed identity gives no token for Redis: ")


async def test_a_platform_that_is_away_for_less_than_a_token_holds_costs_nothing(
    serve: Serve, platform: Platform, door: Door
) -> None:
    platform.life = 2 * LIFE
    counter = Counter()
    first, second = [await serve(counter.agent, store=store(door)) for _ in range(2)]
    async with under_load(Pair(first, second), counter) as load:
        platform.is_down = True
        await eventually(lambda: platform.refused >= 2)  # each server has asked
        platform.is_down, renewed = False, door.renewals
        await eventually(lambda: door.renewals >= renewed + 6)  # three connections of each
    assert not load.codes
    assert door.cut == 0


async def test_a_clock_that_jumps_past_the_end_of_a_token_brings_a_new_one(
    serve: Serve,
    platform: Platform,
    door: Door,
    stage: Stage,
    own_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A sandbox that is restored: the connections are gone, and it is an hour later."""
    platform.life = 600
    server = await serve(stage.agent, store=store(door))
    an_hour_later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: an_hour_later)
    for kind in ("normal", "pubsub"):
        own_redis.client.client_kill_filter(_type=kind, skipme=True)
    await eventually(lambda: len(platform.tokens) == 2)
    await becomes(server, "healthy")
    async with server.connect() as client:
        await begin(client, stage, 1)


async def test_when_tokens_end_without_a_new_one_the_store_is_away(
    serve: Serve, platform: Platform, door: Door, log_lines: LogLines
) -> None:
    counter = Counter()
    first, second = [await serve(counter.agent, store=store(door)) for _ in range(2)]
    async with under_load(Pair(first, second), counter) as load:
        platform.is_down = True
        await eventually(lambda: bool(load.codes))
        platform.is_down = False
    assert load.codes == {"store_unavailable"}
    assert door.cut


async def test_an_identity_that_redis_does_not_know_yet_is_waited_for(
    serve: Serve, platform: Platform, door: Door, stage: Stage
) -> None:
    platform.is_unknown = True
    server = await serve(stage.agent, store=store(door))
    checks = {"store": "Redis refuses the credentials"}
    assert await probed(server) == {"status": "unavailable", "checks": checks}
    platform.is_unknown = False
    await becomes(server, "healthy")
    async with server.connect() as client:
        await begin(client, stage, 1)


async def test_a_token_that_names_nobody_is_none(
    serve: Serve, platform: Platform, door: Door, stage: Stage, log_lines: LogLines
) -> None:
    platform.claims = {}
    server = await serve(stage.agent, store=store(door))
    assert (await probed(server))["status"] == "unavailable"
    assert "has no claim oid" in (await log_lines.next("agentws.store")).getMessage()


def test_a_missing_package_is_told_with_the_extra_that_has_it(tmp_path: Path) -> None:
    (tmp_path / "azure").mkdir()
    (tmp_path / "azure/__init__.py").touch()  # which hides the installed ones
    done = run(
        tmp_path,
        *("-m", "agentws", "serve"),
        AGENTWS_STORE__URL="redis://127.0.0.1",
        AGENTWS_STORE__AUTH="entra",
    )
    assert done.returncode == 2
    assert done.stderr.startswith("agentws: store.auth = entra needs agentws[azure]: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["redis://me:secret@127.0.0.1", "redis://h?password=secret"])
def test_a_password_beside_tokens_is_refused(tmp_path: Path, url: str) -> None:
    done = run(
        tmp_path,
        *("-m", "agentws", "serve"),
        AGENTWS_STORE__URL=url,
        AGENTWS_STORE__AUTH="entra",
    )
    assert done.returncode == 2
    assert "it should have no user and password where store.auth is entra" in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
