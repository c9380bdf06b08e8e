"""One table for both transports: what one starts, the other follows."""

from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, echo
from tests.support.http_client import (
    SSE,
    Session,
    chunk,
    end,
    event,
    failing_with,
    named,
    record_of,
    run,
)


async def test_what_starts_on_a_socket_is_polled_followed_and_cancelled_over_http(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations/i"
    async with server.connect("/invocations_ws/ws?agent_session_id=s") as client:
        frame = await client.ask(action="invoke", payload=["a", "b"], invocation_id="i")
        assert frame["type"] == "stream_chunk"
        record = await record_of(server, session, "i")
        assert (record["status"], record["session_id"]) == ("running", "s")
        async with session.get(url, headers=SSE) as answer:
            assert await event(answer) == chunk(1, "a")
            async with session.post(f"{url}/cancel") as cancelled:
                assert await cancelled.json() == {"invocation_id": "i", "status": "cancelled"}
            assert (await answer.read()).startswith(failing_with("cancelled"))
        frame = await client.receive()
        assert (frame["type"], frame["error"]["code"]) == ("error", "cancelled")


async def test_what_starts_over_http_is_polled_followed_and_cancelled_on_a_socket(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    url = f"{server.http}/invocations?agent_session_id=s"
    async with (
        session.post(url, json=["a", "b"], headers=named("i")) as answer,
        server.connect() as client,
    ):
        assert await event(answer) == chunk(1, "a")
        frame = await client.ask(action="get_invocation", invocation_id="i")
        assert (frame["payload"]["status"], frame["payload"]["session_id"]) == ("running", "s")
        frame = await client.ask(action="attach_invocation", invocation_id="i")
        assert frame == {
            "type": "stream_chunk",
            "invocation_id": "i",
            "session_id": "s",
            "sequence_number": 1,
            "payload": "a",
        }
        frame = await client.ask(action="invoke", invocation_id="i")
        assert frame["error"]["code"] == "already_exists"
        await client.send(action="cancel_invocation", invocation_id="i")
        await client.until(type="result", payload={"invocation_id": "i", "status": "cancelled"})
        assert (await event(answer)).startswith(failing_with("cancelled"))


async def test_a_stream_that_lost_its_socket_is_taken_up_over_http(
    serve: Serve, session: Session
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    async with server.connect("/invocations_ws/ws?agent_session_id=s") as client:
        await client.ask(action="invoke", payload=["a", "b"], invocation_id="i")
    gate.opened.set()
    url = f"{server.http}/invocations/i?starting_after=1"
    async with session.get(url, headers=SSE) as answer:
        assert await answer.read() == chunk(2, "b") + end("i", "s")


async def test_the_answer_to_a_coroutine_is_followed_on_a_socket(
    serve: Serve, session: Session
) -> None:
    server = await serve(agent_of(echo))
    await run(server, session, "i", [1], session_id="s")
    async with server.connect() as client:
        assert await client.ask(action="attach_invocation", invocation_id="i") == {
            "type": "result",
            "invocation_id": "i",
            "session_id": "s",
            "payload": [1],
        }
