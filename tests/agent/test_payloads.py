"""Types of payloads: what is converted, what a client is told, and which types are refused."""

import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import logging
import subprocess
import sys
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import annotated_types
import msgspec
import pydantic
import pytest
import typing_extensions
from msgspec import Meta, Raw, Struct

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent
from agentws.agent.payloads import LONGEST_TEXT, answer_type
from agentws.protocol.errors import InvocationError

T = TypeVar("T")
UserId = NewType("UserId", int)


class Mood(enum.Enum):
    CALM = "calm"
    CROSS = "cross"


class Question(Struct):
    message: str
    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    mood: Mood = Mood.CALM


class Cat(Struct, tag=True):
    lives: int


class Dog(Struct, tag=True):
    name: str


class Box(Struct, Generic[T]):
    inside: T


class Tree(Struct):
    branches: "list[Tree]" = []


class Strict(Struct, forbid_unknown_fields=True):
    message: str


@dataclasses.dataclass
class Place:
    x: float
    y: float = 0


class Options(TypedDict):
    depth: int
    name: typing_extensions.NotRequired[str]


class Pair(NamedTuple):
    left: int
    right: str


class Model(pydantic.BaseModel):
    value: int = pydantic.Field(gt=0)
    at: datetime.datetime | None = None


class Cold(pydantic.BaseModel):
    kind: Literal["cold"]


class Warm(pydantic.BaseModel):
    kind: Literal["warm"]
    degrees: float


@pydantic.dataclasses.dataclass
class Reading:
    value: int = pydantic.Field(gt=0)


@dataclasses.dataclass
class Readings:
    readings: list[Reading]
    count: Annotated[int, pydantic.Field(gt=0)] = 1


class Mixed(Struct):
    """Models of pydantic's in a Struct."""

    model: Model
    models: list[Model] = []


def agent_that_takes(annotation: Any) -> Agent:
    """Return an agent whose payload has this type."""

    async def invoke(payload: Any, context: InvocationContext) -> None: ...

    invoke.__annotations__["payload"] = annotation
    agent = Agent()
    agent.invoke_handler(invoke)
    return agent


def refusal(annotation: Any, payload: Any) -> str:
    """Return what a client is told of a payload that does not fit."""
    with pytest.raises(InvocationError) as caught:
        agent_that_takes(annotation).convert(payload)
    assert (caught.value.code, caught.value.status) == ("invalid_request", 400)
    return caught.value.message


# What fits


NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
A_UUID = uuid.UUID("0f6b7c6a-8f41-4a6e-9a7e-0f6b7c6a8f41")


@pytest.mark.parametrize(
    ("annotation", "payload", "converted"),
    [
        (Question, {"message": "hi"}, Question("hi")),
        (Question, {"message": "hi", "mood": "cross"}, Question("hi", mood=Mood.CROSS)),
        (Question, {"message": "hi", "unknown": 1}, Question("hi")),
        (Question | None, None, None),
        (list[Question], [{"message": "a"}], [Question("a")]),
        (Cat | Dog, {"type": "Dog", "name": "Rex"}, Dog("Rex")),
        (Box[int], {"inside": 1}, Box(1)),
        (Tree, {"branches": [{}]}, Tree([Tree()])),
        (Place, {"x": 1}, Place(1.0)),
        (Options, {"depth": 1}, {"depth": 1}),
        (Pair, [1, "a"], Pair(1, "a")),
        (str, "hi", "hi"),
        (int, 1, 1),
        (int, 2**70, 2**70),
        (float, 1, 1.0),
        (bool, True, True),
        (UserId, 5, 5),
        (None, None, None),
        (int | str, "a", "a"),
        (Literal["a", 1], 1, 1),
        (Mood, "calm", Mood.CALM),
        (list, [1, "a"], [1, "a"]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (
            list[dict[uuid.UUID, dict[float, int]]],
            [{str(A_UUID): {"1.5": 1}}],
            [{A_UUID: {1.5: 1}}],
        ),
        (list[typing.Dict], [{"a": 1}], [{"a": 1}]),  # type: ignore[type-arg]  # noqa: UP006
        (Box[dict[int, int]], {"inside": {"1": 1}}, Box({1: 1})),
        (Mapping[str, Any], {"a": [1]}, {"a": [1]}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1], {1}),
        (bytes, "aGk=", b"hi"),
        (datetime.datetime, "2026-01-02T12:00:00Z", NOON),
        (datetime.date, "2026-01-02", datetime.date(2026, 1, 2)),
        (datetime.timedelta, "PT1M", datetime.timedelta(minutes=1)),
        (uuid.UUID, str(A_UUID), A_UUID),
        (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
        (decimal.Decimal, 1.5, decimal.Decimal("1.5")),
        (Annotated[int, Meta(ge=1)], 1, 1),
    ],
    ids=repr,
)
def test_a_payload_is_converted_as_msgspec_decodes_json(
    annotation: Any, payload: Any, converted: Any
) -> None:
    found = agent_that_takes(annotation).convert(payload)
    assert (type(found), found) == (type(converted), converted)


@pytest.mark.parametrize(
    ("annotation", "payload", "converted"),
    [
        (Model, {"value": 1}, Model(value=1)),
        (Model, {"value": 1, "at": "2026-01-02T12:00:00Z"}, Model(value=1, at=NOON)),
        (Model | None, None, None),
        (list[Model], [{"value": 1}], [Model(value=1)]),
        (Cold | Warm, {"kind": "warm", "degrees": 1}, Warm(kind="warm", degrees=1)),
        (
            Annotated[Cold | Warm, pydantic.Field(discriminator="kind")],
            {"kind": "cold"},
            Cold(kind="cold"),
        ),
        (Reading, {"value": 1}, Reading(1)),
        (Readings, {"readings": [{"value": 1}]}, Readings([Reading(1)])),
        (Mixed, {"model": {"value": 1}}, Mixed(Model(value=1))),
        (
            Mixed,
            {"model": {"value": 1}, "models": [{"value": 2}]},
            Mixed(Model(value=1), [Model(value=2)]),
        ),
        (Annotated[int, annotated_types.Gt(1)], 2, 2),
        (pydantic.PositiveInt, 2, 2),
        (pydantic.JsonValue, {"a": [1]}, {"a": [1]}),
    ],
    ids=repr,
)
def test_what_is_pydantics_is_converted_by_it(
    annotation: Any, payload: Any, converted: Any
) -> None:
    found = agent_that_takes(annotation).convert(payload)
    assert (type(found), found) == (type(converted), converted)


def test_a_strict_model_takes_what_json_has_to_say_by_strings() -> None:
    class Exact(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True, val_json_bytes="base64")

        at: datetime.datetime
        pair: tuple[int, str]
        data: bytes

    payload = {"at": "2026-01-02T12:00:00Z", "pair": [1, "a"], "data": "aGk="}
    found = agent_that_takes(Exact).convert(payload)
    assert (found.at, found.pair, found.data) == (NOON, (1, "a"), b"hi")


@pytest.mark.parametrize("annotation", [Any, object, dict, typing.Dict])  # noqa: UP006
@pytest.mark.parametrize("payload", [{"a": 1}, [1], "text", None])
def test_what_says_nothing_leaves_a_payload_as_it_came(annotation: Any, payload: Any) -> None:
    assert agent_that_takes(annotation).convert(payload) is payload


async def without_annotation(payload, context):  # type: ignore[no-untyped-def]
    return payload


def test_without_an_annotation_a_payload_stays_as_it_came() -> None:
    agent = Agent()
    agent.invoke_handler(without_annotation)
    payload = {"a": 1}
    assert agent.convert(payload) is payload
    assert Agent().convert(payload) is payload


def test_pydantic_is_not_imported_for_who_does_not_use_it() -> None:
    program = """if True:
        import sys
        from msgspec import Struct
        from agentws import Agent

        class Question(Struct):
            message: str

        async def invoke(payload: Question, context) -> Question: ...

        agent = Agent()
        agent.invoke_handler(invoke)
        agent.convert({"message": "hi"})
        assert "pydantic" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", program], check=True)


# What does not fit


@pytest.mark.parametrize(
    ("annotation", "payload", "message"),
    [
        (Question, {"message": 5}, "payload: Expected `str`, got `int` - at `$.message`"),
        (Question, {}, "payload: Object missing required field `message`"),
        (Question, [], "payload: Expected `object`, got `array`"),
        (
            Question,
            {"message": "a", "temperature": 3},
            "payload: Expected `float` <= 2.0 - at `$.temperature`",
        ),
        (
            Question,
            {"message": "a", "mood": "sad"},
            "payload: Invalid enum value 'sad' - at `$.mood`",
        ),
        (
            list[Question],
            [{"message": None}],
            "payload: Expected `str`, got `null` - at `$[0].message`",
        ),
        (Cat | Dog, {"type": "Bird"}, "payload: Invalid value 'Bird' - at `$.type`"),
        (Strict, {"message": "a", "b": 1}, "payload: Object contains unknown field `b`"),
        (Place, {"y": 1}, "payload: Object missing required field `x`"),
        (Options, {"depth": "1"}, "payload: Expected `int`, got `str` - at `$.depth`"),
        (int, "1", "payload: Expected `int`, got `str`"),
        (bool, 1, "payload: Expected `bool`, got `int`"),
        (bytes, "!", "payload: Invalid base64 encoded string"),
        (dict[str, Any], [], "payload: Expected `object`, got `array`"),
        (Model, {"value": 0}, "payload: value: Input should be greater than 0"),
        (Model, {}, "payload: value: Field required"),
        (Model, [], "payload: Input should be an object"),
        (
            list[Model],
            [{"value": 1}, {"value": -1}],
            "payload: 1.value: Input should be greater than 0",
        ),
        (
            Mixed,
            {"model": {"value": 1}, "models": [{"value": 0}]},
            "payload: value: Input should be greater than 0 - at `$.models[0]`",
        ),
        (Readings, {"readings": [], "count": 0}, "payload: count: Input should be greater than 0"),
    ],
    ids=repr,
)
def test_a_client_is_told_what_is_wrong_and_where(
    annotation: Any, payload: Any, message: str
) -> None:
    assert refusal(annotation, payload) == message


def test_what_a_client_sent_is_not_told_back_at_length() -> None:
    assert len(refusal(Literal["a"], "b" * 100_000)) == LONGEST_TEXT


def test_what_nests_too_deeply_is_the_clients_fault() -> None:
    payload: dict[str, Any] = {}
    for _ in range(5000):
        payload = {"branches": [payload]}
    assert refusal(Tree, payload).startswith("payload: maximum recursion depth exceeded")


class Choosy(Struct):
    """A type with code of its own."""

    raises: Literal["ValueError", "InvocationError", "KeyError", "SystemExit"]

    def __post_init__(self) -> None:
        match self.raises:
            case "ValueError":
                raise ValueError("not this one")
            case "InvocationError":
                raise InvocationError("quota", "no more", 429)
            case "KeyError":
                raise KeyError("a secret")
            case "SystemExit":
                raise SystemExit(3)


def test_a_type_may_refuse_in_its_own_words() -> None:
    assert refusal(Choosy, {"raises": "ValueError"}) == "payload: not this one"
    with pytest.raises(InvocationError) as caught:
        agent_that_takes(Choosy).convert({"raises": "InvocationError"})
    assert (caught.value.code, caught.value.status) == ("quota", 429)


@pytest.mark.parametrize("raises", ["KeyError", "SystemExit"])
def test_what_else_a_type_raises_is_for_the_log_only(
    caplog: pytest.LogCaptureFixture, raises: str
) -> None:
    with pytest.raises(InvocationError) as caught:
        agent_that_takes(Choosy).convert({"raises": raises})
    assert (caught.value.code, caught.value.message) == ("internal_error", "Internal server error")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("agentws.agent", logging.ERROR)
    assert record.exc_info is not None
    assert raises in str(record.exc_info[0])


def test_garbage_is_not_collected_while_a_payload_is_converted() -> None:
    seen: list[bool] = []

    class Watching(Struct):
        def __post_init__(self) -> None:
            seen.append(gc.isenabled())

    agent_that_takes(Watching).convert({})
    assert gc.isenabled()
    gc.disable()
    try:
        agent_that_takes(Watching).convert({})
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert seen == [False, False]


# What is refused where it is registered


class Foreign:
    """A class that nobody knows how to make of JSON."""


class HoldsForeign(Struct):
    foreign: Foreign


class HoldsRaw(Struct):
    raw: Raw


class HoldsField(Struct):
    value: Annotated[int, pydantic.Field(gt=0)]


class HoldsReading(Struct):
    reading: Reading


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (Foreign, "Foreign is not known to msgspec"),
        (HoldsForeign, "Foreign is not known to msgspec"),
        (Annotated[Foreign, Meta(extra_json_schema={"type": "object"})], "Foreign is not known"),
        (Callable[[], int], "is not known to msgspec"),
        (complex, "complex is not known to msgspec"),
        (Raw, "so that none is Raw"),
        (HoldsRaw, "so that none is Raw"),
        (Question | Strict, "must be tagged"),
        (HoldsField, "it has Structs, and msgspec does not know FieldInfo"),
        (HoldsReading, "it has Structs, and msgspec does not know Reading"),
        (list[Question | Model], "may not contain any additional types"),
        (Annotated[Model, Meta(description="a")], "pydantic's, which does not know msgspec.Meta"),
        (
            Annotated[str, Meta(extra_json_schema={"minLength": "a"})],
            r"at `\$.allOf\[0\].minLength`",
        ),
        ("Nowhere", "'Nowhere' cannot be resolved: name 'Nowhere' is not defined"),
        (list["Nowhere"], "cannot be resolved"),  # type: ignore[name-defined]  # noqa: F821
        ("1 +", "cannot be resolved"),
        (5, "5 cannot be understood"),
    ],
    ids=repr,
)
def test_an_annotation_that_cannot_be_understood_is_refused_by_name(
    annotation: Any, why: str
) -> None:
    with pytest.raises(TypeError, match=why) as caught:
        agent_that_takes(annotation)
    assert "The payload of " in str(caught.value)
    assert "invoke" in str(caught.value)


def test_a_refused_handler_changes_nothing() -> None:
    async def invoke(payload: Foreign, context: InvocationContext) -> None: ...

    agent = agent_that_takes(int)
    before = agent.invoke, agent.contract
    with pytest.raises(TypeError):
        agent.invoke_handler(invoke)
    assert (agent.invoke, agent.contract) == before
    assert agent.convert(1) == 1


# Callables of every kind


class Answering:
    async def __call__(self, payload: Question, _context: InvocationContext) -> None: ...

    async def answer(self, payload: Question, _context: InvocationContext) -> None: ...


async def prefixed(prefix: str, payload: Question, context: InvocationContext) -> None: ...


async def with_any_arguments(*arguments: Question) -> None: ...


async def quoted(payload: "Question", context: "InvocationContext") -> None: ...


@functools.wraps(quoted)
async def wrapping(*arguments: Any) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        Answering(),
        Answering().answer,
        functools.partial(prefixed, ""),
        functools.partial(functools.partial(Answering().answer)),
        functools.partial(Answering()),
        with_any_arguments,
        quoted,
        wrapping,
    ],
    ids=[
        "an object",
        "a method",
        "a partial function",
        "a method twice partial",
        "a partial object",
        "any arguments",
        "quoted types",
        "wrapped",
    ],
)
def test_a_callable_of_any_kind_has_its_payload_converted(function: Callable[..., Any]) -> None:
    agent = Agent()
    agent.invoke_handler(function)
    assert agent.convert({"message": "hi"}) == Question("hi")


def test_the_last_handler_says_what_is_converted() -> None:
    agent = agent_that_takes(Question)
    with pytest.warns(UserWarning, match="replaced"):
        agent.invoke_handler(without_annotation)
    assert agent.convert({}) == {}
    assert not agent.contract.is_typed


# Types of answers


def test_the_schema_of_an_answers_type_stands_alone() -> None:
    text, convert = answer_type(Box[Question])
    schema = msgspec.json.decode(text)
    assert schema["$ref"] == "#/$defs/Box_Question_"
    assert schema["$defs"]["Box_Question_"]["properties"]["inside"] == {"$ref": "#/$defs/Question"}
    assert convert({"inside": {"message": "hi"}}) == Box(Question("hi"))


def test_a_class_of_answers_is_looked_at_once() -> None:
    assert answer_type(Question) is answer_type(Question)


def test_a_bare_dict_is_a_type_of_answers() -> None:
    text, convert = answer_type(dict)
    assert msgspec.json.decode(text) == {"type": "object"}
    with pytest.raises(InvocationError, match="payload: Expected `object`, got `array`"):
        convert([])


@pytest.mark.parametrize("wanted", [object(), Foreign])
def test_what_is_no_type_of_answers_is_refused(wanted: Any) -> None:
    with pytest.raises(TypeError, match="cannot be understood"):
        answer_type(wanted)


def test_a_type_of_answers_need_not_be_hashable() -> None:
    _, convert = answer_type(Annotated[int, Meta(extra_json_schema={"examples": [1]})])
    assert convert(1) == 1
