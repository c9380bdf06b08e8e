"""The client with real servers: what it is there for, with nothing going wrong."""

import asyncio
import gc
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentws import Agent, InvocationContext
from agentws.client import (
    Answered,
    Cancelled,
    Chunk,
    Closed,
    ConnectionFailed,
    InvocationFailed,
    Question,
    Run,
    connect,
)
from tests.client.conftest import Connect
from tests.conftest import PATIENCE, Serve
from tests.support.agents import Gate, agent_of, each, echo, soon


async def test_a_result_is_awaited(serve: Serve, connect_to: Connect) -> None:
    server = await serve(agent_of(echo))
    async with connect_to(server) as client:
        run = client.invoke({"message": "hi"}, id="a", session_id="s")
        assert (run.id, run.status, run.cursor) == ("a", "pending", 0)
        assert await run == {"message": "hi"}
        assert run.status == "completed"
        assert await run == {"message": "hi"}
        record = await client.get("a")
        assert (record["session_id"], record["status"]) == ("s", "completed")


async def test_a_stream_is_iterated_or_awaited(serve: Serve, connect_to: Connect) -> None:
    server = await serve(agent_of(each))
    async with connect_to(server) as client:
        run = client.invoke([1, "two", None])
        assert [chunk async for chunk in run] == [1, "two", None]
        assert run.cursor == 3
        assert await run is None
        assert await client.invoke([1, 2]) == [1, 2]
        assert await client.invoke([]) == []
        events = [event async for event in client.invoke(["a", "b"]).events()]
        assert events == [Chunk(1, "a"), Chunk(2, "b")]


async def test_the_rest_of_what_was_begun_can_be_awaited(serve: Serve, connect_to: Connect) -> None:
    server = await serve(agent_of(each))
    async with connect_to(server) as client:
        run = client.invoke([1, 2, 3])
        reading = aiter(run)
        assert await anext(reading) == 1
        assert run.cursor == 1
        assert await run == [2, 3]
        del reading


async def test_reading_what_iterates_a_coroutine_gives_no_chunks(
    serve: Serve, connect_to: Connect
) -> None:
    server = await serve(agent_of(echo))
    async with connect_to(server) as client:
        run = client.invoke(7)
        assert [chunk async for chunk in run] == []
        assert await run == 7


async def test_a_question_is_answered(serve: Serve, connect_to: Connect) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        answer = await context.ask({"text": "Really?"}, schema={"type": "boolean"})
        yield {"answer": answer}
        yield {"said": (await context.receive()).payload}

    server = await serve(agent)
    async with connect_to(server) as client, connect_to(server) as other:
        run = client.invoke(1)
        events = run.events()
        question = await anext(events)
        assert isinstance(question, Question)
        assert (question.payload, question.schema) == ({"text": "Really?"}, {"type": "boolean"})
        assert run.status == "input_required"

        async for event in other.attach(run.id).events():
            assert isinstance(event, Question)
            assert event.request_id == question.request_id
            await event.answer(True)
            break

        assert await anext(events) == Answered(question.request_id, withdrawn=False)
        assert await anext(events) == Chunk(3, {"answer": True})
        with pytest.raises(InvocationFailed, match=r"input_not_expected: .*wait for the next"):
            await question.answer(False)
        await run.send({"more": 1})
        assert await anext(events) == Chunk(4, {"said": {"more": 1}})
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_a_run_is_cancelled(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    async with connect_to(server) as client:
        run = client.invoke([1, 2])
        reading = aiter(run)
        assert await anext(reading) == 1
        assert await run.cancel() == {"invocation_id": run.id, "status": "cancelled"}
        with pytest.raises(Cancelled) as failure:
            await anext(reading)
        assert failure.value.reason == "client"
        assert run.status == "cancelled"
        with pytest.raises(InvocationFailed, match="already_finished"):
            await run.cancel()


async def test_what_belongs_to_a_run_waits_until_there_is_one(
    serve: Serve, connect_to: Connect
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with connect_to(server) as client:
        run = client.invoke(1)
        assert (await run.cancel())["status"] == "cancelled"


async def test_a_background_run_is_awaited_until_it_is_accepted(
    serve: Serve, connect_to: Connect
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with connect_to(server) as client:
        run = client.invoke(1, background=True)
        assert await run is None
        assert run.status == "running"
        gate.opened.set()
        assert await client.attach(run.id) == 1


async def test_lists_are_read_to_their_end(serve: Serve, connect_to: Connect) -> None:
    server = await serve(agent_of(echo))
    async with connect_to(server) as client:
        ids = [f"run-{number}" for number in range(45)]
        for name in ids:
            await client.invoke(1, id=name, session_id="s")
        await client.invoke(1, session_id="t")
        listed = [record["invocation_id"] async for record in client.list(session_id="s")]
        assert sorted(listed) == sorted(ids)
        assert [record async for record in client.list(status="failed")] == []


async def test_what_a_server_refuses_is_raised_with_advice(
    serve: Serve, connect_to: Connect
) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with connect_to(server) as client:
        first = client.invoke(1, session_id="s")
        await soon(gate.entered)
        with pytest.raises(InvocationFailed, match="Attach to running_invocation_id") as failure:
            await client.invoke(1, session_id="s", if_session_busy="reject")
        assert failure.value.error["running_invocation_id"] == first.id
        with pytest.raises(InvocationFailed, match="already_exists"):
            await client.invoke(1, id=first.id)
        with pytest.raises(InvocationFailed, match="not_found"):
            await client.get("unknown")
        with pytest.raises(InvocationFailed, match="not_found"):
            await client.attach("unknown")
        gate.opened.set()


# --- leaving ---


async def deserted(gate: Gate) -> None:
    """Wait until the server has cancelled what nobody listens to."""
    await soon(gate.cancelled)


DESERTED_AT_ONCE = {"invocations": {"disconnect_grace": 0.05}}


async def test_leaving_a_loop_detaches_at_once(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), **DESERTED_AT_ONCE)
    async with connect_to(server) as client:
        run = client.invoke([1, 2])
        gc.disable()
        try:
            async for chunk in run:
                assert chunk == 1
                break
            await deserted(gate)
        finally:
            gc.enable()
        assert [chunk async for chunk in run] == []
        with pytest.raises(Closed, match="detached"):
            await run


async def test_a_loop_that_was_left_is_left_also_where_all_had_arrived(
    serve: Serve, connect_to: Connect
) -> None:
    server = await serve(agent_of(each))
    async with connect_to(server) as client:
        run = client.invoke([1, 2, 3])
        async for _ in run:
            await client.invoke([])  # whose answer comes after all of the first one
            break
        assert run.status == "completed"
        assert [chunk async for chunk in run] == []
        with pytest.raises(Closed, match="detached"):
            await run


async def test_an_error_in_a_loop_detaches(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), **DESERTED_AT_ONCE)
    async with connect_to(server) as client:
        with pytest.raises(ZeroDivisionError):
            await fail_at(client.invoke([1, 2]))
        await deserted(gate)


async def fail_at(run: Run) -> None:
    """Read a chunk and fail."""
    async for _ in run:
        raise ZeroDivisionError


@pytest.mark.parametrize("way", ["iterate", "events", "await"])
async def test_a_cancelled_task_detaches(serve: Serve, connect_to: Connect, way: str) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), **DESERTED_AT_ONCE)

    async def read() -> None:
        run = client.invoke([1, 2])
        match way:
            case "iterate":
                async for _ in run:
                    pass
            case "events":
                async for _ in run.events():
                    pass
            case "await":
                await run

    async with connect_to(server) as client:
        task = asyncio.create_task(read())
        await soon(gate.entered)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await deserted(gate)


async def test_a_block_ends_the_listening_for_certain(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream), **DESERTED_AT_ONCE)
    async with connect_to(server) as client:
        async with client.invoke([1, 2]) as run:
            reading = aiter(run)
            assert await anext(reading) == 1
        await deserted(gate)
        del reading


async def test_a_reading_that_timed_out_goes_on(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    async with connect_to(server) as client:
        run = client.invoke([1, 2])
        reading = aiter(run)
        assert await anext(reading) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(reading)
        gate.opened.set()
        assert await anext(reading) == 2


async def test_a_run_is_read_by_one_reader_at_a_time(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with connect_to(server) as client:
        run = client.invoke(1)
        first = asyncio.ensure_future(anext(aiter(run), "the end"))
        await soon(gate.entered)
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(aiter(run))
        gate.opened.set()
        assert await first == "the end"


async def test_closing_cancels_nothing(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with connect_to(server) as client:
        run = client.invoke("kept", on_disconnect="continue")
        await soon(gate.entered)
    assert client.state == "closed"
    with pytest.raises(Closed, match="connect anew"):
        await run
    with pytest.raises(Closed):
        client.invoke(1)
    async with connect_to(server) as client:
        again = client.attach(run.id)
        gate.opened.set()
        assert await again == "kept"


async def test_what_was_invoked_is_sent_before_the_close(serve: Serve, connect_to: Connect) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    async with connect_to(server) as client:
        await client.invoke(1, background=True)
        client.invoke(2, on_disconnect="continue", id="late")
    async with connect_to(server) as client:
        assert (await client.get("late"))["status"] == "running"
    gate.opened.set()


# --- mistakes ---


@pytest.mark.parametrize("url", ["", "host:80", "ftp://host", "http://", "/invocations_ws/ws"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL of a server"):
        connect(url)


@pytest.mark.parametrize(
    "options",
    [{"silence": 0}, {"connect_timeout": -1}, {"max_queue": 0}, {"max_retry_delay": -0.1}],
)
def test_options_without_sense_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        connect("http://localhost", **options)


async def test_what_is_malformed_is_refused_at_once(serve: Serve, connect_to: Connect) -> None:
    server = await serve(agent_of(echo))
    with pytest.raises(ValueError, match="session_id must be 1 to 256"):
        connect(server.http, session_id="no id")
    async with connect_to(server) as client:
        with pytest.raises(ValueError, match="id must be 1 to 256"):
            client.invoke(1, id="..")
        with pytest.raises(ValueError, match="session_id must be"):
            client.invoke(1, session_id="ö")
        with pytest.raises(TypeError, match="JSON cannot hold"):
            client.invoke(object())
        with pytest.raises(ValueError, match="after 0 or more"):
            client.attach("a", after=-1)


async def test_a_client_is_used_within_its_block(serve: Serve, connect_to: Connect) -> None:
    server = await serve(agent_of(echo))
    client = connect_to(server)
    with pytest.raises(RuntimeError, match="async with"):
        client.invoke(1)
    async with client:
        assert await client.invoke(1) == 1
    with pytest.raises(RuntimeError, match="entered once"):
        await client.__aenter__()


@pytest.mark.parametrize("path", ["", "/", "/invocations_ws", "/invocations_ws/ws/"])
async def test_urls_of_http_stand_for_the_framed_socket(serve: Serve, path: str) -> None:
    server = await serve(agent_of(echo))
    async with connect(server.http + path) as client:
        assert await client.invoke(1) == 1


async def test_urls_of_sockets_are_taken_as_they_are(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with connect(f"{server.ws}/invocations_ws/ws") as client:
        assert await client.invoke(1) == 1


# --- who may ---


async def test_credentials_open_the_socket(serve: Serve, connect_to: Connect) -> None:
    server = await serve(agent_of(echo), auth={"api_keys": ["secret-key-of-some-length"]})
    async with connect_to(server, api_key="secret-key-of-some-length") as client:
        assert await client.invoke(1) == 1
    async with connect_to(server, api_key="wrong") as client:
        with pytest.raises(ConnectionFailed, match=r"401 .*Give connect") as failure:
            await client.invoke(1)
        assert failure.value.status == 401
        with pytest.raises(ConnectionFailed):
            client.invoke(1)
        assert client.state == "closed"


async def test_a_token_may_come_from_a_coroutine(serve: Serve, connect_to: Connect) -> None:
    seen: list[str] = []

    async def get_token() -> str:
        await asyncio.sleep(0)
        seen.append("asked")
        return "anything"

    server = await serve(agent_of(echo))
    async with connect_to(server, token=get_token) as client:
        assert await client.invoke(1) == 1
    assert seen == ["asked"]


async def test_a_token_function_that_fails_is_the_reason(serve: Serve, connect_to: Connect) -> None:
    def get_token() -> str:
        raise OSError("no identity here")

    server = await serve(agent_of(echo))
    async with connect_to(server, token=get_token, connect_timeout=0.2) as client:
        with pytest.raises(ConnectionFailed, match="no identity here") as failure:
            await client.invoke(1)
        assert isinstance(failure.value.__cause__, OSError)


async def test_the_callers_headers_go_along(serve: Serve, connect_to: Connect) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return [context.user_id, context.query["tier"], dict(context.client_headers)]

    server = await serve(agent_of(invoke))
    headers = {"x-agent-user-id": "u1", "x-client-app": "test"}
    async with connect_to(server, headers=headers, query={"tier": "gold"}) as client:
        assert await client.invoke(1) == ["u1", "gold", {"x-client-app": "test"}]


# --- callbacks ---


async def test_states_and_frames_are_told(serve: Serve, connect_to: Connect) -> None:
    states: list[str] = []
    frames: list[tuple[str, str]] = []
    server = await serve(agent_of(echo))
    client = connect_to(server, api_key="secret", token="secret")
    client.on_state(states.append)
    client.on_frame(lambda direction, text: frames.append((direction, text)))
    states.append(client.state)
    async with client:
        await client.invoke("hello")
        states.append(client.state)
    assert states == ["connecting", "open", "open", "closed"]
    assert [direction for direction, _ in frames] == ["out", "in", "in"]
    assert '"action":"invoke"' in frames[0][1]
    assert '"payload":"hello"' in frames[2][1]
    assert "secret" not in str(frames)


async def test_a_callback_may_invoke(serve: Serve, connect_to: Connect) -> None:
    runs: list[Run] = []
    frames: list[str] = []
    server = await serve(agent_of(echo))
    client = connect_to(server)

    def invoke_when_open(state: str) -> None:
        if state == "open":
            runs.append(client.invoke(2))

    client.on_state(invoke_when_open)
    client.on_frame(lambda direction, text: frames.append(direction))
    async with client:
        assert await client.invoke(1) == 1
        assert await runs[0] == 2
    assert frames.count("out") == 2


async def test_a_callback_that_fails_harms_nobody(serve: Serve, connect_to: Connect) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    server = await serve(agent_of(echo))
    client = connect_to(server)
    client.on_state(fail)
    client.on_frame(fail)
    async with client:
        assert await client.invoke(1) == 1
    assert {type(context["exception"]) for context in told} == {ZeroDivisionError}


# --- what is dropped meanwhile ---


async def test_a_run_that_nobody_reads_does_not_hold_up_others(
    serve: Serve, connect_to: Connect
) -> None:
    server = await serve(agent_of(each))
    async with connect_to(server, max_queue=10) as client:
        unread = client.invoke(list(range(5000)))
        async with asyncio.timeout(PATIENCE):
            assert await client.invoke(list(range(5000))) == list(range(5000))
        assert [chunk async for chunk in unread] == list(range(5000))


async def test_a_question_is_answered_by_a_client_that_was_not_asked(
    serve: Serve, connect_to: Connect
) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "first"
        yield await context.ask("May I?")

    server = await serve(agent_of(invoke))
    async with connect_to(server) as asked, connect_to(server) as other:
        events = asked.invoke({}, id="a").events()
        assert await anext(events) == Chunk(1, "first")
        question = await anext(events)
        assert isinstance(question, Question)
        assert question.number == 2
        late = await anext(other.attach("a", after=2).events())  # it is told out of its place
        assert isinstance(late, Question)
        assert late.number == 2
        other_run = other.attach("a", after=2)
        with pytest.raises(InvocationFailed, match="input_not_expected"):
            await other_run.answer("unknown", "no")
        await other_run.answer(question.request_id, "yes")
        assert await anext(events) == Answered(question.request_id, withdrawn=False)
        assert await anext(events) == Chunk(4, "yes")
