"""Two services on one Redis share nothing (§10)."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Client, Running, Serve
from tests.support.redis_server import RedisServer
from tests.support.replicas import Stage, begin, chunks
from tests.support.waiting import eventually


@pytest.fixture
async def services(redis: RedisServer, serve: Serve, stage: Stage) -> list[Running]:
    """Two replicas of a service, and one of another."""
    stores = [{"url": redis.url, "prefix": prefix} for prefix in ("one", "one", "two.B_-")]
    return [await serve(stage.agent, store=store) for store in stores]


@pytest.fixture
async def clients(services: list[Running]) -> AsyncIterator[list[Client]]:
    first, second, other = services
    async with first.connect() as a, second.connect() as b, other.connect() as c:
        yield [a, b, c]


async def test_what_one_runs_the_other_does_not_know(clients: list[Client], stage: Stage) -> None:
    first, second, other = clients
    await begin(first, stage, 1, session_id="s")
    for action in ("get_invocation", "attach_invocation", "cancel_invocation"):
        frame = await other.ask(action=action, invocation_id="i")
        assert frame["error"]["code"] == "not_found"
    await second.send(action="attach_invocation", invocation_id="i")
    assert await chunks(second, 1) == [1]
    assert (await other.ask(action="list_invocations"))["invocations"] == []
    (listed,) = (await second.ask(action="list_invocations"))["invocations"]
    assert listed["invocation_id"] == "i"


async def test_the_same_id_and_a_busy_session_are_each_ones_own(
    clients: list[Client], stage: Stage
) -> None:
    first, second, other = clients
    fields = {"action": "invoke", "session_id": "s", "if_session_busy": "reject"}
    for client in (first, other):
        frame = await client.ask(**fields, invocation_id="i", background=True)
        assert frame["type"] == "accepted"
    frame = await second.ask(**fields, invocation_id="j")
    assert frame["error"]["code"] == "session_busy"


async def test_every_key_and_channel_begins_with_its_prefix(
    redis: RedisServer, clients: list[Client], stage: Stage
) -> None:
    first, second, other = clients
    with redis.client.monitor() as monitor:  # type: ignore[no-untyped-call]
        await begin(first, stage, 1)
        await second.send(action="attach_invocation", invocation_id="i")
        assert await chunks(second, 1) == [1]
        await other.ask(action="invoke", invocation_id="j", background=True)
        stage.say("i", Stage.END)
        await second.until(type="stream_end")
        redis.client.echo("that is all")
        named = set()
        while "that is all" not in (command := monitor.next_command()["command"]):
            words = command.split(" ")
            named |= {word for word in words if word.startswith("{")}
    keys = {word for word in named if ":" in word and not word.startswith('{"')}
    assert {key.split(":")[0] for key in keys} == {"{one}", "{two.B_-}"}
    assert {key.split(":")[0] for key in redis.all_keys()} == {"{one}", "{two.B_-}"}
    # A replica that stood still on a busy machine listens anew.
    await eventually(lambda: prefixes_of_channels(redis) == {"{one}", "{two.B_-}"})


def prefixes_of_channels(redis: RedisServer) -> set[str]:
    return {str(channel).split(":")[0] for channel in redis.client.pubsub_channels()}
