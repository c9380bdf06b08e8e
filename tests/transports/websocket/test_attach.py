"""Following on the framed socket: `attach_invocation`."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentws import InvocationContext, InvocationError
from tests.conftest import Serve
from tests.support.agents import agent_of, echo
from tests.transports.websocket.conftest import Tap, assert_alive, count, told


async def test_attach_replays_and_follows_a_running_stream(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i", session_id="s")
        await tap.let_out(3)
        await client.until(sequence_number=3)
        await other.send(action="attach_invocation", invocation_id="i", starting_after=1)
        for number in (2, 3, 4):
            await tap.let_out(max(3, number))
            assert await other.receive() == {
                "type": "stream_chunk",
                "invocation_id": "i",
                "session_id": "s",
                "sequence_number": number,
                "payload": number,
            }
        await tap.close()
        end = {"type": "stream_end", "invocation_id": "i", "session_id": "s"}
        assert await other.receive() == end


@pytest.mark.parametrize(
    ("after", "numbers"), [(None, [1, 2, 3]), (1, [2, 3]), (3, []), (10**30, [])]
)
async def test_attach_replays_an_ended_stream_and_ends_at_once(
    serve: Serve, after: int | None, numbers: list[int]
) -> None:
    server = await serve(agent_of(count))
    async with server.connect() as client:
        await client.send(action="invoke", payload=3, invocation_id="i")
        await client.until(type="stream_end")
        await client.send(action="attach_invocation", invocation_id="i", starting_after=after)
        for number in numbers:
            assert (await client.receive())["sequence_number"] == number
        assert (await client.receive())["type"] == "stream_end"
        await assert_alive(client)


async def test_attach_to_an_ended_coroutine_answers_its_result(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client, server.connect() as other:
        first = await client.ask(action="invoke", payload=1, invocation_id="i")
        assert await other.ask(action="attach_invocation", invocation_id="i") == first


async def test_attach_to_a_failed_stream_replays_it_up_to_the_error(serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[int, None]:
        yield 1
        raise InvocationError("quota", "Enough")

    server = await serve(agent_of(invoke))
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i", session_id="s")
        expected = [await client.receive(), await client.receive()]
        await other.send(action="attach_invocation", invocation_id="i")
        assert [await other.receive(), await other.receive()] == expected
        assert expected[1] == {
            "type": "error",
            "invocation_id": "i",
            "session_id": "s",
            "error": {"code": "quota", "message": "Enough", "retryable": False, "source": "user"},
        }


@pytest.mark.parametrize("ended", [False, True])
async def test_attach_to_chunks_that_are_no_longer_held_is_a_gap(serve: Serve, ended: bool) -> None:
    tap = Tap()
    server = await serve(agent_of(tap), invocations={"replay_bytes": 2})
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i")
        await tap.let_out(5)
        await client.until(sequence_number=5)
        if ended:
            await tap.close()
            await client.until(type="stream_end")
        frame = await other.ask(action="attach_invocation", invocation_id="i", starting_after=2)
        assert frame["error"]["first_available"] == 4
        assert told(frame) == {
            "type": "error",
            "action": "attach_invocation",
            "invocation_id": "i",
            "error": "replay_gap",
        }
        await other.send(action="attach_invocation", invocation_id="i", starting_after=3)
        assert (await other.receive())["sequence_number"] == 4
        await tap.close()
        await other.until(type="stream_end")


async def test_attach_beyond_the_last_chunk_replays_nothing_and_follows(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with server.connect() as client, server.connect() as other:
        await client.send(action="invoke", invocation_id="i")
        await tap.let_out(2)
        await client.until(sequence_number=2)
        await other.send(action="attach_invocation", invocation_id="i", starting_after=3)
        await assert_alive(other)
        await tap.let_out(5)
        assert (await other.receive())["sequence_number"] == 4
        assert (await other.receive())["sequence_number"] == 5
        await tap.close()
        assert (await other.receive())["type"] == "stream_end"


async def test_attach_to_an_unknown_invocation_is_not_found(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with server.connect() as client:
        frame = await client.ask(action="attach_invocation", invocation_id="i")
        expected = {"type": "error", "action": "attach_invocation", "error": "not_found"}
        assert told(frame) == {**expected, "invocation_id": "i"}


@pytest.mark.parametrize("own", [True, False])
async def test_attaching_again_replaces_the_earlier_following(serve: Serve, own: bool) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with server.connect() as starter, server.connect() as other:
        await starter.send(action="invoke", invocation_id="i", on_disconnect="continue")
        await tap.let_out(2)
        await starter.until(sequence_number=2)
        client = starter if own else other
        if not own:
            await client.send(action="attach_invocation", invocation_id="i")
            await client.until(sequence_number=2)
        await client.send(action="attach_invocation", invocation_id="i", starting_after=1)
        assert (await client.receive())["sequence_number"] == 2
        await tap.let_out(4)
        for number in (3, 4):
            assert (await client.receive())["sequence_number"] == number
        await tap.close()
        assert (await client.receive())["type"] == "stream_end"
        await assert_alive(client)  # nothing came twice


async def test_attaching_often_before_anything_is_said_follows_once(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with server.connect() as client:
        await client.send(action="invoke", invocation_id="i")
        for _ in range(20):
            await client.send(action="attach_invocation", invocation_id="i")
        await assert_alive(client)
        await tap.let_out(1)
        assert (await client.receive())["sequence_number"] == 1
        await tap.close()
        assert (await client.receive())["type"] == "stream_end"
        await assert_alive(client)


async def test_several_sockets_follow_one_stream_at_once(serve: Serve) -> None:
    tap = Tap()
    server = await serve(agent_of(tap))
    async with (
        server.connect() as starter,
        server.connect() as second,
        server.connect() as third,
    ):
        await starter.send(action="invoke", invocation_id="i")
        await assert_alive(starter)
        for client in (second, third):
            await client.send(action="attach_invocation", invocation_id="i")
            await assert_alive(client)
        for number in (1, 2, 3):
            await tap.let_out(number)
            for client in (starter, second, third):
                assert (await client.receive())["sequence_number"] == number
        await tap.close()
        for client in (starter, second, third):
            assert (await client.receive())["type"] == "stream_end"
