"""Questions that a handler asks: told to whoever is there, answered once, on any replica (§5)."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from agentws import Agent, InvocationContext
from agentws.agent.conversation import Answer
from tests.conftest import PATIENCE, Client, Frame, Running, Serve
from tests.support.replicas import ServeAgent, get


class Approval(Struct):
    approved: bool
    share: Annotated[float, Meta(ge=0, le=1)] = 1.0


def asking(*questions: Any, **options: Any) -> Agent:
    """Return an agent that asks, and yields what it is answered."""
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        for question in questions:
            yield await context.ask(question, **options)

    return agent


async def asked(client: Client, **fields: Any) -> Frame:
    """Invoke as `i`, and return the first question."""
    await client.send(action="invoke", invocation_id="i", **fields)
    return await client.until(type="input_required")


async def answer(client: Client, question: Frame, payload: Any, **fields: Any) -> Frame:
    """Answer a question and return the answer to that."""
    await client.send(
        action="send_input",
        invocation_id=question["invocation_id"],
        request_id=question["request_id"],
        payload=payload,
        **fields,
    )
    return await client.until(action="send_input")


async def awaiting(server: Running, *payloads: Any) -> list[Frame]:
    """Poll until these questions are open: their asker's replica tells of them before Redis."""
    async with asyncio.timeout(PATIENCE):
        while True:
            _, record = await get(server)
            questions: list[Frame] = record.get("awaiting", [])
            if [question["payload"] for question in questions] == [*payloads]:
                assert record["status"] == "input_required"
                return questions


async def test_whoever_is_there_is_asked_and_answers(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(asking({"text": "Really?"}))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        question = await asked(client, session_id="s")
        assert question == {
            "type": "input_required",
            "invocation_id": "i",
            "session_id": "s",
            "sequence_number": 1,
            "request_id": question["request_id"],
            "payload": {"text": "Really?"},
        }
        await other.send(action="attach_invocation", invocation_id="i")
        assert await other.receive() == question
        assert (await answer(other, question, {"yes": 1}, input_id="a1"))["payload"] == {
            "invocation_id": "i",
            "input_id": "a1",
            "status": "accepted",
        }
        received = await client.receive()
        assert received == {
            "type": "input_received",
            "invocation_id": "i",
            "session_id": "s",
            "sequence_number": 2,
            "request_id": question["request_id"],
        }
        chunk = await client.receive()
        assert (chunk["sequence_number"], chunk["payload"]) == (3, {"yes": 1})
        assert (await client.receive())["type"] == "stream_end"


async def test_the_record_tells_what_is_awaited(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(asking("first", "second", schema={"type": "string"}))
    async with pair.owner.connect() as client:
        question = await asked(client)
        assert question["schema"] == {"type": "string"}
        for server in (pair.owner, pair.other):
            assert await awaiting(server, "first") == [
                {
                    "request_id": question["request_id"],
                    "sequence_number": 1,
                    "payload": "first",
                    "schema": {"type": "string"},
                }
            ]
        await answer(client, question, "one")
        second = await client.until(type="input_required")
        await awaiting(pair.other, "second")
        await answer(client, second, "two")
        await client.until(type="stream_end")
        _, record = await get(pair.other)
        assert record["status"] == "completed"
        assert "awaiting" not in record


async def test_an_open_question_is_told_to_whoever_attaches_behind_it(
    serve_wherever: ServeAgent,
) -> None:
    pair = await serve_wherever(asking("Which?"))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        question = await asked(client)
        for _ in range(2):  # it is told each time
            await other.send(action="attach_invocation", invocation_id="i", starting_after=1)
            assert await other.receive() == question
        await answer(other, question, "this")
        assert (await other.until(type="stream_chunk"))["payload"] == "this"


async def test_what_was_asked_is_replayed_as_it_was(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(asking("Which?"))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        question = await asked(client)
        await answer(client, question, "this")
        await client.until(type="stream_end")
        await other.send(action="attach_invocation", invocation_id="i")
        frames = [await other.receive() for _ in range(4)]
        assert [frame["type"] for frame in frames] == [
            "input_required",
            "input_received",
            "stream_chunk",
            "stream_end",
        ]
        assert frames[0] == question


async def test_a_question_is_told_before_a_gap(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        question = asyncio.create_task(context.ask("Which?"))
        await asyncio.sleep(0)
        for _ in range(20):
            yield "x" * 100
        yield await question

    server = await serve(agent, invocations={"replay_bytes": 500})
    async with server.connect() as client, server.connect() as other:
        question = await asked(client)
        await client.until(type="stream_chunk", sequence_number=21)
        await other.send(action="attach_invocation", invocation_id="i")
        assert await other.receive() == question
        assert (await other.receive())["error"]["code"] == "replay_gap"
        await answer(other, question, "this")
        assert (await client.until(type="stream_chunk", payload="this"))["sequence_number"] == 23


async def test_a_typed_answer_is_checked_and_converted(serve_wherever: ServeAgent) -> None:
    agent = Agent()
    answers: list[Any] = []

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        answers.append(await context.ask("Delete?", type=Approval, full=True))
        return "done"

    pair = await serve_wherever(agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        question = await asked(client)
        assert question["schema"]["$defs"]["Approval"]["required"] == ["approved"]
        bad = await answer(other, question, {"approved": True, "share": 2})
        assert bad["error"]["code"] == "invalid_request"
        assert "$.share" in bad["error"]["message"]
        await awaiting(pair.other, "Delete?")
        await answer(other, question, {"approved": True}, input_id="a")
        assert (await client.until(type="result"))["payload"] == "done"
    assert answers == [Answer(Approval(approved=True), "a", None)]


async def test_who_answered_is_told(serve_wherever: ServeAgent) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return (await context.ask("Who?", full=True)).user_id

    pair = await serve_wherever(agent)
    ann = {"x-agent-user-id": "ann"}
    async with pair.owner.connect(headers=ann) as client, pair.other.connect(headers=ann) as other:
        question = await asked(client)
        await answer(other, question, None)
        assert (await client.until(type="result"))["payload"] == "ann"


async def test_of_two_answers_one_counts(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(asking("Which?", "Another?"))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        question = await asked(client)
        first, second = await asyncio.gather(
            answer(client, question, "one"), answer(other, question, "two")
        )
        outcomes = sorted(
            frame["payload"]["status"] if "payload" in frame else frame["error"]["code"]
            for frame in (first, second)
        )
        assert outcomes == ["accepted", "input_not_expected"]
        await other.send(action="attach_invocation", invocation_id="i")
        chunk = await other.until(type="stream_chunk")
        assert chunk["payload"] == ("one" if "payload" in first else "two")


async def test_an_answer_that_is_sent_twice_is_taken_once(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(asking("Which?"))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        question = await asked(client)
        for peer in (other, client, other):
            frame = await answer(peer, question, "this", input_id="a")
            assert frame["payload"]["status"] == "accepted"
        await other.send(action="attach_invocation", invocation_id="i")
        await other.until(type="stream_end")
        for peer in (client, other):  # after the end, too
            frame = await answer(peer, question, "this", input_id="a")
            assert frame["payload"]["status"] == "accepted"
            late = await answer(peer, question, "this", input_id="b")
            assert late["error"]["code"] == "already_finished"


async def test_a_question_is_withdrawn_after_its_time(serve_wherever: ServeAgent) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        try:
            await context.ask("Quick?", timeout=0.05)
        except TimeoutError:
            yield "nobody"

    pair = await serve_wherever(agent)
    async with pair.owner.connect() as client, pair.other.connect() as other:
        question = await asked(client)
        received = await client.receive()
        assert (received["type"], received["withdrawn"]) == ("input_received", True)
        assert (await client.receive())["payload"] == "nobody"
        await client.until(type="stream_end")
        late = await answer(other, question, "yes")
        assert late["error"]["code"] == "already_finished"


async def test_the_setting_bounds_a_question(serve: Serve) -> None:
    server = await serve(asking("Quick?"), invocations={"input_timeout": 0.05})
    async with server.connect() as client:
        await asked(client)
        assert (await client.receive())["withdrawn"] is True
        assert (await client.receive())["error"]["code"] == "internal_error"


async def test_a_question_that_the_handler_gives_up_is_withdrawn(serve: Serve) -> None:
    agent = Agent()
    go_on = asyncio.Event()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> str:
        question = asyncio.create_task(context.ask("Which?"))
        await go_on.wait()
        question.cancel()
        await asyncio.wait({question})
        await context.ask("Another?")
        return "done"

    server = await serve(agent)
    async with server.connect() as client:
        question = await asked(client)
        go_on.set()
        received = await client.receive()
        assert (received["request_id"], received["withdrawn"]) == (question["request_id"], True)
        again = await client.receive()
        assert again["payload"] == "Another?"
        refused = await answer(client, question, "late")
        assert refused["error"]["code"] == "input_not_expected"
        assert (refused["action"], refused["invocation_id"]) == ("send_input", "i")


async def test_the_end_closes_questions_without_a_word(serve_wherever: ServeAgent) -> None:
    agent = Agent()
    go_on = asyncio.Event()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> str:
        question = asyncio.create_task(context.ask("Which?"))
        await go_on.wait()
        del question
        return "done"

    pair = await serve_wherever(agent)
    async with pair.owner.connect() as client:
        await asked(client)
        go_on.set()
        assert (await client.receive())["type"] == "result"
        for server in (pair.owner, pair.other):
            _, record = await get(server)
            assert record["status"] == "completed"
            assert record["stream"]["last_sequence_number"] == 1


async def test_a_cancel_while_it_asks_ends_it(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(asking("Which?"))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await asked(client)
        frame = await other.ask(action="cancel_invocation", invocation_id="i")
        assert frame["payload"] == {"invocation_id": "i", "status": "cancelled"}
        error = (await client.receive())["error"]
        assert (error["code"], error["reason"]) == ("cancelled", "client")


async def test_who_waits_for_an_answer_is_not_deserted(serve_wherever: ServeAgent) -> None:
    pair = await serve_wherever(asking("Which?"), invocations={"disconnect_grace": 0.05})
    async with pair.owner.connect() as client:
        question = await asked(client)
    await asyncio.sleep(0.3)  # six times the grace, for nothing tells that nothing happens
    async with pair.other.connect() as other:
        await answer(other, question, "this")
        await other.send(action="attach_invocation", invocation_id="i")
        assert (await other.until(type="stream_chunk"))["payload"] == "this"


async def test_the_clock_of_the_deserted_starts_anew_with_the_answer(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        await context.ask("Which?")
        await asyncio.Event().wait()

    server = await serve(agent, invocations={"disconnect_grace": 0.05})
    async with server.connect() as client:
        question = await asked(client)
    async with server.connect() as other:
        await answer(other, question, "this")
        async with asyncio.timeout(PATIENCE):
            while (await get(server))[1]["status"] != "cancelled":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await get(server))[1]["error"]["reason"] == "deserted"


async def test_a_timeout_stands_still_while_a_question_is_open(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        await context.ask("Which?")
        await asyncio.Event().wait()

    server = await serve(agent, invocations={"timeout": 0.1})
    async with server.connect() as client:
        question = await asked(client)
        await asyncio.sleep(0.3)  # three times the time-out
        assert (await get(server))[1]["status"] == "input_required"
        await answer(client, question, "this")
        assert (await client.until(type="error"))["error"]["code"] == "timeout"


async def test_several_questions_may_be_open(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        return await asyncio.gather(context.ask("a"), context.ask("b"))

    server = await serve(agent)
    async with server.connect() as client:
        first = await asked(client)
        second = await client.receive()
        assert len((await get(server))[1]["awaiting"]) == 2
        await answer(client, second, 2)
        await answer(client, first, 1)
        assert (await client.until(type="result"))["payload"] == [1, 2]


async def test_what_is_said_without_a_question_answers_none(serve: Serve) -> None:
    server = await serve(asking("Which?"))
    async with server.connect() as client:
        question = await asked(client)
        said = await client.ask(action="send_input", invocation_id="i", payload="by the way")
        assert said["payload"]["status"] == "accepted"
        unknown = await answer(client, {**question, "request_id": "unknown"}, "x")
        assert unknown["error"]["code"] == "input_not_expected"
        await answer(client, question, "this")
        assert (await client.until(type="stream_chunk"))["payload"] == "this"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"schema": "string"}, "schema must be a dict"),
        ({"schema": {"type": "text"}}, "schema must be a JSON Schema"),
        ({"schema": {"properties": [1]}}, "schema must be a JSON Schema"),
        ({"type": object()}, "cannot be understood"),
    ],
)
async def test_what_is_no_schema_is_told_to_the_author(
    serve: Serve, options: dict[str, Any], complaint: str
) -> None:
    agent = Agent()
    complaints: list[str] = []

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> None:
        with pytest.raises((TypeError, ValueError)) as failure:
            await context.ask("Which?", **options)
        complaints.append(str(failure.value))

    server = await serve(agent)
    async with server.connect() as client:
        await client.send(action="invoke")
        assert (await client.receive())["type"] == "result"  # nobody was asked
    assert complaint in complaints[0]


async def test_a_payload_that_json_cannot_hold_asks_nobody(serve: Serve) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> str:
        with pytest.raises(ValueError, match="A question must be a value that JSON can hold"):
            await context.ask(msgspec.Raw(b"{"))
        return "done"

    server = await serve(agent)
    async with server.connect() as client:
        frame = await client.ask(action="invoke")
        assert frame["payload"] == "done"
