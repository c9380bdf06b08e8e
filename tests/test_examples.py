"""Each example does what it is there for."""

import asyncio
import json
from array import array
from typing import Any

import pytest
import websockets

import examples.client as client_example
from agentws.agent.handlers import Agent
from agentws.agent.loading import load
from agentws.client.errors import Cancelled, InvocationFailed
from agentws.testing import AgentClient
from examples import approval
from tests.conftest import PATIENCE, Client, Frame, Running, Serve
from tests.support.http_client import JSON, Session
from tests.support.processes import running
from tests.support.redis_server import RedisServer
from tests.support.replicas import ServePair

MakeClient = type[AgentClient]


def example(target: str) -> Agent:
    """Return an example, loaded as a daemon loads it."""
    served = load(f"examples.{target}")
    assert isinstance(served, Agent)
    return served


async def streamed(server: Running, payload: Any) -> list[Any]:
    async with server.connect() as client:
        await client.send(action="invoke", payload=payload)
        chunks = []
        while (frame := await client.receive())["type"] == "stream_chunk":
            chunks.append(frame["payload"])
        assert frame["type"] == "stream_end"
        return chunks


async def test_echo_answers_with_what_it_got(agent_client: MakeClient) -> None:
    async with agent_client(example("echo:agent")) as client:
        assert await client.invoke([1]) == [1]


async def test_streaming_yields_the_words(agent_client: MakeClient) -> None:
    async with agent_client(example("streaming:agent")) as client:
        tokens = await client.invoke({"message": "one two", "delay": 0})
    assert tokens == [{"token": "one"}, {"token": "two"}]


async def test_the_client_invokes_the_built_in_echo(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    server = await serve(load(""))
    assert await client_example.main(server.http) == {"message": "hello"}
    *states, told, closed = capsys.readouterr().out.splitlines()
    assert (states, closed) == (["(open)"], "(closed)")
    assert told.endswith(" completed: {'message': 'hello'}")


NONE: list[Any] = [None, "hello", [], 7, {}]
DELAYS: list[Any] = [-1, "1", True, None, [], 3601]
STEPS: list[Any] = [0, -1, 1.5, "2", True, None, 36_001]

NAMES = [*NONE, {"delete": []}, {"delete": "notes.txt"}, {"delete": ["notes.txt", 1]}]

MESSAGES = [(payload, "message") for payload in (*NONE, {"message": 1}, {"message": None})]
PROMPTS = [(payload, "prompt") for payload in (*NONE, {"prompt": []})]
STREAMED = [*MESSAGES, *(({"message": "a", "delay": delay}, "delay") for delay in DELAYS)]
JOBS = [*((payload, "steps") for payload in NONE[:4]), *(({"steps": n}, "steps") for n in STEPS)]


@pytest.mark.parametrize(
    ("target", "payload", "field"),
    [
        *(("approval:agent", payload, "delete") for payload in NAMES),
        *(("barge_in:agent", *wrong) for wrong in MESSAGES),
        *(("both_ways:agent", *wrong) for wrong in MESSAGES),
        *(("container.my_agent:agent", *wrong) for wrong in MESSAGES),
        *(("framework:agent", *wrong) for wrong in PROMPTS),
        *(("long_job:agent", *wrong) for wrong in JOBS),
        *(("sdk_style:app", *wrong) for wrong in MESSAGES),
        *(("sessions:agent", *wrong) for wrong in MESSAGES),
        *(("steering:agent", *wrong) for wrong in [*MESSAGES, ({"message": " "}, "message")]),
        *(("streaming:agent", *wrong) for wrong in STREAMED),
    ],
)
async def test_a_wrong_payload_is_refused_by_name(
    agent_client: MakeClient, target: str, payload: Any, field: str
) -> None:
    async with agent_client(example(target)) as client:
        with pytest.raises(InvocationFailed) as failure:
            await client.invoke(payload)
    assert failure.value.code == "invalid_request"
    assert failure.value.message.startswith(f"payload.{field} must be ")


async def test_a_long_job_is_polled_and_cancelled(serve: Serve) -> None:
    server = await serve(load("examples.long_job:agent"))
    async with server.connect() as client:
        await client.ask(action="invoke", invocation_id="job", background=True)
        record = await polled(client, "job")
        assert record["progress"]["steps"] == 100
        assert record["seconds_left"] == pytest.approx((100 - record["progress"]["done"]) / 10)
        cancelled = await client.ask(action="cancel_invocation", invocation_id="job")
        assert cancelled["payload"]["status"] == "cancelled"
        record = await polled(client, "job")
        assert (record["status"], record["error"]["code"]) == ("cancelled", "cancelled")
        assert "seconds_left" not in record
        unknown = await client.ask(action="get_invocation", invocation_id="unknown")
        assert unknown["error"]["code"] == "not_found"


async def test_a_long_job_is_polled_and_has_its_result_on_another_replica(
    redis: RedisServer, serve_pair: ServePair
) -> None:
    pair = await serve_pair(redis, load("examples.long_job:agent"))
    async with pair.owner.connect() as client, pair.other.connect() as other:
        await client.ask(action="invoke", invocation_id="a", payload={"steps": 3}, background=True)
        await client.ask(action="invoke", invocation_id="b", background=True)
        await other.send(action="attach_invocation", invocation_id="a")
        assert (await other.receive())["payload"] == {"steps": 3}
        record = await polled(other, "a")
        assert (record["status"], record["result"]) == ("completed", {"steps": 3})
        assert record["progress"] == {"done": 3, "steps": 3}
        assert "seconds_left" not in record
        record = await polled(other, "b")
        assert record["seconds_left"] == pytest.approx((100 - record["progress"]["done"]) / 10)
        cancelled = await other.ask(action="cancel_invocation", invocation_id="b")
        assert cancelled["payload"]["status"] == "cancelled"


async def polled(client: Client, invocation_id: str) -> Frame:
    """Return the answer to a poll."""
    frame = await client.ask(action="get_invocation", invocation_id=invocation_id)
    answer = frame["payload"]
    assert isinstance(answer, dict)
    return answer


async def test_sessions_are_conversations_of_their_own(agent_client: MakeClient) -> None:
    async with agent_client(example("sessions:agent")) as client:
        for session, message, turn in (("a", "hello", 1), ("b", "hi", 1), ("a", "again", 2)):
            answer = await client.invoke({"message": message}, session_id=session)
            assert answer["turn"] == turn
        assert answer["so_far"] == ["hello", "again"]


async def test_approval_deletes_what_somebody_approves_of(agent_client: MakeClient) -> None:
    async with agent_client(example("approval:agent")) as client:
        run = client.invoke({"delete": ["old.log"]})
        question = await run.question()
        assert question.payload == {"text": "Delete 1 files?", "files": ["old.log"]}
        with pytest.raises(InvocationFailed, match="approved"):
            await question.answer({"approved": "perhaps"})
        run.disconnect()
        run = client.attach(run.id)  # and is asked again
        assert "old.log" in approval.files
        await (await run.question()).answer({"approved": True})
        assert await run == [{"deleted": "old.log"}]
        assert "old.log" not in approval.files


async def test_approval_keeps_what_nobody_approves_of(agent_client: MakeClient) -> None:
    async with agent_client(example("approval:agent"), input_timeout=0.05) as client:
        run = client.invoke({"delete": ["notes.txt"]})
        await (await run.question()).answer({"approved": False, "reason": "mine"})
        assert await run == [{"kept": "notes.txt", "reason": "mine"}]
        unanswered = client.invoke({"delete": ["notes.txt"]})
        assert await unanswered == [{"kept": "notes.txt", "reason": "nobody answered"}]
        assert "notes.txt" in approval.files


async def test_steering_goes_on_as_it_is_told(agent_client: MakeClient) -> None:
    async with agent_client(example("steering:agent")) as client:
        run = client.invoke({"message": "Once upon"})
        chunks = aiter(run)
        assert [await anext(chunks), await anext(chunks)] == [{"token": "once"}, {"token": "upon"}]
        await run.send({"style": "loud"})
        assert (await anext(chunks))["token"] in ("ONCE", "UPON")
        await run.send({"style": "odd"})
        assert await anext(chunks) == {"remark": "I do not understand {'style': 'odd'}"}
        await run.send({"stop": True})
        assert len([chunk async for chunk in run]) <= 1
        assert run.status == "completed"


async def test_barge_in_lets_the_last_word_win(agent_client: MakeClient) -> None:
    async with agent_client(example("barge_in:agent"), if_session_busy="interrupt") as client:
        interrupted = client.invoke({"message": "one two three four five six"}, session_id="s")
        chunks = aiter(interrupted)
        assert [await anext(chunks) for _ in range(3)][1:] == [{"token": "one"}, {"token": "two"}]
        run = client.invoke({"message": "stop"}, session_id="s")
        with pytest.raises(Cancelled) as cancelled:
            await interrupted
        assert cancelled.value.reason == "superseded"
        assert cancelled.value.error["superseded_by"] == run.id
        before, now = await run
        assert before["so_far"].startswith("one two")
        assert now == {"token": "stop"}


AGUI = {
    "threadId": "t1",
    "runId": "r1",
    "messages": [{"id": "m1", "role": "user", "content": "Hello there"}],
}


async def test_agui_says_what_its_protocol_says_and_can_be_resumed(
    agent_client: MakeClient,
) -> None:
    async with agent_client(example("agui:agent")) as client:
        run, events = client.invoke(AGUI, session_id="t1", id="r1"), []
        async for event in run:
            events.append(event)
            if event["type"] == "TEXT_MESSAGE_CONTENT":
                run.disconnect()
        events += await client.attach("r1", after=run.cursor)
    ids, message = {"threadId": "t1", "runId": "r1"}, {"messageId": "r1.1"}
    assert events == [
        {"type": "RUN_STARTED", **ids},
        {"type": "TEXT_MESSAGE_START", **message, "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", **message, "delta": "Hello "},
        {"type": "TEXT_MESSAGE_CONTENT", **message, "delta": "there "},
        {"type": "TEXT_MESSAGE_END", **message},
        {"type": "RUN_FINISHED", **ids},
    ]


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({**AGUI, "threadId": 1}, "payload.threadId: "),
        ({**AGUI, "messages": [{"id": "m1", "role": "user"}]}, "payload.messages.0.user.content: "),
        ({**AGUI, "messages": []}, "payload.messages must "),
        (None, "payload: "),
    ],
)
async def test_agui_refuses_what_is_not_its_protocol(
    agent_client: MakeClient, payload: Any, place: str
) -> None:
    async with agent_client(example("agui:agent")) as client:
        with pytest.raises(InvocationFailed) as failure:
            await client.invoke(payload)
    assert failure.value.code == "invalid_request"
    assert failure.value.message.startswith(place)


async def test_both_ways_answers_on_all_three_ways_in(serve: Serve, session: Session) -> None:
    server = await serve(load("examples.both_ways:agent"))
    assert await streamed(server, {"message": "a b"}) == ["A", "B"]
    async with websockets.connect(f"{server.ws}/invocations_ws") as raw:
        await raw.send("hello")
        assert await raw.recv() == "HELLO"
        await raw.send("bye")
        await raw.wait_closed()
        assert raw.close_code == 1000
    url, payload = f"{server.http}/invocations", {"message": "a"}
    async with session.post(url, json=payload, headers=JSON) as answer:
        assert await answer.json() == ["A"]
    async with session.get(f"{url}/docs/openapi.json") as answer:
        assert (await answer.json())["info"]["title"] == "Shout"


async def test_audio_hears_and_speaks_at_the_same_time(serve: Serve) -> None:
    server = await serve(load("examples.audio:agent"))
    said = [array("h", [number * 2] * 320).tobytes() for number in range(1, 31)]
    async with websockets.connect(f"{server.ws}/invocations_ws") as call:
        heard = asyncio.create_task(listen(call, len(said)))
        for frame in said:
            await call.send(frame)
        async with asyncio.timeout(PATIENCE):
            frames = await heard
    silence, voice = frames[:10], frames[10:]
    assert set(silence) == {bytes(640)}
    assert [array("h", frame)[0] for frame in voice] == list(range(1, 21))


@pytest.mark.parametrize("message", ["hello", b"", bytes(639), bytes(1280)])
async def test_audio_takes_nothing_but_frames(serve: Serve, message: str | bytes) -> None:
    server = await serve(load("examples.audio:agent"))
    async with websockets.connect(f"{server.ws}/invocations_ws") as call:
        await call.send(message)
        async with asyncio.timeout(PATIENCE):
            await call.wait_closed()
        assert call.close_code == 1003


async def listen(call: Any, count: int) -> list[bytes]:
    return [await call.recv() for _ in range(count)]


async def test_framework_streams_the_models_events(agent_client: MakeClient) -> None:
    async with agent_client(example("framework:agent")) as client:
        assert await client.invoke({"prompt": "one two"}) == [
            {"token": "two"},
            {"token": "one"},
            {"usage": {"input_tokens": 2, "output_tokens": 2}},
        ]


async def test_sdk_style_streams(agent_client: MakeClient) -> None:
    async with agent_client(example("sdk_style:app")) as client:
        assert await client.invoke({"message": "a b"}) == [{"token": "a"}, {"token": "b"}]


@pytest.mark.parametrize("name", ["agui", "approval", "barge_in", "steering"])
async def test_they_can_be_served_by_their_paths(name: str) -> None:
    target = f"examples/{name}.py:agent"
    async with running("-m", "agentws", "serve", "--handler", target, "--port", "0") as daemon:
        assert daemon.port


@pytest.mark.parametrize("name", ["echo:agent", "framework:agent", "sdk_style:app"])
async def test_http_reaches_them_as_well(serve: Serve, session: Session, name: str) -> None:
    server = await serve(load(f"examples.{name}"))
    payload = {"message": "a", "prompt": "a"}
    async with session.post(f"{server.http}/invocations", data=json.dumps(payload)) as answer:
        assert answer.status == 200
        assert await answer.read()


async def test_typed_says_words_in_the_voice_that_is_wished(serve: Serve) -> None:
    server = await serve(load("examples.typed:agent"))
    assert await streamed(server, {"text": "a bc", "voice": "loud", "times": 2}) == [
        {"word": "A", "turn": 1},
        {"word": "BC", "turn": 1},
        {"word": "A", "turn": 2},
        {"word": "BC", "turn": 2},
    ]
    assert await streamed(server, {"text": "abc", "voice": "spelled"}) == [
        {"word": "a-b-c", "turn": 1}
    ]


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ([], "object"),
        ({}, "`text`"),
        ({"text": ""}, "$.text"),
        ({"text": "a", "voice": "deep"}, "$.voice"),
        ({"text": "a", "times": 11}, "$.times"),
        ({"text": "a", "time": 1}, "`time`"),
    ],
)
async def test_typed_refuses_what_its_types_do_not_allow(
    serve: Serve, payload: Any, place: str
) -> None:
    server = await serve(load("examples.typed:agent"))
    async with server.connect() as client:
        frame = await client.ask(action="invoke", payload=payload)
    assert frame["error"]["code"] == "invalid_request"
    assert frame["error"]["message"].startswith("payload: ")
    assert place in frame["error"]["message"]


async def test_typed_is_described_by_its_types(serve: Serve, session: Session) -> None:
    server = await serve(load("examples.typed:agent"))
    async with session.get(f"{server.http}/invocations/docs/openapi.json") as answer:
        document = await answer.json()
    assert document["components"]["schemas"]["Request"]["required"] == ["text"]
