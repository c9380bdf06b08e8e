"""The description of the framed socket: valid AsyncAPI, complete, true, and fit for generators."""

import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from jsonschema import Draft7Validator
from msgspec import Meta, Raw, Struct
from referencing import Registry

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent
from agentws.protocol.asyncapi import describe, servers
from agentws.protocol.decoding import CLIENT_FRAMES, BadFrame, decode_frame
from agentws.protocol.encoding import encode
from agentws.protocol.errors import STATUS, InvocationError, ReplayGap, error_body
from agentws.protocol.frames import (
    Accepted,
    ActionResult,
    ErrorFrame,
    GoingAway,
    InputReceived,
    InputRequired,
    Invocations,
    Result,
    ServerFrame,
    ServerPing,
    ServerPong,
    StreamChunk,
    StreamEnd,
)
from tests.protocol.conftest import ACTIONS
from tests.support.documents import references, resolve
from tests.support.processes import ROOT

PUBLISHED = ROOT / "tests" / "data" / "asyncapi-3.0.0.json"

Json = dict[str, Any]

NOTHING_ELSE: Registry[Any] = Registry()
"""What is not in the schema itself is not looked for anywhere."""


@pytest.fixture(scope="module")
def document() -> Json:
    return written(describe("1.2.3"))


@pytest.fixture(scope="module")
def asyncapi() -> Draft7Validator:
    return Draft7Validator(json.loads(PUBLISHED.read_text()), registry=NOTHING_ELSE)


def written(document: object) -> Json:
    found = json.loads(encode(document))
    assert isinstance(found, dict)
    return found


def messages(document: Json, operation: str) -> dict[str, Json]:
    """Return the messages of an operation by what they are called there."""
    (found,) = (one for one in document["operations"].values() if one["action"] == operation)
    named = {message["$ref"].rpartition("/")[2]: message["$ref"] for message in found["messages"]}
    return {
        name: resolve(document, resolve(document, place)["$ref"]) for name, place in named.items()
    }


def validator(document: Json, operation: str, name: str) -> Draft7Validator:
    """Return what checks a frame of one type."""
    payload = messages(document, operation)[name]["payload"]
    schema = {"allOf": [payload], "components": document["components"]}
    return Draft7Validator(schema, registry=NOTHING_ELSE)


# The document


def test_the_document_is_valid(document: Json, asyncapi: Draft7Validator) -> None:
    asyncapi.validate(document)


BREAKAGES: dict[str, Callable[[Json], object]] = {
    "no title": lambda broken: broken["info"].pop("title"),
    "another version": lambda broken: broken.update(asyncapi="2.6.0"),
    "an unknown field": lambda broken: broken["channels"]["ClientFrame"].update(adress="/"),
    "an unknown direction": lambda broken: broken["operations"]["act"].update(action="publish"),
    "an operation without its channel": lambda broken: broken["operations"]["act"].pop("channel"),
    "an unknown type": lambda broken: broken["components"]["schemas"]["Ping"].update(type="dict"),
}


@pytest.mark.parametrize("damage", BREAKAGES.values(), ids=BREAKAGES.keys())
def test_a_broken_document_would_be_found(
    document: Json, asyncapi: Draft7Validator, damage: Callable[[Json], object]
) -> None:
    broken = copy.deepcopy(document)
    damage(broken)
    assert not asyncapi.is_valid(broken)


def test_all_references_lead_somewhere(document: Json) -> None:
    found = list(references(document))
    assert found
    for reference in found:
        assert isinstance(resolve(document, reference), dict)


def test_an_operation_has_messages_of_its_channel_only(document: Json) -> None:
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/")


def test_it_tells_where_the_socket_is_and_which_version_speaks(document: Json) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert document["info"]["version"] == "1.2.3"
    assert document["defaultContentType"] == "application/json"
    assert {one["address"] for one in document["channels"].values()} == {"/invocations_ws/ws"}


@pytest.mark.parametrize(
    ("operation", "names"),
    [
        ("receive", set(ACTIONS)),
        (
            "send",
            {
                "result",
                "stream_chunk",
                "stream_end",
                "input_required",
                "input_received",
                "accepted",
                "invocations",
                "error",
                "going_away",
                "ping",
                "pong",
            },
        ),
    ],
)
def test_every_frame_of_the_protocol_is_in_it(
    document: Json, operation: str, names: set[str]
) -> None:
    found = messages(document, operation).values()
    assert {message["name"] for message in found} == names
    assert all(message["summary"] for message in found)


# Frames from the client


FROM_CLIENTS: list[Json] = [
    {"action": "invoke"},
    {
        "action": "invoke",
        "payload": [{"any": None}, 1, "a"],
        "invocation_id": "i",
        "session_id": "s",
        "background": True,
        "on_disconnect": "continue",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "a=b",
        "baggage": "c=d",
    },
    {"action": "invoke", "payload": None, "on_disconnect": "cancel"},
    {"action": "invoke", "invocation_id": None, "background": None, "on_disconnect": None},
    {"action": "invoke", "extra": "is ignored"},
    {"action": "get_invocation", "invocation_id": "i"},
    {"action": "get_invocation", "invocation_id": "a" * 256, "session_id": "A-Z_0.9:", "x": {}},
    {"action": "cancel_invocation", "invocation_id": "i"},
    {"action": "cancel_invocation", "invocation_id": "i", "session_id": None, "baggage": "a=b"},
    {"action": "attach_invocation", "invocation_id": "i"},
    {"action": "attach_invocation", "invocation_id": "i", "starting_after": 0},
    {"action": "attach_invocation", "invocation_id": "i", "starting_after": None},
    {"action": "invoke", "if_exists": "attach", "if_session_busy": "reject", "query_id": "q"},
    {"action": "detach_invocation", "invocation_id": "i"},
    {"action": "send_input", "invocation_id": "i"},
    {"action": "send_input", "invocation_id": "i", "payload": None, "request_id": "r"},
    {"action": "send_input", "invocation_id": "i", "payload": 1, "input_id": "n", "query_id": "q"},
    {"action": "list_invocations"},
    {"action": "list_invocations", "session_id": "s", "status": "lost", "limit": 100, "after": "c"},
    {"action": "ping"},
    {"action": "pong", "x": 1},
]


@pytest.mark.parametrize("frame", FROM_CLIENTS, ids=json.dumps)
def test_a_frame_that_is_taken_is_described(document: Json, frame: Json) -> None:
    decode_frame(json.dumps(frame))
    wanted = CLIENT_FRAMES[frame["action"]].__name__
    for name in messages(document, "receive"):
        assert validator(document, "receive", name).is_valid(frame) == (name == wanted)


def test_an_example_of_every_frame_from_a_client_was_tried(document: Json) -> None:
    tried = {CLIENT_FRAMES[frame["action"]].__name__ for frame in FROM_CLIENTS}
    assert tried == set(messages(document, "receive"))


@pytest.mark.parametrize(
    "frame",
    [
        {"action": "invoke", "invocation_id": 5},
        {"action": "invoke", "invocation_id": "a b"},
        {"action": "invoke", "session_id": "a" * 257},
        {"action": "invoke", "background": "true"},
        {"action": "invoke", "background": 1},
        {"action": "invoke", "on_disconnect": "stop"},
        {"action": "invoke", "traceparent": 5},
        {"action": "get_invocation"},
        {"action": "get_invocation", "invocation_id": None},
        {"action": "get_invocation", "invocation_id": ""},
        {"action": "cancel_invocation", "session_id": "s"},
        {"action": "attach_invocation", "invocation_id": "a/b"},
        {"action": "attach_invocation", "invocation_id": "i", "starting_after": -1},
        {"action": "attach_invocation", "invocation_id": "i", "starting_after": 1.5},
        {"action": "attach_invocation", "invocation_id": "i", "starting_after": "1"},
        {"action": "invoke", "if_exists": ""},
        {"action": "invoke", "if_session_busy": "wait"},
        {"action": "detach_invocation"},
        {"action": "send_input", "payload": 1},
        {"action": "list_invocations", "limit": 101},
        {"action": "list_invocations", "status": "ended"},
        {"action": "invoke", "invocation_id": ".."},
        {"action": "get_invocation", "invocation_id": "."},
    ],
    ids=json.dumps,
)
def test_a_frame_that_is_refused_is_not_described(document: Json, frame: Json) -> None:
    with pytest.raises(BadFrame):
        decode_frame(json.dumps(frame))
    for name in messages(document, "receive"):
        assert not validator(document, "receive", name).is_valid(frame)


# Frames from the server


FROM_SERVER: list[ServerFrame] = [
    Result("i", Raw(b'{"a":[1,null]}'), "s"),
    ActionResult("i", Raw(b"null"), "get_invocation"),
    StreamChunk("i", "s", 1, Raw(b'"a"')),
    StreamEnd("i", "s"),
    InputRequired("i", "s", 1, "r", Raw(b'"Which?"')),
    InputRequired("i", "s", 1, "r", Raw(b"null"), Raw(b'{"type":"string"}')),
    InputReceived("i", "s", 2, "r"),
    InputReceived("i", "s", 2, "r", withdrawn=True),
    Accepted("i", "s"),
    Accepted("i", "s", "q"),
    Invocations([Raw(b'{"invocation_id":"i"}')], "cursor", "q"),
    Invocations([]),
    *(ErrorFrame(error_body(InvocationError(code, "m"))) for code in STATUS),
    ErrorFrame(error_body(InvocationError("quota", "m", 503)), invocation_id="i", session_id="s"),
    ErrorFrame(error_body(ReplayGap(7)), "attach_invocation", "i", "s"),
    GoingAway("shutdown", 25),
    GoingAway("max_age", 0.5),
    ServerPing(),
    ServerPong(),
]


@pytest.mark.parametrize("frame", FROM_SERVER, ids=lambda frame: encode(frame).decode())
def test_a_frame_that_is_sent_is_described(document: Json, frame: ServerFrame) -> None:
    sent = json.loads(encode(frame))
    for name in messages(document, "send"):
        wanted = name == type(frame).__name__
        assert validator(document, "send", name).is_valid(sent) == wanted


def test_an_example_of_every_frame_from_the_server_was_tried(document: Json) -> None:
    assert {type(frame).__name__ for frame in FROM_SERVER} == set(messages(document, "send"))


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "result", "invocation_id": "i"},
        {"type": "result", "invocation_id": "i", "payload": 1},
        {"type": "stream_chunk", "invocation_id": "i", "session_id": "s", "payload": 1},
        {"type": "stream_end", "invocation_id": "i"},
        {"type": "input_required", "invocation_id": "i", "session_id": "s", "payload": 1},
        {"type": "input_received", "invocation_id": "i", "session_id": "s", "request_id": "r"},
        {"type": "invocations"},
        {"type": "accepted", "session_id": "s"},
        {"type": "error"},
        {"type": "error", "error": {"code": "c", "message": "m", "retryable": False}},
        {
            "type": "error",
            "error": {"code": "c", "message": "m", "retryable": False, "source": "nobody"},
        },
        {"type": "going_away", "reason": "bored", "grace_seconds": 1},
        {"type": "going_away", "reason": "shutdown"},
    ],
    ids=json.dumps,
)
def test_a_frame_that_is_never_sent_is_not_described(document: Json, frame: Json) -> None:
    for name in messages(document, "send"):
        assert not validator(document, "send", name).is_valid(frame)


# For generators: a type for each channel's messages, a class for each named schema


def test_each_direction_is_a_channel_of_its_own(document: Json) -> None:
    channels = [one["channel"]["$ref"] for one in document["operations"].values()]
    assert sorted(channels) == ["#/channels/ClientFrame", "#/channels/ServerFrame"]
    for operation in document["operations"].values():
        offered = resolve(document, operation["channel"]["$ref"])["messages"]
        assert set(offered) == {one["$ref"].rpartition("/")[2] for one in operation["messages"]}


def nameless_enumerations(part: object, *, has_name: bool = False) -> Iterator[Json]:
    if isinstance(part, dict):
        if "enum" in part and not has_name:
            yield part
        for value in part.values():
            yield from nameless_enumerations(value)
    elif isinstance(part, list):
        for value in part:
            yield from nameless_enumerations(value)


def test_each_enumeration_has_a_name(document: Json) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        assert not list(nameless_enumerations(schema, has_name=True))
    assert schemas["InvokeOnDisconnect"]["enum"] == ["cancel", "continue"]
    assert schemas["ErrorBodySource"]["enum"] == ["platform", "upstream", "user"]
    assert schemas["GoingAwayReason"]["enum"] == ["max_age", "shutdown"]


def test_what_has_one_value_is_a_constant(document: Json) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["Ping"]["properties"]["action"] == {"const": "ping"}
    assert schemas["ServerPing"]["properties"]["type"] == {"const": "ping"}


# Servers


@pytest.mark.parametrize(("is_secure", "protocol"), [(False, "ws"), (True, "wss")])
def test_a_document_with_servers_is_valid(
    document: Json, asyncapi: Draft7Validator, is_secure: bool, protocol: str
) -> None:
    where = servers("agents.example.com:8088", is_secure=is_secure)
    asyncapi.validate({**document, "servers": where})
    (server,) = where.values()
    assert server == {"host": "agents.example.com:8088", "protocol": protocol}


# The agent's types


class Cat(Struct, tag=True):
    lives: Annotated[int, Meta(ge=1, le=9)]


class Dog(Struct, tag=True):
    name: str


class Question(Struct):
    """What is asked."""

    message: str
    mood: Literal["calm", "cross"] = "calm"
    place: tuple[float, float] = (0, 0)
    pets: list[Cat | Dog] = []


class Token(Struct):
    token: str


async def stream(payload: Question, context: InvocationContext) -> AsyncIterator[Token]:
    """Answer word by word.

    It takes its time.
    """
    yield Token(payload.message)


async def reply(payload: Question, context: InvocationContext) -> Token:
    return Token(payload.message)


def agent_around(handler: Callable[..., Any]) -> Agent:
    agent = Agent()
    agent.invoke_handler(handler)
    return agent


def document_of(handler: Callable[..., Any]) -> Json:
    return written(describe("1.2.3", agent_around(handler).contract))


PAYLOADS: list[Any] = [
    {"message": "hi"},
    {"message": "hi", "mood": "cross", "place": [1, 2.5], "more": None},
    {"message": "hi", "pets": [{"type": "Cat", "lives": 9}, {"type": "Dog", "name": "Rex"}]},
    {},
    {"message": 5},
    {"message": "hi", "mood": "sad"},
    {"message": "hi", "place": [1]},
    {"message": "hi", "place": [1, 2, 3]},
    {"message": "hi", "pets": [{"type": "Cat", "lives": 10}]},
    {"message": "hi", "pets": [{"type": "Bird", "name": "Rex"}]},
    [],
    None,
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=json.dumps)
def test_a_payload_is_described_just_where_it_is_taken(payload: Any) -> None:
    try:
        agent_around(stream).convert(payload)
    except InvocationError:
        is_taken = False
    else:
        is_taken = True
    invoke = validator(document_of(stream), "receive", "Invoke")
    assert invoke.is_valid({"action": "invoke", "payload": payload}) == is_taken


def test_chunks_are_described_where_the_handler_streams() -> None:
    document = document_of(stream)
    frame = {"type": "stream_chunk", "invocation_id": "i", "session_id": "s", "sequence_number": 1}
    chunk = validator(document, "send", "StreamChunk")
    assert chunk.is_valid({**frame, "payload": {"token": "hi"}})
    assert not chunk.is_valid({**frame, "payload": {"token": 5}})
    result = {"type": "result", "invocation_id": "i", "session_id": "s", "payload": {"token": 5}}
    assert validator(document, "send", "Result").is_valid(result)


def test_a_result_is_described_where_the_handler_returns_one() -> None:
    document = document_of(reply)
    frame = {"type": "result", "invocation_id": "i", "session_id": "s"}
    result = validator(document, "send", "Result")
    assert result.is_valid({**frame, "payload": {"token": "hi"}})
    assert not result.is_valid({**frame, "payload": {"token": 5}})
    polled = {"type": "result", "invocation_id": "i", "action": "get_invocation", "payload": 5}
    assert validator(document, "send", "ActionResult").is_valid(polled)


def test_docstrings_become_descriptions() -> None:
    document = document_of(stream)
    said = messages(document, "receive")["Invoke"]["description"]
    assert said == "Answer word by word.\n\nIt takes its time."
    assert document["components"]["schemas"]["Question"]["description"] == "What is asked."


OwnInvoke = msgspec.defstruct("Invoke", [("mode", Literal["a", "b"])])
OwnResult = msgspec.defstruct("Result", [("invoke", OwnInvoke)])
OwnPing = msgspec.defstruct("PING", [("result", OwnResult)])
OwnChannel = type(
    "ClientFrame", (pydantic.BaseModel,), {"__annotations__": {"kind": Literal["x", "y"]}}
)


async def confuse(payload: Any, context: InvocationContext) -> Any:
    return payload


@pytest.mark.parametrize(
    ("own", "name", "fits"),
    [
        (OwnInvoke, "AgentInvoke", {"mode": "a"}),
        (OwnResult, "AgentResult", {"invoke": {"mode": "b"}}),
        (OwnPing, "AgentPING", {"result": {"invoke": {"mode": "b"}}}),
        (OwnChannel, "AgentClientFrame", {"kind": "y"}),
    ],
)
def test_types_that_are_named_like_frames_collide_with_nothing(
    document: Json, asyncapi: Draft7Validator, own: Any, name: str, fits: Any
) -> None:
    confuse.__annotations__.update({"payload": own, "return": own})
    found = document_of(confuse)
    asyncapi.validate(found)
    schemas = found["components"]["schemas"]
    assert schemas[name]["title"] == name
    for known, schema in document["components"]["schemas"].items():
        if known not in ("Invoke", "Result"):  # in which its own are now
            assert schemas[known] == schema
    invoke = validator(found, "receive", "Invoke")
    assert invoke.is_valid({"action": "invoke", "payload": fits})
    assert not invoke.is_valid({"action": "invoke", "payload": {}})
    result = {"type": "result", "invocation_id": "i", "session_id": "s", "payload": fits}
    assert validator(found, "send", "Result").is_valid(result)


class Reading(pydantic.BaseModel):
    """A model of pydantic's."""

    value: int = pydantic.Field(gt=0)
    mode: Literal["fast", "slow"] = "fast"
    pair: tuple[int, str] = (1, "a")


async def read(payload: Reading, context: InvocationContext) -> list[Reading]:
    return [payload]


HANDLERS = [stream, reply, read]


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_document_with_types_is_valid_and_has_no_nameless_enumerations(
    asyncapi: Draft7Validator, handler: Callable[..., Any]
) -> None:
    found = document_of(handler)
    asyncapi.validate(found)
    for reference in references(found):
        assert isinstance(resolve(found, reference), dict)
    for schema in found["components"]["schemas"].values():
        assert not list(nameless_enumerations(schema, has_name=True))


def test_what_draft_07_does_not_know_is_said_in_its_words() -> None:
    text = encode(document_of(stream)).decode() + encode(document_of(read)).decode()
    assert "prefixItems" not in text
    assert "discriminator" not in text
    place = document_of(stream)["components"]["schemas"]["Question"]["properties"]["place"]
    assert place["items"] == [{"type": "number"}, {"type": "number"}]
    assert place["additionalItems"] is False
