"""JSON of values: what a body holds, and what a handler may return."""

import contextlib
import dataclasses
import gc
import json
import uuid
from datetime import UTC, datetime

import msgspec
import pydantic
import pytest
from hypothesis import given
from msgspec import UNSET

from agentws.protocol.decoding import BadFrame, decode_frame
from agentws.protocol.encoding import decode_payload, encode
from agentws.protocol.errors import InvocationError
from tests.protocol.conftest import NOT_JSON, json_values, patient

# Bodies


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


# Garbage collection


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


# What a handler may return


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
