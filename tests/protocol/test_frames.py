"""The wire: what is read from it, what is refused and how, and what is written to it."""

import contextlib
import dataclasses
import gc
import json
import re
import string
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw

import agentws
from agentws.protocol.decoding import CLIENT_FRAMES, BadFrame, decode_frame
from agentws.protocol.encoding import decode_payload, encode
from agentws.protocol.errors import (
    STATUS,
    InvocationError,
    PlatformCode,
    PlatformError,
    ReplayGap,
    error_body,
    error_source,
    shutting_down,
)
from agentws.protocol.frames import (
    Accepted,
    AttachInvocation,
    CancelInvocation,
    ClientFrame,
    ErrorFrame,
    GetInvocation,
    GoingAway,
    Invoke,
    Ping,
    Pong,
    Result,
    ServerFrame,
    ServerPing,
    ServerPong,
    StreamChunk,
    StreamEnd,
    action_of,
)
from agentws.protocol.identifiers import IdSource, given_id, is_id, new_id, trace_id
from agentws.protocol.records import Failure, Record, StreamState, encode_record

Fields = dict[str, Any]

ACTIONS = (
    "invoke",
    "get_invocation",
    "cancel_invocation",
    "attach_invocation",
    "ping",
    "pong",
)
ID_CHARACTERS = string.ascii_letters + string.digits + "._:-"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
CALLERS_TRACE = {"traceparent": TRACEPARENT, "tracestate": "a=b", "baggage": "c=d"}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)
# Tables of Unicode are built on the first draw, and machines that test are busy.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

any_text = st.text(st.characters())  # lone surrogates, too


def dumps(**fields: Any) -> str:
    return json.dumps(fields)


def refusal(message: str | bytes) -> BadFrame:
    with pytest.raises(BadFrame) as caught:
        decode_frame(message)
    return caught.value


def echo(bad: BadFrame) -> Fields:
    """What the answer tells of the message that it refuses."""
    frame = ErrorFrame(error_body(bad.error), bad.action, bad.invocation_id, bad.session_id)
    fields = json.loads(encode(frame))
    return {
        name: fields[name] for name in ("action", "invocation_id", "session_id") & fields.keys()
    }


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


# What is read


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ('{"action":"invoke"}', Invoke(payload={})),
        (
            dumps(
                action="invoke",
                payload={"message": "hello"},
                invocation_id="i",
                session_id="s",
                background=True,
                on_disconnect="continue",
                **CALLERS_TRACE,
            ),
            Invoke({"message": "hello"}, "i", "s", True, "continue", **CALLERS_TRACE),
        ),
        ('{"action":"invoke","on_disconnect":"cancel"}', Invoke(on_disconnect="cancel")),
        ('{"action":"invoke","background":false}', Invoke(background=False)),
        ('{"action":"get_invocation","invocation_id":"i"}', GetInvocation("i")),
        (
            dumps(
                action="get_invocation",
                invocation_id="i",
                session_id="s",
                **CALLERS_TRACE,
            ),
            GetInvocation("i", "s", **CALLERS_TRACE),
        ),
        ('{"action":"cancel_invocation","invocation_id":"i"}', CancelInvocation("i")),
        (
            dumps(
                action="cancel_invocation",
                invocation_id="i",
                session_id="s",
                **CALLERS_TRACE,
            ),
            CancelInvocation("i", "s", **CALLERS_TRACE),
        ),
        ('{"action":"attach_invocation","invocation_id":"i"}', AttachInvocation("i")),
        (
            '{"action":"attach_invocation","invocation_id":"i","starting_after":0}',
            AttachInvocation("i", 0),
        ),
        (
            '{"action":"attach_invocation","invocation_id":"i","starting_after":9223372036854775808}',
            AttachInvocation("i", 2**63),
        ),
        ('{"action":"ping"}', Ping()),
        ('{"action":"pong"}', Pong()),
    ],
)
@pytest.mark.parametrize("kind", [str, str.encode])
def test_a_frame_is_read_from_text_and_from_bytes(
    message: str, frame: ClientFrame, kind: Callable[[str], str | bytes]
) -> None:
    assert decode_frame(kind(message)) == frame


def test_every_action_of_the_protocol_is_known() -> None:
    assert set(CLIENT_FRAMES) == set(ACTIONS)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_frame_knows_its_action(action: str) -> None:
    assert action_of(decode_frame(dumps(action=action, invocation_id="i"))) == action


@pytest.mark.parametrize(
    "message",
    [
        '{"x":[{"y":null}],"action":"ping"}',
        '{"action":"ping","payload":"of another action"}',
        ' {\n"action"\t:\r"ping" } ',
        '{"\\u0061ction":"p\\u0069ng"}',
        '{"action":"ping","x":"\\ud83d\\ude00 \U0001f600 \\u0000"}',
    ],
)
def test_what_is_read_over(message: str) -> None:
    assert decode_frame(message) == Ping()


def test_attach_has_no_session_and_reads_over_one() -> None:
    message = dumps(action="attach_invocation", invocation_id="i", session_id=5)
    assert decode_frame(message) == AttachInvocation("i")


MISSPELT = [
    ("invoke", "invocationId", "invocation_id"),
    ("invoke", "InvocationID", "invocation_id"),
    ("invoke", "invocation-id", "invocation_id"),
    ("invoke", "__invocation__id", "invocation_id"),
    ("invoke", "Payload", "payload"),
    ("invoke", "onDisconnect", "on_disconnect"),
    ("invoke", "trace-parent", "traceparent"),
    ("get_invocation", "sessionId", "session_id"),
    ("get_invocation", "invocationId", "invocation_id"),
    ("cancel_invocation", "Baggage", "baggage"),
    ("attach_invocation", "startingAfter", "starting_after"),
    ("ping", "Action", "action"),
]


@pytest.mark.parametrize(("action", "given", "known"), MISSPELT)
@pytest.mark.parametrize("others", [{}, {"invocation_id": "i"}])
@pytest.mark.parametrize("value", [None, "x", 5])
def test_a_known_field_in_another_spelling_is_refused_by_both_names(
    action: str, given: str, known: str, others: Fields, value: object
) -> None:
    bad = refusal(dumps(action=action, **others, **{given: value}))
    assert bad.error.code == "invalid_request"
    assert repr(given) in bad.error.message
    assert known in bad.error.message.replace(given, "")
    assert echo(bad) == {"action": action, **others}


@pytest.mark.parametrize(
    ("action", "field"),
    [
        ("ping", "invocationId"),
        ("attach_invocation", "sessionId"),
        ("get_invocation", "onDisconnect"),
        ("invoke", "invocation"),
        ("invoke", "invocation id"),
        ("invoke", "invocation_ids"),
        ("invoke", "_"),
        ("invoke", ""),
    ],
)
def test_what_resembles_no_field_of_the_action_is_ignored(action: str, field: str) -> None:
    fields = {"action": action, "invocation_id": "i"}
    assert decode_frame(dumps(**fields, **{field: "x"})) == decode_frame(dumps(**fields))


def test_unknown_fields_beside_a_bad_one_change_nothing() -> None:
    bad = refusal(dumps(action="invoke", session_id=5, other=1))
    assert bad.error.message == refusal(dumps(action="invoke", session_id=5)).error.message


@pytest.mark.parametrize("payload", [None, True, 0, -1.5, "", "text", [], {}, [1, {"a": None}]])
def test_a_payload_is_any_json(payload: object) -> None:
    frame = decode_frame(dumps(action="invoke", payload=payload))
    assert isinstance(frame, Invoke)
    assert frame.payload == payload


def test_a_payload_not_given_is_an_object_of_its_own() -> None:
    first, second = decode_frame('{"action":"invoke"}'), decode_frame('{"action":"invoke"}')
    assert isinstance(first, Invoke)
    assert isinstance(second, Invoke)
    assert first.payload == {}
    assert first.payload is not second.payload


OPTIONAL_IDS = [
    ("invoke", "invocation_id"),
    ("invoke", "session_id"),
    ("get_invocation", "session_id"),
    ("cancel_invocation", "session_id"),
]
OPTIONAL = [
    *OPTIONAL_IDS,
    ("invoke", "background"),
    ("invoke", "on_disconnect"),
    ("attach_invocation", "starting_after"),
    *(
        (action, name)
        for action in ("invoke", "get_invocation", "cancel_invocation")
        for name in ("traceparent", "tracestate", "baggage")
    ),
]


def without_and_with(action: str, name: str, value: object) -> tuple[ClientFrame, ClientFrame]:
    fields = {"action": action, "invocation_id": "i", "session_id": "s"}
    fields.pop(name, None)
    return decode_frame(dumps(**fields)), decode_frame(dumps(**fields, **{name: value}))


@pytest.mark.parametrize(("action", "name"), OPTIONAL)
def test_null_is_as_not_given(action: str, name: str) -> None:
    absent, null = without_and_with(action, name, None)
    assert absent == null
    assert getattr(null, name) is None


@pytest.mark.parametrize(("action", "name"), OPTIONAL_IDS)
def test_an_empty_id_is_as_not_given(action: str, name: str) -> None:
    absent, empty = without_and_with(action, name, "")
    assert absent == empty
    assert getattr(empty, name) is None


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ('{"action":"ping","action":"pong"}', Pong()),
        ('{"action":7,"action":"ping"}', Ping()),
        ('{"action":"nope","action":"ping"}', Ping()),
        ('{"action":"invoke","invocation_id":"a","invocation_id":"b"}', Invoke(invocation_id="b")),
        ('{"action":"invoke","invocation_id":5,"invocation_id":"b"}', Invoke(invocation_id="b")),
        ('{"action":"invoke","invocation_id":"..","invocation_id":"b"}', Invoke(invocation_id="b")),
        ('{"action":"invoke","payload":{"a":1,"a":2},"payload":{"a":3,"a":4}}', Invoke({"a": 4})),
        ('{"action":"invoke","background":1,"background":true}', Invoke(background=True)),
    ],
)
def test_the_last_of_duplicate_keys_wins(message: str, frame: ClientFrame) -> None:
    assert decode_frame(message) == frame


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"action":"ping","action":7}', "invalid_action"),
        ('{"action":"ping","action":"nope"}', "invalid_action"),
        ('{"action":"invoke","invocation_id":"b","invocation_id":5}', "invalid_request"),
        ('{"action":"invoke","invocation_id":"b","invocation_id":".."}', "invalid_request"),
    ],
)
def test_the_last_of_duplicate_keys_is_refused(message: str, code: str) -> None:
    assert refusal(message).error.code == code


# What is not JSON


NOT_JSON = {
    "empty": "",
    "blank": " \n",
    "byte order mark": '\ufeff{"action":"ping"}',
    "words": "action: ping",
    "not a number": "NaN",
    "infinity": '{"action":"invoke","payload":Infinity}',
    "single quotes": "{'action':'ping'}",
    "cut off": '{"action":"ping"',
    "cut off in a string": '{"action":"pi',
    "trailing comma": '{"action":"ping",}',
    "two values": '{"action":"ping"}{"action":"ping"}',
    "comment": '{"action":"ping"/**/}',
    "control character": '{"action":"ping","x":"\x01"}',
    "unknown escape": '{"action":"ping","x":"\\q"}',
    "leading zero": '{"action":"invoke","payload":01}',
    "number without digits": '{"action":"invoke","payload":1.}',
    "lone surrogate": '{"action":"invoke","payload":"\\ud800"}',
    "lone low surrogate": '{"action":"invoke","payload":"\\udc00"}',
    "surrogates in the wrong order": '{"action":"invoke","payload":"\\ude00\\ud83d"}',
    "lone surrogate in a key": '{"action":"invoke","payload":{"\\ud800":1}}',
    "lone surrogate in an unknown field": '{"action":"ping","x":"\\ud800"}',
    "lone surrogate as unknown field": '{"action":"ping","\\ud800":1}',
    "lone surrogate in the action": '{"action":"\\ud800"}',
    "lone surrogate in an id": '{"action":"invoke","invocation_id":"\\ud800"}',
    "lone surrogate beside a wrong type": '{"action":"invoke","background":1,"payload":"\\ud800"}',
    "number out of range": '{"action":"invoke","payload":1e999}',
    "negative number out of range": '{"action":"invoke","payload":[-1e999]}',
    "number out of range beside a wrong type": '{"action":7,"payload":1e999}',
    "5,000 digits": '{"action":"invoke","payload":' + "9" * 5_000 + "}",
    "starting after 5,000 digits": (
        '{"action":"attach_invocation","invocation_id":"i","starting_after":' + "9" * 5_000 + "}"
    ),
    "10,000 deep": '{"action":"invoke","payload":' + nested(10_000) + "}",
    "1,000,000 deep": '{"action":"invoke","payload":' + nested(1_000_000) + "}",
    "objects 10,000 deep": '{"action":"invoke","payload":' + '{"":' * 10_000 + "0" + "}" * 10_001,
    "10,000 deep in an unknown field": '{"action":"ping","x":' + nested(10_000) + "}",
    "10,000 deep instead of an object": nested(10_000),
    "10,000 deep beside a wrong type": '{"action":7,"x":' + nested(10_000) + "}",
}


@pytest.mark.parametrize("kind", [str, str.encode])
@pytest.mark.parametrize("message", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_no_json_is_refused(message: str, kind: Callable[[str], str | bytes]) -> None:
    bad = refusal(kind(message))
    assert bad.error.code == "invalid_json"
    assert echo(bad) == {}
    assert len(bad.error.message) < 100


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


BAD_IDS = [
    ".",
    "..",
    "." * 256,
    "a" * 257,
    "a\n",
    "\n",
    "a\nb",
    "a b",
    " a",
    "a ",
    "a/b",
    "../a",
    "a%20",
    "a\x00",
    "é",
    "e\u0301",
    "日本",
    "\U0001f600",
    "\u0661",  # a digit, but an Arabic one
    "\uff41",  # a letter, but a wide one
    "\u212a",  # the sign of the kelvin: a K when its case is ignored
]
GOOD_IDS = [
    "a",
    "Z",
    "0",
    "-",
    "_",
    ":",
    ".a",
    "a.",
    "..-",
    "." * 255 + ":",
    "a" * 256,
    ID_CHARACTERS,
    str(uuid.uuid4()),
]


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


@pytest.mark.parametrize("value", GOOD_IDS)
@pytest.mark.parametrize(
    "action", ["invoke", "get_invocation", "cancel_invocation", "attach_invocation"]
)
def test_a_good_id_is_taken(action: str, value: str) -> None:
    frame = decode_frame(dumps(action=action, invocation_id=value, session_id=value))
    assert not isinstance(frame, Ping | Pong)
    assert frame.invocation_id == value
    assert getattr(frame, "session_id", value) == value


# What the answer to a bad frame tells of it


IDS = {"invocation_id": "i", "session_id": "s"}


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


# Whatever comes


field_names = st.sampled_from(
    [
        "action",
        "payload",
        "invocation_id",
        "session_id",
        "background",
        "on_disconnect",
        "starting_after",
        "traceparent",
        "tracestate",
        "baggage",
    ]
)
likely_values = (
    st.sampled_from([*ACTIONS, *GOOD_IDS[:4], *BAD_IDS[:5], "", "cancel", 0, 1, -1, 2**64])
    | json_values
)
frame_like = st.dictionaries(field_names | st.text(max_size=3), likely_values)
any_objects = frame_like | st.builds(
    lambda fields, action: {**fields, "action": action}, frame_like, st.sampled_from(ACTIONS)
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message of which a part was overwritten."""
    message = json.dumps(draw(any_objects), ensure_ascii=draw(st.booleans())).encode()
    start = draw(st.integers(0, len(message)))
    end = draw(st.integers(start, min(len(message), start + 3)))
    return message[:start] + draw(st.binary(max_size=3)) + message[end:]


def check_whatever_comes(message: str | bytes) -> str | None:
    """Decode a message that may be anything; return the code of the refusal."""
    try:
        frame = decode_frame(message)
    except BadFrame as bad:
        return check_refusal(bad)
    for name in ("invocation_id", "session_id"):
        value = getattr(frame, name, None)
        assert value is None or is_id(value)
    return None


def check_refusal(bad: BadFrame) -> str:
    told = echo(bad)  # it can be encoded
    assert told.pop("action", "invoke") in ACTIONS
    assert all(is_id(value) for value in told.values())
    assert STATUS[bad.error.code] == 400
    return bad.error.code


@patient
@given(any_text | st.binary() | damaged())
def test_any_text_or_bytes_is_a_frame_or_a_bad_frame(message: str | bytes) -> None:
    check_whatever_comes(message)


@patient
@given(any_objects, st.booleans())
def test_any_object_is_a_frame_or_bad_but_never_no_json(fields: Fields, ascii_only: bool) -> None:
    code = check_whatever_comes(json.dumps(fields, ensure_ascii=ascii_only))
    assert code in {None, "invalid_action", "invalid_request"}
    assert (code == "invalid_action") == (fields.get("action") not in ACTIONS)


@patient
@given(st.text(ID_CHARACTERS, max_size=300) | st.text("./", max_size=3) | any_text)
def test_an_id_is_what_the_protocol_says(value: str) -> None:
    allowed = 1 <= len(value) <= 256 and set(value) <= set(ID_CHARACTERS) and set(value) != {"."}
    assert is_id(value) == allowed


@pytest.mark.parametrize("value", [None, 5, b"a", ["a"]])
def test_what_is_no_string_is_no_id(value: object) -> None:
    assert not is_id(value)


@pytest.mark.parametrize(("value", "given"), [(None, None), ("", None), ("a", "a")])
def test_an_id_is_given_or_not(value: str | None, given: str | None) -> None:
    assert given_id("x-id", value) == given


@pytest.mark.parametrize("value", BAD_IDS)
def test_a_given_id_that_is_bad_is_refused(value: str) -> None:
    with pytest.raises(InvocationError, match=r"invalid_request: x-id must be") as caught:
        given_id("x-id", value)
    assert caught.value.status == 400


def test_new_ids_are_random_uuids() -> None:
    source = IdSource()
    made = [source() for _ in range(3 * IdSource.BATCH)] + [new_id() for _ in range(100)]
    assert len(set(made)) == len(made)
    for value in made:
        assert is_id(value)
        read = uuid.UUID(value)
        assert (str(read), read.version, read.variant) == (value, 4, uuid.RFC_4122)
    # Every digit varies but the version's and, in one of the two makes, the variant's.
    fixed = [index for index, digits in enumerate(zip(*made, strict=True)) if len({*digits}) == 1]
    assert fixed == [8, 13, 14, 18, 23]


def test_sources_do_not_make_the_same_ids() -> None:
    first, second = IdSource(), IdSource()
    assert not {first() for _ in range(100)} & {second() for _ in range(100)}


# Payloads over HTTP


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('{"action":"invoke","payload":[%s0]}' % ("[]," * 100_000), True),
        ('{"action":"invoke","payload":[%s]}' % ("[]," * 100_000), False),
        ('{"action":"invoke","session_id":5,"payload":[%s0]}' % ("[]," * 100_000), False),
    ],
)
def test_no_garbage_is_collected_while_a_large_text_is_decoded(text: str, good: bool) -> None:
    collections: list[str] = []

    def note(phase: str, _: object) -> None:
        collections.append(phase)

    gc.callbacks.append(note)
    try:
        with contextlib.nullcontext() if good else pytest.raises(BadFrame):
            decode_frame(text)
        while_decoding = len(collections)
    finally:
        gc.callbacks.remove(note)
    assert while_decoding <= 2  # one may begin once it is on again
    assert gc.isenabled()


def test_garbage_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        decode_payload(b"[%b]" % (b" " * 100_000))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_an_empty_body_is_an_empty_object() -> None:
    assert decode_payload(b"") == {}


@patient
@given(json_values)
def test_a_body_is_any_json(value: object) -> None:
    assert decode_payload(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        *(message.encode() for name, message in NOT_JSON.items() if name != "empty"),
        b'"\xff"',
        b'{"\xff":1}',
        b'{"a":"\xff","a":1}',
        b'"\xed\xa0\x80"',
    ],
)
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvocationError) as caught:
        decode_payload(body)
    assert (caught.value.code, caught.value.status) == ("invalid_json", 400)


# Trace context


@pytest.mark.parametrize(
    ("traceparent", "found"),
    [
        (TRACEPARENT, TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-00", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-ff", TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"fe-{TRACE}-00f067aa0ba902b7-01-of-the-future", TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-01-more", None),
        (f"00-{TRACE}-00f067aa0ba902b7-01-", None),
        (f"01-{TRACE}-00f067aa0ba902b7-01more", None),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE[:-1]}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE[:-1]}g-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}0-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-00f067aa0ba902b7", None),
        (f"00-{TRACE}-00f067aa0ba902b7-1", None),
        (f"0-{TRACE}-00f067aa0ba902b7-01", None),
        (f" {TRACEPARENT}", None),
        (f"{TRACEPARENT}\n", None),
        ("", None),
        (None, None),
        ("nonsense", None),
    ],
)
def test_the_trace_id_of_a_traceparent(traceparent: str | None, found: str | None) -> None:
    assert trace_id(traceparent) == found


# Errors


ERRORS = {
    # code: (status, source, retryable)
    "invalid_json": (400, "user", False),
    "invalid_message": (400, "user", False),
    "invalid_action": (400, "user", False),
    "invalid_request": (400, "user", False),
    "unauthorized": (401, "user", False),
    "forbidden": (403, "user", False),
    "not_found": (404, "user", False),
    "method_not_allowed": (405, "user", False),
    "upgrade_required": (426, "user", False),
    "already_exists": (409, "user", False),
    "already_finished": (409, "user", False),
    "cancelled": (409, "user", False),
    "payload_too_large": (413, "user", False),
    "unsupported_media_type": (415, "user", False),
    "too_many_invocations": (429, "platform", True),
    "replay_gap": (410, "user", False),
    "internal_error": (500, "upstream", False),
    "not_implemented": (501, "upstream", False),
    "shutting_down": (503, "platform", True),
    "store_unavailable": (503, "platform", True),
    "too_many_connections": (503, "platform", True),
    "timeout": (504, "upstream", True),
    "lost": (502, "platform", False),
}


def test_the_codes_are_those_of_the_protocol() -> None:
    assert set(STATUS) == set(ERRORS)


@pytest.mark.parametrize(("code", "expected"), ERRORS.items())
def test_an_error_of_the_protocol(code: str, expected: tuple[int, str, bool]) -> None:
    status, source, retryable = expected
    kind: Any = PlatformError if source == "platform" else InvocationError
    error = kind(code, "What went wrong")
    assert error.status == status
    assert error_source(error) == source
    assert json.loads(encode(error_body(error))) == {
        "code": code,
        "message": "What went wrong",
        "retryable": retryable,
        "source": source,
    }


@pytest.mark.parametrize("code", STATUS)
def test_what_an_agent_raises_is_never_the_platforms(code: str) -> None:
    status, _, retryable = ERRORS[code]
    body = error_body(InvocationError(code, "m"))
    assert (body.source, body.retryable) == ("upstream" if status >= 500 else "user", retryable)


@pytest.mark.parametrize("code", get_args(PlatformCode))
def test_the_daemon_raises_what_is_the_platforms_as_such(code: str) -> None:
    as_an_agent = re.compile(rf"""InvocationError\(\s*["']{code}["']""")
    for module in Path(agentws.__file__).parent.rglob("*.py"):
        assert as_an_agent.search(module.read_text()) is None, module


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("quota", None, (400, "user", False)),
        ("quota", 400, (400, "user", False)),
        ("quota", 429, (429, "user", True)),
        ("quota", 499, (499, "user", False)),
        ("quota", 500, (500, "upstream", False)),
        ("quota", 501, (501, "upstream", False)),
        ("quota", 503, (503, "upstream", True)),
        ("quota", 504, (504, "upstream", True)),
        ("quota", 599, (599, "upstream", False)),
        ("not_found", 410, (410, "user", False)),
        ("not_found", 503, (503, "upstream", True)),
        ("", None, (400, "user", False)),
    ],
)
def test_an_error_of_the_agents_own(
    code: str, status: int | None, expected: tuple[int, str, bool]
) -> None:
    error = InvocationError(code, "m", status)
    body = error_body(error)
    assert (error.status, body.source, body.retryable) == expected
    assert (body.code, body.message) == (code, "m")


@pytest.mark.parametrize("status", [-1, 0, 200, 302, 399, 600, 1000])
def test_a_status_that_is_no_error_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match=rf"400 and 599, not {status}$"):
        InvocationError("quota", "m", status)


def test_an_error_reads_as_code_and_message() -> None:
    assert str(InvocationError("quota", "No more today")) == "quota: No more today"


def test_an_error_with_half_an_emoji_can_be_told() -> None:
    error = InvocationError("c\ud83d", "m\ude00 é \U0001f600")
    body = json.loads(encode(error_body(error)))
    assert (body["code"], body["message"]) == ("c?", "m? é \U0001f600")


@patient
@given(any_text, any_text)
def test_any_error_can_be_told(code: str, message: str) -> None:
    error = InvocationError(code, message)
    body = json.loads(encode(error_body(error)))
    assert (body["code"], body["message"]) == (error.code, error.message)


def test_a_replay_gap_tells_what_is_held() -> None:
    gap = ReplayGap(17)
    assert gap.status == 410
    assert json.loads(encode(error_body(gap))) == {
        "code": "replay_gap",
        "message": gap.message,
        "retryable": False,
        "source": "user",
        "first_available": 17,
    }


# Records


CREATED = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
FINISHED = datetime(2025, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC).timestamp()
RUNNING: Fields = {
    "invocation_id": "i",
    "session_id": "s",
    "status": "running",
    "created_at": "2025-01-02T03:04:05Z",
}


def a_record(**fields: Any) -> Record:
    return Record("i", "s", CREATED, **fields)


@pytest.mark.parametrize(
    ("record", "stream", "encoded"),
    [
        (a_record(), None, RUNNING),
        (a_record(owner="alice"), None, RUNNING),  # whose it is, is nobody's business
        (
            a_record(status="completed", finished_at=FINISHED, result=b'{"a":[1,null]}'),
            None,
            {
                **RUNNING,
                "status": "completed",
                "finished_at": "2025-01-02T03:04:05.250000Z",
                "result": {"a": [1, None]},
            },
        ),
        (
            a_record(status="completed", finished_at=CREATED, result=b"null"),
            None,
            {**RUNNING, "status": "completed", "finished_at": "2025-01-02T03:04:05Z"},
        ),
        *(
            (
                a_record(status="completed", finished_at=CREATED, result=result),
                None,
                {
                    **RUNNING,
                    "status": "completed",
                    "finished_at": "2025-01-02T03:04:05Z",
                    "result": json.loads(result),
                },
            )
            for result in (b"false", b"0", b'""', b"[]", b"{}")
        ),
        *(
            (
                a_record(
                    status=status,
                    finished_at=CREATED,
                    failure=Failure("quota", "No more", 429, is_platform=False),
                ),
                None,
                {
                    **RUNNING,
                    "status": status,
                    "finished_at": "2025-01-02T03:04:05Z",
                    "error": {"code": "quota", "message": "No more"},
                },
            )
            for status in ("failed", "cancelled", "lost")
        ),
        (
            a_record(streams=True),
            StreamState(1, 0),
            {**RUNNING, "stream": {"first_available": 1, "last_sequence_number": 0}},
        ),
        (
            a_record(streams=True),
            StreamState(8, 12),
            {**RUNNING, "stream": {"first_available": 8, "last_sequence_number": 12}},
        ),
    ],
)
def test_a_record_is_told_without_what_is_not_known(
    record: Record, stream: StreamState | None, encoded: Fields
) -> None:
    assert json.loads(encode_record(record, stream)) == encoded


@patient
@given(st.floats(0, 4e9))
def test_times_are_rfc_3339_in_utc(seconds: float) -> None:
    told = json.loads(encode_record(Record("i", "s", seconds), None))["created_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", told)
    assert datetime.fromisoformat(told).timestamp() == pytest.approx(seconds, abs=1e-6)


def test_a_record_knows_its_error() -> None:
    assert a_record().error is None
    for error in (
        InvocationError("quota", "m", 429),
        InvocationError("lost", "m"),
        shutting_down(),
    ):
        kept = a_record(status="failed", failure=Failure.of(error)).error
        assert kept is not None
        assert error_body(kept) == error_body(error)
        assert (type(kept), kept.status) == (type(error), error.status)


# What is written


@pytest.mark.parametrize(
    ("frame", "encoded"),
    [
        (
            Result("i", Raw(b'{"a":1}'), "s"),
            {"type": "result", "invocation_id": "i", "payload": {"a": 1}, "session_id": "s"},
        ),
        (
            Result("i", Raw(b"null"), action="get_invocation"),
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


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Token(msgspec.Struct):
    text: str
    logprob: float | msgspec.UnsetType = UNSET


class Source(pydantic.BaseModel):
    url: pydantic.HttpUrl


class Answer(pydantic.BaseModel):
    text: str
    when: datetime
    score: float = 0.5


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (Point(1, 2.5), {"x": 1, "y": 2.5}),
        (Token("a"), {"text": "a"}),
        (datetime(2025, 1, 2, tzinfo=UTC), "2025-01-02T00:00:00Z"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (float("nan"), None),
        ([float("inf"), -float("inf")], [None, None]),
        ((1, 2), [1, 2]),
        ({1: "a"}, {"1": "a"}),
        (2**64, 2**64),
        (-(10**40), -(10**40)),
        (
            Answer(text="a", when=datetime(2025, 1, 2, tzinfo=UTC)),
            {"text": "a", "when": "2025-01-02T00:00:00Z", "score": 0.5},
        ),
        ([Source(url=pydantic.HttpUrl("https://a.example/b"))], [{"url": "https://a.example/b"}]),
        (
            {"answers": [Answer(text="a", when=datetime(2025, 1, 2, tzinfo=UTC))]},
            {"answers": [{"text": "a", "when": "2025-01-02T00:00:00Z", "score": 0.5}]},
        ),
        (
            Answer(text="a", when=datetime(2025, 1, 2, tzinfo=UTC), score=float("nan")),
            {"text": "a", "when": "2025-01-02T00:00:00Z", "score": None},
        ),
    ],
)
def test_values_that_a_handler_may_return(value: object, encoded: object) -> None:
    assert json.loads(encode(value)) == encoded


def endless() -> object:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [object(), 1j, {None: 1}, Answer, len, "\ud800", {"\ud800": 1}, [object()], endless()],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_json_cannot_hold_is_an_ordinary_exception(value: object) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any will do, only the kind counts
        encode(value)
    assert not isinstance(caught.value, InvocationError)
