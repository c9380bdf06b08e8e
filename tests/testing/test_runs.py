"""A run: read in one of three ways, left, come back to, spoken to."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from agentws import InvocationContext
from agentws.client.errors import Cancelled, Closed, InvocationFailed, ReplayGap
from agentws.client.events import Answered, Chunk, Gap, Question
from agentws.testing import AgentClient
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, echo, soon
from tests.testing.conftest import act, count


async def test_a_run_that_was_disconnected_goes_on_where_it_was() -> None:
    async with AgentClient(count) as client:
        run, got = client.invoke(6), []
        async for number in run:
            got.append(number)
            if number == 3:
                run.disconnect()
        assert (got, run.cursor) == ([1, 2, 3], 3)
        with pytest.raises(Closed):
            await run
        run = client.attach(run.id, after=run.cursor)
        assert await run == [4, 5, 6]
        assert (run.cursor, run.status) == (6, "completed")


async def test_nobody_hears_a_run_that_was_left_before_it_began() -> None:
    gate = Gate()
    async with AgentClient(gate.__call__) as client:
        run = client.invoke({})
        run.disconnect()
        attached = client.attach(run.id)
        assert attached.status == "pending"
        attached.disconnect()
        await soon(gate.entered)
        assert attached.status == "pending"
        assert [chunk async for chunk in attached] == []


@pytest.mark.parametrize("leave", ["disconnect", "detach", "break", "async with", "cancelled"])
async def test_what_nobody_listens_to_is_cancelled_after_the_grace(leave: str) -> None:
    gate = Gate()
    async with AgentClient(gate.stream, disconnect_grace=0.01) as client:
        run = client.invoke([1, 2])
        await soon(gate.entered)
        match leave:
            case "disconnect":
                run.disconnect()
            case "detach":
                run.detach()
            case "break":
                async for _ in run:
                    break
            case "async with":
                async with run:
                    pass
            case "cancelled":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(run, 0.01)
        await soon(gate.cancelled)
        with pytest.raises(Cancelled) as cancelled:
            await client.attach(run.id)
        assert cancelled.value.reason == "deserted"


async def test_whoever_comes_back_in_time_finds_it_running() -> None:
    gate = Gate()
    async with AgentClient(gate.stream, disconnect_grace=0.05) as client:
        run = client.invoke([1, 2])
        await soon(gate.entered)
        run.disconnect()
        run = client.attach(run.id)
        await asyncio.sleep(0.1)  # longer than the grace
        gate.opened.set()
        assert await run == [1, 2]


async def test_what_is_to_continue_needs_nobody() -> None:
    gate = Gate()
    async with AgentClient(gate.__call__, disconnect_grace=0) as client:
        run = client.invoke("result", on_disconnect="continue")
        run.disconnect()
        gate.opened.set()
        assert await client.attach(run.id) == "result"


async def test_a_run_in_the_background_is_only_accepted() -> None:
    gate = Gate()
    async with AgentClient(gate.stream, disconnect_grace=0) as client:
        run = client.invoke([1, 2], background=True)
        assert await run is None
        assert run.status == "running"
        assert [chunk async for chunk in run] == []
        gate.opened.set()
        assert await client.attach(run.id) == [1, 2]


async def test_the_result_is_there_after_the_iteration() -> None:
    async with AgentClient(echo) as client:
        run = client.invoke({"a": 1})
        assert [chunk async for chunk in run] == []
        assert await run == {"a": 1}
    async with AgentClient(count) as client:
        run = client.invoke(2)
        assert [chunk async for chunk in run] == [1, 2]
        assert await run is None


async def test_a_failure_comes_after_what_was_said_before_it() -> None:
    async with AgentClient(act) as client:
        run = client.invoke(["a", "b", {"raise": "no_money"}])
        chunks = aiter(run)
        assert [await anext(chunks), await anext(chunks)] == ["a", "b"]
        for read in (anext(chunks), run):
            with pytest.raises(InvocationFailed) as failure:
                await read
            assert (failure.value.code, run.status) == ("no_money", "failed")


async def test_a_stream_waits_for_no_test_that_does_not_read() -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[str, None]:
        for _ in range(100):
            yield "x" * 10_000
        said_all.set()

    said_all = asyncio.Event()
    async with AgentClient(invoke, replay_bytes=50_000) as client:
        run = client.invoke({})
        await soon(said_all)
        assert len(await run) == 100


async def test_a_question_is_asked_and_answered() -> None:
    async with AgentClient(act) as client:
        run = client.invoke(["a", {"ask": {"text": "Really?"}, "schema": {"type": "string"}}])
        question = await run.question()
        assert (question.payload, question.schema) == ({"text": "Really?"}, {"type": "string"})
        assert run.status == "input_required"
        assert (await client.get(run.id))["awaiting"][0]["request_id"] == question.request_id
        await question.answer("yes")
        assert await run == ["a", "yes"]
        with pytest.raises(InvocationFailed) as failure:
            await question.answer("no")
        assert failure.value.code == "already_finished"


async def test_questions_come_in_their_order_and_closed_ones_do_not() -> None:
    async with AgentClient(act) as client:
        run = client.invoke([{"ask": 1, "timeout": 0.01}, {"ask": 2}, {"ask": 3}])
        chunks = aiter(run)
        assert await anext(chunks) == "nobody answered"
        second = await run.question()
        assert second.payload == 2
        await second.answer("two")
        third = await run.question()
        await third.answer("three")
        with pytest.raises(Closed):
            await run.question()
        assert [chunk async for chunk in chunks] == ["two", "three"]


async def test_a_question_that_never_comes_ends_with_the_run() -> None:
    async with AgentClient(act) as client:
        run = client.invoke([{"raise": "no_money"}])
        with pytest.raises(InvocationFailed, match="no_money"):
            await run.question()


async def test_whoever_attaches_is_asked_and_either_may_answer() -> None:
    async with AgentClient(act, user_id="u") as client:
        run = client.invoke(["a", "b", {"ask": "Really?"}, "c"])
        await run.question()
        other = client.attach(run.id, after=3)
        await (await other.question()).answer("yes")
        assert other.cursor == 3
        assert await other == ["yes", "c"]
        question, answered = [
            event async for event in run.events() if isinstance(event, Question | Answered)
        ]
        assert isinstance(question, Question)
        assert answered == Answered(question.request_id, withdrawn=False)


async def test_all_that_is_heard_is_told_in_its_order() -> None:
    async with AgentClient(act) as client:
        run = client.invoke(["a", {"ask": "Really?", "timeout": 0.01}, "c"])
        a, question, answered, said, c = [event async for event in run.events()]
        assert isinstance(question, Question)
        assert (a, said, c) == (Chunk(1, "a"), Chunk(4, "nobody answered"), Chunk(5, "c"))
        assert answered == Answered(question.request_id, withdrawn=True)
        assert run.cursor == 5


async def test_inputs_are_sent() -> None:
    async with AgentClient(act, max_pending_inputs=1) as client:
        run = client.invoke(["a", "receive"])
        await run.send({"more": 1}, input_id="n1")
        await run.send({"more": 2}, input_id="n1")  # which is the same one
        assert await run == ["a", {"more": 1}]
        for sending, code in (
            (run.send({}), "already_finished"),
            (run.send({}, input_id="no id"), "invalid_request"),
            (client.attach("unknown").send({}), "not_found"),
        ):
            with pytest.raises(InvocationFailed) as failure:
                await sending
            assert failure.value.code == code


async def test_a_run_is_cancelled() -> None:
    gate = Gate()
    async with AgentClient(gate.stream) as client:
        run = client.invoke([1, 2])
        await soon(gate.entered)
        assert await run.cancel() == {"invocation_id": run.id, "status": "cancelled"}
        assert gate.cancelled.is_set()
        with pytest.raises(Cancelled) as cancelled:
            await run
        assert (cancelled.value.reason, run.status) == ("client", "cancelled")
        with pytest.raises(InvocationFailed) as failure:
            await run.cancel()
        assert failure.value.code == "already_finished"


LETTERS = [letter * 50 for letter in "abcdef"]


async def test_a_gap_ends_a_run_that_would_miss_something() -> None:
    async with AgentClient(act, replay_bytes=120) as client:
        run = client.invoke(LETTERS)
        assert await run == LETTERS  # whoever listens loses nothing
        with pytest.raises(ReplayGap) as gap:
            await client.attach(run.id, after=1)
        assert gap.value.first_available == 5
        assert await client.attach(run.id, after=4) == LETTERS[4:]


async def test_a_gap_can_be_skipped() -> None:
    async with AgentClient(act, replay_bytes=120) as client:
        run = client.invoke([*LETTERS, {"ask": "More?"}])
        await run.question()
        first = (await client.get(run.id))["stream"]["first_available"]
        attached = client.attach(run.id, on_gap="skip")
        question = await attached.question()
        events = attached.events()
        assert isinstance(await anext(events), Question)  # which comes at once, before its turn
        assert await anext(events) == Gap(first)
        assert attached.cursor == first - 1
        for number in range(first, 7):
            assert await anext(events) == Chunk(number, LETTERS[number - 1])
        await question.answer("no")
        assert [event async for event in events] == [
            Answered(question.request_id, withdrawn=False),
            Chunk(9, "no"),
        ]


STEPS: list[list[Any]] = [
    ["a", {"b": [1, None, "ü"]}, 1.5],
    [],
    ["a", {"ask": {"text": "Really?"}, "schema": {"type": "string"}}, "c"],
    ["a", "receive"],
    ["a", {"raise": "no_money"}],
    [{"raise": "store_unavailable"}],
    [{"raise": "internal_error"}],
]


@pytest.mark.parametrize("steps", STEPS)
async def test_a_test_sees_what_a_client_sees(serve: Serve, steps: list[Any]) -> None:
    said: list[Any] = []
    async with AgentClient(act) as kit:
        run = kit.invoke(steps, id="i")
        await run.send("hello")
        try:
            async for event in run.events():
                match event:
                    case Chunk(number, payload):
                        said.append(("stream_chunk", number, payload))
                    case Question(payload=payload, schema=schema):
                        said.append(("input_required", payload, schema))
                        await event.answer("yes")
                    case Answered(withdrawn=withdrawn):
                        said.append(("input_received", withdrawn))
            said.append(("stream_end",))
        except InvocationFailed as failure:
            said.append(("error", failure.error))
        record = await kit.get("i")
    assert (said, record["status"]) == await over_a_socket(serve, steps)


async def over_a_socket(serve: Serve, steps: list[Any]) -> tuple[list[Any], str]:
    """Return what a client is sent that answers each question with `yes`, and the last status."""
    said: list[Any] = []
    server = await serve(agent_of(act))
    async with server.connect() as client:
        named = {"invocation_id": "i"}
        await client.send(action="invoke", payload=steps, **named)
        await client.send(action="send_input", payload="hello", **named)
        while not said or said[-1][0] not in ("stream_end", "error"):
            frame = await client.receive()
            match frame["type"]:
                case "stream_chunk":
                    said.append(("stream_chunk", frame["sequence_number"], frame["payload"]))
                case "input_required":
                    said.append(("input_required", frame["payload"], frame.get("schema")))
                    answer = {"request_id": frame["request_id"], "payload": "yes"}
                    await client.send(action="send_input", **named, **answer)
                case "input_received":
                    said.append(("input_received", frame.get("withdrawn", False)))
                case "stream_end":
                    said.append(("stream_end",))
                case "error" if "action" not in frame:
                    said.append(("error", frame["error"]))
        record = await client.ask(action="get_invocation", **named)
        while "payload" not in record:
            record = await client.receive()
    return said, record["payload"]["status"]
