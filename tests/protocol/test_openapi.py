"""The description of the routes: valid OpenAPI 3.1, complete, and made of the agent's types."""

import copy
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pydantic
import pytest
from jsonschema import Draft202012Validator
from msgspec import Struct
from openapi_spec_validator import OpenAPIV31SpecValidator

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent
from agentws.protocol.encoding import encode
from agentws.protocol.errors import STATUS, InvocationError, ReplayGap, error_body
from agentws.protocol.openapi import describe
from agentws.protocol.records import Failure, Record, StreamState, encode_record
from tests.support.documents import references, resolve

Json = dict[str, Any]


class Cat(Struct, tag=True):
    lives: int


class Dog(Struct, tag=True):
    name: str


class Question(Struct):
    """What is asked."""

    message: str
    place: tuple[float, float] = (0, 0)
    pets: list[Cat | Dog] = []


class Token(Struct):
    token: str


class Reading(pydantic.BaseModel):
    value: int = pydantic.Field(gt=0)


async def stream(payload: Question, context: InvocationContext) -> AsyncIterator[Token]:
    """Answer word by word.

    It takes its time.
    """
    yield Token(payload.message)


async def reply(payload: Question, context: InvocationContext) -> Token:
    return Token(payload.message)


async def read(payload: Reading, context: InvocationContext) -> list[Reading]:
    return [payload]


async def guess(payload: Any, context: InvocationContext) -> Any:
    return payload


HANDLERS = [stream, reply, read, guess]


def document_of(handler: Callable[..., Any], **options: Any) -> Json:
    agent = Agent()
    agent.invoke_handler(handler)
    found = json.loads(encode(describe(agent.contract, title="t", version="1", **options)))
    assert isinstance(found, dict)
    return found


def schema_of(document: Json, path: str, method: str, *place: str) -> Draft202012Validator:
    """Return what checks the JSON of a request's body, or of an answer."""
    found = document["paths"][path][method]
    for name in place:
        found = found[name]
    schema = found["content"]["application/json"]["schema"]
    return Draft202012Validator({"allOf": [schema], "components": document["components"]})


def answer_of(document: Json) -> Draft202012Validator:
    return schema_of(document, "/invocations", "post", "responses", "200")


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_document_is_valid(handler: Callable[..., Any]) -> None:
    OpenAPIV31SpecValidator(document_of(handler)).validate()


BREAKAGES: dict[str, Callable[[Json], object]] = {
    "no title": lambda broken: broken["info"].pop("title"),
    "another version": lambda broken: broken.update(openapi="2.0"),
    "an unknown field": lambda broken: broken["paths"]["/invocations"].update(put="no operation"),
    "an unknown place": lambda broken: broken["paths"]["/invocations"]["post"]["parameters"][
        0
    ].update({"in": "body"}),
    "a path without its parameter": lambda broken: broken["paths"]["/invocations/{id}"].pop(
        "parameters"
    ),
}


@pytest.mark.parametrize("damage", BREAKAGES.values(), ids=BREAKAGES.keys())
def test_a_broken_document_would_be_found(damage: Callable[[Json], object]) -> None:
    broken = copy.deepcopy(document_of(stream))
    damage(broken)
    assert not OpenAPIV31SpecValidator(broken).is_valid()


@pytest.mark.parametrize("handler", HANDLERS)
def test_its_schemas_are_schemas_and_its_references_lead_somewhere(
    handler: Callable[..., Any],
) -> None:
    document = document_of(handler)
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in references(document):
        assert isinstance(resolve(document, reference), dict)


def test_it_has_every_route_of_invocations() -> None:
    paths = document_of(stream)["paths"]
    routes = {(path, method) for path, item in paths.items() for method in item}
    assert routes - {(path, "parameters") for path in paths} == {
        ("/invocations", "post"),
        ("/invocations", "get"),
        ("/invocations/{id}", "get"),
        ("/invocations/{id}/inputs", "post"),
        ("/invocations/{id}/cancel", "post"),
    }


def test_docstrings_become_descriptions() -> None:
    document = document_of(stream)
    invoke = document["paths"]["/invocations"]["post"]
    assert (invoke["summary"], invoke["description"]) == (
        "Answer word by word.",
        "It takes its time.",
    )
    assert document["components"]["schemas"]["Question"]["description"] == "What is asked."
    assert document_of(guess)["paths"]["/invocations"]["post"]["summary"] == "Invoke the agent."


PAYLOADS: list[Any] = [
    {"message": "hi"},
    {"message": "hi", "pets": [{"type": "Cat", "lives": 9}], "place": [1, 2.5], "more": None},
    {},
    {"message": 5},
    {"message": "hi", "place": [1]},
    {"message": "hi", "pets": [{"type": "Bird", "name": "Rex"}]},
    [],
    None,
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=json.dumps)
def test_a_payload_is_described_just_where_it_is_taken(payload: Any) -> None:
    agent = Agent()
    agent.invoke_handler(stream)
    try:
        agent.convert(payload)
    except InvocationError:
        is_taken = False
    else:
        is_taken = True
    body = schema_of(document_of(stream), "/invocations", "post", "requestBody")
    assert body.is_valid(payload) == is_taken


def test_a_stream_is_events_or_an_array_of_chunks() -> None:
    document = document_of(stream)
    content = document["paths"]["/invocations"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    assert answer_of(document).is_valid([{"token": "a"}])
    assert not answer_of(document).is_valid([{"token": 1}])
    assert not answer_of(document).is_valid({"token": "a"})


def test_a_result_is_as_its_type_says_in_answers_and_in_records() -> None:
    document = document_of(reply)
    assert answer_of(document).is_valid({"token": "a"})
    assert not answer_of(document).is_valid({"token": 1})
    polled = schema_of(document, "/invocations/{id}", "get", "responses", "200")
    record = Record("i", "s", 0.0, status="completed", finished_at=1.0)
    for result, fits in ((b'{"token":"a"}', True), (b'{"token":1}', False)):
        told = json.loads(encode_record(msgspec.structs.replace(record, result=result), None))
        assert polled.is_valid(told) == fits


RECORDS: list[tuple[Record, StreamState | None]] = [
    (Record("i", "s", 0.0), None),
    (Record("i", "s", 0.0, progress=b"[1]", streams=True), StreamState(1, 5)),
    (Record("i", "s", 0.0, status="completed", finished_at=1.0, result=b"1"), None),
    (
        Record(
            "i", "s", 0.0, status="failed", failure=Failure.of(InvocationError("c", "m")), owner="o"
        ),
        None,
    ),
]


@pytest.mark.parametrize(("record", "state"), RECORDS)
def test_a_record_is_described(record: Record, state: StreamState | None) -> None:
    document = document_of(guess)
    told = json.loads(encode_record(record, state))
    for path, method, status in (
        ("/invocations/{id}", "get", "200"),
        ("/invocations", "post", "202"),
    ):
        assert schema_of(document, path, method, "responses", status).is_valid(told)
    listed = schema_of(document, "/invocations", "get", "responses", "200")
    assert listed.is_valid({"invocations": [told], "next": "cursor"})
    assert not listed.is_valid({"invocations": [{"invocation_id": "i"}]})


@pytest.mark.parametrize(
    "error",
    [*(InvocationError(code, "m") for code in STATUS), ReplayGap(7)],
    ids=lambda error: error.code,
)
def test_every_error_is_in_the_envelope(error: InvocationError) -> None:
    document = document_of(guess)
    told = json.loads(encode({"error": error_body(error)}))
    for item in document["paths"].values():
        for method, operation in item.items():
            if method == "parameters":
                continue
            responses = operation["responses"]
            schema = (responses.get(str(error.status)) or responses["default"])["content"]
            envelope = Draft202012Validator(
                {
                    "allOf": [schema["application/json"]["schema"]],
                    "components": document["components"],
                }
            )
            assert envelope.is_valid(told)
            assert not envelope.is_valid({"error": {"code": "c"}})


def test_the_codes_that_it_names_have_the_status_that_it_says() -> None:
    for item in document_of(guess)["paths"].values():
        for method, operation in item.items():
            if method == "parameters":
                continue
            for status, answer in operation["responses"].items():
                if status.isdigit() and int(status) >= 400:
                    codes = answer["description"].split(", ")
                    assert {STATUS[code] for code in codes} == {int(status)}


def test_what_an_agent_answers_itself_is_not_described() -> None:
    described = document_of(reply)
    own = document_of(reply, has_own_polls=True, has_own_cancels=True)
    for path, method in (("/invocations/{id}", "get"), ("/invocations/{id}/cancel", "post")):
        assert not schema_of(described, path, method, "responses", "200").is_valid("anything")
        assert schema_of(own, path, method, "responses", "200").is_valid("anything")


OwnRecord = msgspec.defstruct("RecordView", [("own", str)])
OwnError = msgspec.defstruct("Error", [("record", OwnRecord)])


def test_types_that_are_named_like_ours_collide_with_nothing() -> None:
    async def confuse(payload: Any, context: InvocationContext) -> Any: ...

    confuse.__annotations__.update({"payload": OwnError, "return": OwnRecord})
    document = document_of(confuse)
    OpenAPIV31SpecValidator(document).validate()
    plain, found = document_of(guess)["components"]["schemas"], document["components"]["schemas"]
    assert {"AgentError", "AgentRecordView"} == set(found) - set(plain)
    assert found["Error"] == plain["Error"]
    body = schema_of(document, "/invocations", "post", "requestBody")
    assert body.is_valid({"record": {"own": "a"}})
    assert not body.is_valid({"record": {"own": 1}})
