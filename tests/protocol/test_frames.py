"""Frames: what is written to the wire, and that an action is known by its frame (§4)."""

import json

import pytest
from hypothesis import given
from msgspec import Raw

from agentws.protocol.decoding import CLIENT_FRAMES, decode_frame
from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, error_body
from agentws.protocol.frames import (
    Accepted,
    ActionResult,
    ErrorFrame,
    GoingAway,
    Invoke,
    Result,
    ServerFrame,
    ServerPing,
    ServerPong,
    StreamChunk,
    StreamEnd,
    action_of,
)
from tests.protocol.conftest import ACTIONS, Fields, dumps, json_values, patient


def test_every_action_of_the_protocol_is_known() -> None:
    assert set(CLIENT_FRAMES) == set(ACTIONS)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_frame_knows_its_action(action: str) -> None:
    assert action_of(decode_frame(dumps(action=action, invocation_id="i"))) == action


@pytest.mark.parametrize(
    ("frame", "encoded"),
    [
        (
            Result("i", Raw(b'{"a":1}'), "s"),
            {"type": "result", "invocation_id": "i", "payload": {"a": 1}, "session_id": "s"},
        ),
        (
            ActionResult("i", Raw(b"null"), "get_invocation"),
            {
                "type": "result",
                "invocation_id": "i",
                "payload": None,
                "action": "get_invocation",
            },
        ),
        (
            StreamChunk("i", "s", 3, Raw(b'"x"')),
            {
                "type": "stream_chunk",
                "invocation_id": "i",
                "session_id": "s",
                "sequence_number": 3,
                "payload": "x",
            },
        ),
        (StreamEnd("i", "s"), {"type": "stream_end", "invocation_id": "i", "session_id": "s"}),
        (Accepted("i", "s"), {"type": "accepted", "invocation_id": "i", "session_id": "s"}),
        (
            ErrorFrame(error_body(InvocationError("not_found", "m")), "get_invocation", "i", "s"),
            {
                "type": "error",
                "error": {
                    "code": "not_found",
                    "message": "m",
                    "retryable": False,
                    "source": "user",
                },
                "action": "get_invocation",
                "invocation_id": "i",
                "session_id": "s",
            },
        ),
        (
            ErrorFrame(error_body(InvocationError("invalid_json", "m"))),
            {
                "type": "error",
                "error": {
                    "code": "invalid_json",
                    "message": "m",
                    "retryable": False,
                    "source": "user",
                },
            },
        ),
        (
            GoingAway("shutdown", 25.0),
            {"type": "going_away", "reason": "shutdown", "grace_seconds": 25.0},
        ),
        (ServerPing(), {"type": "ping"}),
        (ServerPong(), {"type": "pong"}),
    ],
)
def test_a_frame_is_written(frame: ServerFrame, encoded: Fields) -> None:
    assert json.loads(encode(frame)) == encoded


@patient
@given(json_values)
def test_a_payload_comes_back_as_it_went(value: object) -> None:
    frame = decode_frame(dumps(action="invoke", payload=value))
    assert isinstance(frame, Invoke)
    # Texts are compared, because 1 == 1.0 == True.
    assert json.dumps(json.loads(encode(frame.payload))) == json.dumps(value)
    chunk = StreamChunk("i", "s", 1, Raw(encode(frame.payload)))
    assert json.dumps(json.loads(encode(chunk))["payload"]) == json.dumps(value)
