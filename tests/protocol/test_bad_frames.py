"""What is refused as a frame: how it is told, and what the answer tells of it (§7)."""

import re
from collections.abc import Callable

import pytest

from agentws.protocol.decoding import BadFrame, decode_frame
from tests.protocol.conftest import (
    ACTIONS,
    BAD_IDS,
    IDS,
    NOT_JSON,
    OPTIONAL_IDS,
    TRACEPARENT,
    Fields,
    dumps,
    echo,
    nested,
    refusal,
)

# What is not JSON


@pytest.mark.parametrize("kind", [str, str.encode])
@pytest.mark.parametrize("message", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_no_json_is_refused(message: str, kind: Callable[[str], str | bytes]) -> None:
    bad = refusal(kind(message))
    assert bad.error.code == "invalid_json"
    assert echo(bad).keys() <= {"action", "invocation_id"}
    assert len(bad.error.message) < 100


_IDS_FIRST = '{ "action": "invoke", "query_id" :"q",\n"background":true,"invocation_id":"i",'


@pytest.mark.parametrize(
    "rest",
    [
        '"payload":"\\ud83d"}',
        '"payload":1e999}',
        f'"payload":{nested(10_000)}}}',
        '"payload":{"session_id":"s","x":1e999}}',
        '"payload":"',
        '"payload":{"x":NaN},"session_id":"s"}',
    ],
    ids=["half an emoji", "a number", "nested", "other ids inside", "cut off", "other ids behind"],
)
@pytest.mark.parametrize("kind", [str, str.encode])
def test_ids_before_what_is_no_json_are_told(rest: str, kind: Callable[[str], str | bytes]) -> None:
    bad = refusal(kind(_IDS_FIRST + rest))
    assert bad.error.code == "invalid_json"
    assert echo(bad) == {"action": "invoke", "query_id": "q", "invocation_id": "i"}


@pytest.mark.parametrize(
    "message",
    [
        '{"action":"invoke","invocation_id":"\\u0069","payload":1e999}',
        '{"action":"invoke","payload":[1e999],"invocation_id":"i"}',
        '{"action":"invoke","invocation_id":"i',
        '{"action":"invoke","invocation_id":"i"',
        '"action":"invoke","invocation_id":"i","payload":1}',
        '{"action":"nope","invocation_id":"i","payload":1e999}',
        '{"invocation_id":"i","payload":1e999}',
    ],
)
def test_what_may_be_no_id_is_not_told(message: str) -> None:
    assert echo(refusal(message)) == {}


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b'{"action":"invoke","payload":"\xff"}',
        b'{"action":"invoke","payload":"\xed\xa0\x80"}',  # a lone surrogate
        b'{"action":"invoke","payload":"\xc0\xaf"}',  # overlong
        b'{"action":"invoke","payload":"\xf0\x9f\x98"}',  # half an emoji
        b'{"action":"ping","x":"\xff"}',
        b'{"action":"ping","\xff":1}',
        b'{"action":"nope","x":"\xff"}',
        b'{"action":"invoke","background":1,"x":"\xff"}',
        b'{"action":"\xff"}',
        '{"action":"ping"}'.encode("utf-16"),
        '{"action":"invoke","payload":"é"}'.encode("latin-1"),
    ],
)
def test_what_is_no_utf_8_is_refused(message: bytes) -> None:
    assert refusal(message).error.code == "invalid_json"


def test_text_with_a_lone_surrogate_is_refused() -> None:
    assert refusal('{"action":"ping","x":"\ud800"}').error.code == "invalid_json"


def deepest_payload() -> int:
    """How deep a payload may nest."""
    shallow, deep = 1, 1_000_000
    while deep - shallow > 1:
        middle = (shallow + deep) // 2
        try:
            decode_frame('{"action":"invoke","payload":' + nested(middle) + "}")
        except BadFrame:
            deep = middle
        else:
            shallow = middle
    return shallow


@pytest.mark.parametrize(
    "fault",
    [
        '"action":"invoke","background":1',
        '"action":"invoke","invocation_id":"a b"',
        '"action":"nope"',
        '"action":"invoke","action":"nope"',
    ],
)
def test_a_bad_frame_as_deep_as_can_be_read_is_refused(fault: str) -> None:
    deepest = deepest_payload()
    for depth in range(deepest - 20, deepest + 20):
        refusal("{" + fault + ',"payload":' + nested(depth) + "}")


# What is no frame


@pytest.mark.parametrize("message", ["[]", "null", "true", "1", "-1.5", '"ping"', '[{"action":1}]'])
def test_what_is_no_object_is_refused(message: str) -> None:
    bad = refusal(message)
    assert bad.error.code == "invalid_message"
    assert echo(bad) == {}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "missing"),
        ({"action": None}, "missing"),
        ({"Action": "ping"}, "missing"),
        ({"type": "ping"}, "missing"),
        ({"action": ""}, "''"),
        ({"action": "nope"}, "'nope'"),
        ({"action": "Ping"}, "'Ping'"),
        ({"action": " ping"}, "' ping'"),
        ({"action": "it's"}, '"it\'s"'),
        ({"action": 1}, "must be a string"),
        ({"action": True}, "must be a string"),
        ({"action": ["ping"]}, "must be a string"),
        ({"action": {"ping": 1}}, "must be a string"),
    ],
)
def test_an_action_that_is_none_is_refused_and_named(fields: Fields, named: str) -> None:
    error = refusal(dumps(**fields)).error
    assert error.code == "invalid_action"
    assert named in error.message
    for action in ACTIONS:
        assert action in error.message


def test_a_long_action_is_not_repeated_whole() -> None:
    assert len(refusal(dumps(action="x" * 100_000)).error.message) < 300


WRONG_TYPES: list[tuple[str, str, object]] = [
    *(
        (action, name, value)
        for action, name in [
            *OPTIONAL_IDS,
            ("get_invocation", "invocation_id"),
            ("cancel_invocation", "invocation_id"),
            ("attach_invocation", "invocation_id"),
        ]
        for value in (5, True, ["i"], {"i": 1})
    ),
    *(
        (action, name, value)
        for action in ("invoke", "get_invocation", "cancel_invocation")
        for name in ("traceparent", "tracestate", "baggage")
        for value in (5, False, [TRACEPARENT], {"a": 1})
    ),
    *(("invoke", "background", value) for value in (0, 1, "true", [True], {"a": 1})),
    *(("invoke", "on_disconnect", value) for value in ("", "stop", "Cancel", 1, True, ["cancel"])),
    *(
        ("attach_invocation", "starting_after", value)
        for value in (-1, -(10**30), 1.5, "1", True, [1], {"a": 1})
    ),
]


@pytest.mark.parametrize(("action", "name", "value"), WRONG_TYPES)
def test_a_wrong_type_is_refused_and_named(action: str, name: str, value: object) -> None:
    fields = {"action": action, "invocation_id": "i", "session_id": "s", name: value}
    bad = refusal(dumps(**fields))
    assert bad.error.code == "invalid_request"
    assert re.search(rf"\b{name}\b", bad.error.message)
    assert echo(bad)["action"] == action


@pytest.mark.parametrize("action", ["get_invocation", "cancel_invocation", "attach_invocation"])
@pytest.mark.parametrize("given", [{}, {"invocation_id": None}, {"invocation_id": ""}])
def test_an_invocation_id_that_is_required_is_missed(action: str, given: Fields) -> None:
    bad = refusal(dumps(action=action, **given))
    assert bad.error.code == "invalid_request"
    assert "invocation_id" in bad.error.message
    assert echo(bad) == {"action": action}


@pytest.mark.parametrize("value", BAD_IDS)
@pytest.mark.parametrize("name", ["invocation_id", "session_id"])
def test_a_bad_id_alone_is_refused_and_named(name: str, value: str) -> None:
    bad = refusal(dumps(action="invoke", **{name: value}))
    assert bad.error.code == "invalid_request"
    assert bad.error.message.startswith(f"{name} ")
    assert echo(bad) == {"action": "invoke"}


@pytest.mark.parametrize("value", BAD_IDS)
@pytest.mark.parametrize(
    ("action", "name"),
    [
        ("invoke", "invocation_id"),
        ("invoke", "session_id"),
        ("get_invocation", "invocation_id"),
        ("get_invocation", "session_id"),
        ("cancel_invocation", "invocation_id"),
        ("cancel_invocation", "session_id"),
        ("attach_invocation", "invocation_id"),
    ],
)
def test_a_bad_id_is_refused_and_named(action: str, name: str, value: str) -> None:
    good = {"invocation_id": "i", "session_id": "s"} if action != "attach_invocation" else {}
    good.pop(name, None)
    bad = refusal(dumps(action=action, **good, **{name: value}))
    assert bad.error.code == "invalid_request"
    assert bad.error.message.startswith(f"{name} ")
    assert echo(bad) == {"action": action, **good}


# What the answer to a bad frame tells of it


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"action": "nope", **IDS}, IDS),
        (IDS, IDS),
        ({"action": 7, **IDS}, IDS),
        ({"action": "nope", "invocation_id": "i", "session_id": 5}, {"invocation_id": "i"}),
        ({"action": "nope", "invocation_id": "i i", "session_id": "s"}, {"session_id": "s"}),
        ({"action": "nope", "invocation_id": ""}, {}),
        ({"action": "nope", "invocation_id": ["i"]}, {}),
        (
            {"action": "invoke", "background": 1, **IDS},
            {"action": "invoke", **IDS},
        ),
        (
            {"action": "invoke", "invocation_id": "i", "session_id": ".."},
            {"action": "invoke", "invocation_id": "i"},
        ),
        (
            {"action": "invoke", "invocation_id": "..", "session_id": "s"},
            {"action": "invoke", "session_id": "s"},
        ),
        (
            {"action": "get_invocation", "session_id": "s"},
            {"action": "get_invocation", "session_id": "s"},
        ),
        (
            {"action": "cancel_invocation", "invocation_id": "", "session_id": "s"},
            {"action": "cancel_invocation", "session_id": "s"},
        ),
        (
            {"action": "attach_invocation", "starting_after": -1, **IDS},
            {"action": "attach_invocation", **IDS},
        ),
        (
            {"action": "attach_invocation", "invocation_id": "..", "session_id": "s"},
            {"action": "attach_invocation", "session_id": "s"},
        ),
    ],
)
def test_valid_ids_of_a_bad_frame_are_echoed(fields: Fields, told: Fields) -> None:
    assert echo(refusal(dumps(**fields))) == told
