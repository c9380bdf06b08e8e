"""What is read from the wire as a frame, and that whatever comes is one or is refused (§3)."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentws.protocol.decoding import BadFrame, decode_frame
from agentws.protocol.errors import STATUS
from agentws.protocol.frames import (
    AttachInvocation,
    CancelInvocation,
    ClientFrame,
    GetInvocation,
    Invoke,
    Ping,
    Pong,
)
from agentws.protocol.identifiers import is_id
from tests.protocol.conftest import (
    ACTIONS,
    BAD_IDS,
    GOOD_IDS,
    IDS,
    OPTIONAL_IDS,
    TRACEPARENT,
    Fields,
    any_text,
    dumps,
    echo,
    json_values,
    patient,
    refusal,
)

CALLERS_TRACE = {"traceparent": TRACEPARENT, "tracestate": "a=b", "baggage": "c=d"}


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
            Invoke({"message": "hello"}, "i", "s", True, "continue", None, None, **CALLERS_TRACE),
        ),
        ('{"action":"invoke","on_disconnect":"cancel"}', Invoke(on_disconnect="cancel")),
        ('{"action":"invoke","background":false}', Invoke(background=False)),
        ('{"action":"get_invocation","invocation_id":"i"}', GetInvocation("i")),
        (
            dumps(action="get_invocation", **IDS, **CALLERS_TRACE),
            GetInvocation("i", "s", **CALLERS_TRACE),
        ),
        ('{"action":"cancel_invocation","invocation_id":"i"}', CancelInvocation("i")),
        (
            dumps(action="cancel_invocation", **IDS, **CALLERS_TRACE),
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


@pytest.mark.parametrize("value", GOOD_IDS)
@pytest.mark.parametrize(
    "action", ["invoke", "get_invocation", "cancel_invocation", "attach_invocation"]
)
def test_a_good_id_is_taken(action: str, value: str) -> None:
    frame = decode_frame(dumps(action=action, invocation_id=value, session_id=value))
    assert getattr(frame, "invocation_id", None) == value
    assert getattr(frame, "session_id", value) == value


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
