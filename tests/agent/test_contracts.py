"""Contracts: what the types of a handler say in JSON Schema, and what they cannot say."""

import enum
import functools
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
)
from typing import Annotated, Any, Literal

import pydantic
import pytest
from msgspec import Meta, Raw, Struct

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent
from agentws.protocol.schemas import Contract


class Tone(enum.Enum):
    """How it sounds."""

    CALM = "calm"
    CROSS = "cross"


class Question(Struct):
    """What is asked.

    At some length.
    """

    message: Annotated[str, Meta(description="In plain words.")]
    tone: Tone = Tone.CALM


class Reply(Struct):
    text: str
    tone: Tone


class Message(pydantic.BaseModel):
    """A model of pydantic's."""

    text: str = ""
    sender: str = pydantic.Field("", alias="from")


class Thread(pydantic.BaseModel):
    messages: list[Message]


class Wrapped(Struct):
    """A Struct with a model that is named like another Struct."""

    message: Message
    reply: Reply


def contract_of(function: Callable[..., Any]) -> Contract:
    agent = Agent()
    agent.invoke_handler(function)
    return agent.contract


def answering(annotation: Any, payload: Any = Any) -> Callable[..., Any]:
    """Return a coroutine handler with these annotations."""

    async def answer(payload: Any, context: InvocationContext) -> Any: ...

    answer.__annotations__.update({"payload": payload, "return": annotation})
    return answer


def streaming(annotation: Any, payload: Any = Any) -> Callable[..., Any]:
    """Return a generator handler with these annotations."""

    async def stream(payload: Any, context: InvocationContext) -> Any:
        yield

    stream.__annotations__.update({"payload": payload, "return": annotation})
    return stream


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


async def reply_to(payload: Question, context: InvocationContext) -> Reply:
    """Reply to a question.

    In the same tone.
    """
    return Reply("", payload.tone)


def test_types_and_docstrings_make_the_contract() -> None:
    contract = contract_of(reply_to)
    assert contract.is_typed
    assert not contract.streams
    assert contract.description == "Reply to a question.\n\nIn the same tone."
    assert (contract.payload, contract.answer) == (ref("Question"), ref("Reply"))
    assert contract.schemas == {
        "Question": {
            "title": "Question",
            "description": "What is asked.\n\nAt some length.",
            "type": "object",
            "properties": {
                "message": {"description": "In plain words.", "type": "string"},
                "tone": {**ref("Tone"), "default": "calm"},
            },
            "required": ["message"],
        },
        "Tone": {"title": "Tone", "description": "How it sounds.", "enum": ["calm", "cross"]},
        "Reply": {
            "title": "Reply",
            "type": "object",
            "properties": {"text": {"type": "string"}, "tone": ref("Tone")},
            "required": ["text", "tone"],
        },
    }


@pytest.mark.parametrize(
    "annotation",
    [
        AsyncIterator[Reply],
        AsyncIterable[Reply],
        AsyncGenerator[Reply, None],
        "AsyncIterator[Reply]",
        AsyncIterator["Reply"],
    ],
    ids=repr,
)
def test_of_a_stream_each_value_is_described(annotation: Any) -> None:
    contract = contract_of(streaming(annotation))
    assert contract.streams
    assert contract.answer == ref("Reply")


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Reply, ref("Reply")),
        ("Reply", ref("Reply")),
        (Awaitable[Reply], ref("Reply")),
        (Coroutine[Any, Any, Reply], ref("Reply")),
        (Reply | None, {"anyOf": [ref("Reply"), {"type": "null"}]}),
        (list[Reply], {"type": "array", "items": ref("Reply")}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (str, {"type": "string"}),
        (None, {"type": "null"}),
        (Raw, {}),
    ],
    ids=repr,
)
def test_a_result_is_described(annotation: Any, schema: Any) -> None:
    assert contract_of(answering(annotation)).answer == schema


@pytest.mark.parametrize("annotation", [Any, object, dict, AsyncIterator, AsyncIterator[Any]])
def test_what_says_nothing_is_no_contract(annotation: Any) -> None:
    contract = contract_of(streaming(annotation, payload=dict))
    assert not contract.is_typed
    assert (contract.payload, contract.answer, contract.schemas) == (None, None, {})
    assert contract.streams


async def undeclared(payload, context):  # type: ignore[no-untyped-def]
    """Say something, and nothing of types."""


def test_without_annotations_only_the_docstring_says_something() -> None:
    assert contract_of(undeclared) == Contract(description="Say something, and nothing of types.")
    assert Agent().contract == Contract()


@pytest.mark.parametrize(
    "function",
    [functools.partial(reply_to), functools.partial(functools.partial(reply_to))],
    ids=["once", "twice"],
)
def test_a_partial_function_says_what_the_function_does(function: Callable[..., Any]) -> None:
    assert contract_of(function) == contract_of(reply_to)


# Answers that say nothing, although they were meant to


class Foreign: ...


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (answering(Foreign), "Foreign cannot be understood"),
        (answering("Nowhere"), "'Nowhere' cannot be resolved"),
        (streaming(AsyncIterator[Foreign]), "Foreign cannot be understood"),
        (streaming(Reply), "Reply: an async generator returns an AsyncIterator"),
    ],
)
def test_an_answer_that_cannot_be_understood_warns(function: Callable[..., Any], why: str) -> None:
    agent = Agent()
    with pytest.warns(UserWarning, match=why) as caught:
        assert agent.invoke_handler(function) is function
    assert [warning.filename for warning in caught] == [__file__]  # where the agent's author looks
    assert "The answer of " in str(caught[0].message)
    assert agent.contract.answer is None
    assert agent.invoke is function


# pydantic


def test_a_model_is_described_as_it_is_taken_and_as_it_is_encoded() -> None:
    contract = contract_of(answering(Thread, payload=Thread))
    assert (contract.payload, contract.answer) == (ref("Thread"), ref("AnswerThread"))
    taken, encoded = contract.schemas["Message"], contract.schemas["AnswerMessage"]
    assert set(taken["properties"]) == {"text", "from"}
    assert set(encoded["properties"]) == {"text", "sender"}
    assert encoded["title"] == "AnswerMessage"
    messages = contract.schemas["AnswerThread"]["properties"]["messages"]
    assert messages["items"] == ref("AnswerMessage")


def test_a_model_that_is_encoded_by_alias_is_described_so() -> None:
    class Aliased(Message):
        model_config = pydantic.ConfigDict(serialize_by_alias=True)

    contract = contract_of(answering(Aliased))
    assert set(contract.schemas["Aliased"]["properties"]) == {"text", "from"}


def test_models_in_structs_are_described_by_pydantic() -> None:
    contract = contract_of(answering(Any, payload=Wrapped))
    assert contract.schemas["Wrapped"]["properties"]["message"] == ref("Message")
    assert contract.schemas["Message"]["description"] == "A model of pydantic's."


def test_classes_of_one_name_have_schemas_of_their_own() -> None:
    one = type("Part", (pydantic.BaseModel,), {"__annotations__": {"kind": Literal["a"]}})
    other = type("Part", (pydantic.BaseModel,), {"__annotations__": {"kind": Literal["b"]}})
    both = type("Whole", (Struct,), {"__annotations__": {"one": one, "other": other}})
    contract = contract_of(answering(Any, payload=both))
    properties = contract.schemas["Whole"]["properties"]
    places = [properties[name]["$ref"].rpartition("/")[2] for name in ("one", "other")]
    kinds = [contract.schemas[place]["properties"]["kind"]["const"] for place in places]
    assert kinds == ["a", "b"]
