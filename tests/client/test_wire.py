"""Messages, read with leniency, and written so that servers take them."""

import json
from typing import Any

import pytest

from agentws.client.wire import PING, PONG, Nonsense, action, raw, read
from agentws.protocol.decoding import decode_frame


def test_a_frame_of_the_future_is_read() -> None:
    message = read(json.dumps({"type": "weather", "sun": {"at": [1]}, "payload": 1}))
    assert (message.type, message.payload, message.error) == ("weather", 1, None)
    assert read("{}").type == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "null",
        '{"type":',
        '{"type":1}',
        '{"type":"stream_chunk","sequence_number":"1"}',
        '{"type":"error","error":"bad"}',
        '{"payload":' + "[" * 100_000,
        b"\xff",
        b'{"type":"\xff"}',
    ],
)
def test_what_is_no_frame_is_nonsense(text: str | bytes) -> None:
    with pytest.raises(Nonsense):
        read(text)


def test_what_is_none_is_left_out_and_null_is_a_payload() -> None:
    text = action("invoke", invocation_id="a", session_id=None, payload=raw(None))
    assert json.loads(text) == {"action": "invoke", "invocation_id": "a", "payload": None}


@pytest.mark.parametrize("text", [PING, PONG, action("invoke", payload=raw({"a": [1, "ö"]}))])
def test_the_server_understands_what_is_written(text: bytes) -> None:
    decode_frame(text)


@pytest.mark.parametrize("payload", [object(), {1: object()}, "\ud800", {"a"} - {"a"} or object()])
def test_what_json_cannot_hold_is_refused(payload: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        raw(payload)


def test_a_payload_that_nests_without_end_is_refused() -> None:
    payload: list[Any] = []
    payload.append(payload)
    with pytest.raises(ValueError, match="nests too deeply, or refers to itself"):
        raw(payload)
