"""Each example does what it is there for."""

import asyncio
import json
from array import array
from typing import Any

import pytest
import websockets

from agentws.agent.loading import load
from tests.conftest import PATIENCE, Client, Frame, Running, Serve
from tests.support.http_client import JSON, Session
from tests.support.redis_server import RedisServer
from tests.support.replicas import ServePair


async def streamed(server: Running, payload: Any) -> list[Any]:
    async with server.connect() as client:
        await client.send(action="invoke", payload=payload)
        chunks = []
        while (frame := await client.receive())["type"] == "stream_chunk":
            chunks.append(frame["payload"])
        assert frame["type"] == "stream_end"
        return chunks


async def test_echo_answers_with_what_it_got(serve: Serve) -> None:
    server = await serve(load("examples.echo:agent"))
    async with server.connect() as client:
        assert (await client.ask(action="invoke", payload=[1]))["payload"] == [1]


async def test_streaming_yields_the_words(serve: Serve) -> None:
    server = await serve(load("examples.streaming:agent"))
    tokens = await streamed(server, {"message": "one two", "delay": 0})
    assert tokens == [{"token": "one"}, {"token": "two"}]


NONE: list[Any] = [None, "hello", [], 7, {}]
DELAYS: list[Any] = [-1, "1", True, None, [], 3601]
STEPS: list[Any] = [0, -1, 1.5, "2", True, None, 36_001]

MESSAGES = [(payload, "message") for payload in (*NONE, {"message": 1}, {"message": None})]
PROMPTS = [(payload, "prompt") for payload in (*NONE, {"prompt": []})]
STREAMED = [*MESSAGES, *(({"message": "a", "delay": delay}, "delay") for delay in DELAYS)]
JOBS = [*((payload, "steps") for payload in NONE[:4]), *(({"steps": n}, "steps") for n in STEPS)]


@pytest.mark.parametrize(
    ("example", "payload", "field"),
    [
        *(("both_ways:agent", *wrong) for wrong in MESSAGES),
        *(("container.my_agent:agent", *wrong) for wrong in MESSAGES),
        *(("framework:agent", *wrong) for wrong in PROMPTS),
        *(("long_job:agent", *wrong) for wrong in JOBS),
        *(("sdk_style:app", *wrong) for wrong in MESSAGES),
        *(("sessions:agent", *wrong) for wrong in MESSAGES),
        *(("streaming:agent", *wrong) for wrong in STREAMED),
    ],
)
async def test_a_wrong_payload_is_refused_by_name(
    serve: Serve, example: str, payload: Any, field: str
) -> None:
    server = await serve(load(f"examples.{example}"))
    async with server.connect() as client:
        frame = await client.ask(action="invoke", payload=payload)
    assert frame["error"]["code"] == "invalid_request"
    assert frame["error"]["message"].startswith(f"payload.{field} must be ")


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


async def test_sessions_are_conversations_of_their_own(serve: Serve) -> None:
    server = await serve(load("examples.sessions:agent"))
    async with server.connect() as client:
        for session, message, turn in (("a", "hello", 1), ("b", "hi", 1), ("a", "again", 2)):
            frame = await client.ask(
                action="invoke", session_id=session, payload={"message": message}
            )
            assert frame["payload"]["turn"] == turn
        assert frame["payload"]["so_far"] == ["hello", "again"]


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


async def test_framework_streams_the_models_events(serve: Serve) -> None:
    server = await serve(load("examples.framework:agent"))
    assert await streamed(server, {"prompt": "one two"}) == [
        {"token": "two"},
        {"token": "one"},
        {"usage": {"input_tokens": 2, "output_tokens": 2}},
    ]


async def test_sdk_style_streams(serve: Serve) -> None:
    server = await serve(load("examples.sdk_style:app"))
    assert await streamed(server, {"message": "a b"}) == [{"token": "a"}, {"token": "b"}]


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
