"""The description of the framed socket: valid AsyncAPI, complete, and true."""

import copy
import json
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import pytest
from jsonschema import Draft7Validator
from msgspec import Raw
from referencing import Registry

from agentws.protocol.asyncapi import describe
from agentws.protocol.decoding import BadFrame, decode_frame
from agentws.protocol.encoding import encode
from agentws.protocol.errors import STATUS, InvocationError, ReplayGap, error_body
from agentws.protocol.frames import (
    Accepted,
    ErrorFrame,
    GoingAway,
    Result,
    ServerFrame,
    ServerPing,
    ServerPong,
    StreamChunk,
    StreamEnd,
)
from tests.protocol.conftest import ACTIONS
from tests.support.processes import ROOT

PUBLISHED = ROOT / "tests" / "data" / "asyncapi-3.0.0.json"

Json = dict[str, Any]

NOTHING_ELSE: Registry[Any] = Registry()
"""What is not in the schema itself is not looked for anywhere."""


@pytest.fixture(scope="module")
def document() -> Json:
    found = json.loads(encode(describe("1.2.3")))
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def asyncapi() -> Draft7Validator:
    return Draft7Validator(json.loads(PUBLISHED.read_text()), registry=NOTHING_ELSE)


def resolve(document: Json, reference: str) -> Any:
    root, *path = reference.split("/")
    assert root == "#"
    return reduce(lambda found, name: found[name], path, document)


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def messages(document: Json, operation: str) -> dict[str, Json]:
    """Return the messages of an operation by their name on the wire."""
    (found,) = (one for one in document["operations"].values() if one["action"] == operation)
    resolved = (
        resolve(document, resolve(document, message["$ref"])["$ref"])
        for message in found["messages"]
    )
    return {message["name"]: message for message in resolved}


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
    "an unknown field": lambda broken: broken["channels"]["framed"].update(adress="/"),
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
    assert [one["address"] for one in document["channels"].values()] == ["/invocations_ws/ws"]


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
                "accepted",
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
    assert set(messages(document, operation)) == names
    assert len(document["components"]["messages"]) == 14
    for message in messages(document, operation).values():
        assert message["summary"]


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
    {"action": "ping"},
    {"action": "pong", "x": 1},
]


@pytest.mark.parametrize("frame", FROM_CLIENTS, ids=json.dumps)
def test_a_frame_that_is_taken_is_described(document: Json, frame: Json) -> None:
    decode_frame(json.dumps(frame))
    for name in messages(document, "receive"):
        assert validator(document, "receive", name).is_valid(frame) == (name == frame["action"])


def test_an_example_of_every_frame_from_a_client_was_tried(document: Json) -> None:
    assert {frame["action"] for frame in FROM_CLIENTS} == set(messages(document, "receive"))


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
    Result("i", Raw(b"null")),
    StreamChunk("i", "s", 1, Raw(b'"a"')),
    StreamEnd("i", "s"),
    Accepted("i", "s"),
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
        assert validator(document, "send", name).is_valid(sent) == (name == sent["type"])


def test_an_example_of_every_frame_from_the_server_was_tried(document: Json) -> None:
    tried = {json.loads(encode(frame))["type"] for frame in FROM_SERVER}
    assert tried == set(messages(document, "send"))


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "result", "invocation_id": "i"},
        {"type": "stream_chunk", "invocation_id": "i", "session_id": "s", "payload": 1},
        {"type": "stream_end", "invocation_id": "i"},
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
