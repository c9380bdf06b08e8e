"""Which lines are asked for by which schema, and what is made of what is typed."""

from typing import Any

import pytest

from agentws.cli.forms import form_of, question_text, shown_default


def typed(schema: Any, text: str) -> Any:
    """Return what is made of a line, where one line is asked for."""
    line = form_of(schema).line
    assert line is not None
    return line.value(text)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "boolean"}, "YES", True),
        ({"type": "boolean"}, "n", False),
        ({"type": "boolean", "default": True}, "", True),
        ({"type": "string"}, '""', ""),
        ({"type": "string"}, "7", "7"),
        ({"type": "integer"}, "-7", -7),
        ({"type": "number"}, "7", 7),
        ({"type": "number"}, "7.5", 7.5),
        ({"enum": ["a", "b"]}, "2", "b"),
        ({"enum": ["a", "b"]}, "a", "a"),
        ({"enum": [10, 1]}, "1", 1),
        ({"enum": [10, None]}, "null", None),
        ({"const": "only"}, "1", "only"),
        ({"oneOf": [{"const": "a"}, {"const": "b"}]}, "2", "b"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "", None),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "5", 5),
        ({"type": ["string", "null"]}, "", None),
        ({"$ref": "#/$defs/A~1B", "$defs": {"A/B": {"type": "integer"}}}, "5", 5),
        ({"allOf": [{"type": "integer"}], "default": 3}, "", 3),
        ({"type": "array"}, "[1]", [1]),
        ({"type": "string", "minLength": "1", "maxLength": None}, "text", "text"),
        ({"type": "integer", "minimum": "1"}, "0", 0),
        ({"type": "object"}, "{}", {}),
        ({}, "true", True),
        (None, "true", True),
        (None, "just text", "just text"),
    ],
)
def test_what_is_typed(schema: Any, text: str, value: Any) -> None:
    assert typed(schema, text) == value


@pytest.mark.parametrize(
    ("schema", "text", "sentence"),
    [
        ({"type": "boolean"}, "perhaps", "Type y or n"),
        ({"type": "string"}, "", "Type an answer"),
        ({"type": "string", "minLength": 3}, "ab", "Type 3 characters or more"),
        ({"type": "string", "maxLength": 3}, "abcd", "Type 3 characters at most"),
        ({"type": "integer"}, "7.5", "Type a whole number"),
        ({"type": "number"}, "x", "Type a number"),
        ({"type": "number"}, "inf", "Type a number that JSON can hold"),
        ({"type": "number"}, "nan", "Type a number that JSON can hold"),
        ({"type": "number", "minimum": 1}, "0", "Type a number not below 1"),
        ({"type": "number", "maximum": 1}, "2", "Type a number not above 1"),
        ({"type": "number", "exclusiveMinimum": 1}, "1", "Type a number above 1"),
        ({"type": "number", "exclusiveMaximum": 1}, "1", "Type a number below 1"),
        ({"enum": ["a", "b"]}, "3", "Type one of a, b, or its number"),
        ({"type": "array"}, "1, 2", "Type an answer in JSON"),
        ({"type": "array"}, "[NaN]", "Type an answer in JSON"),
        ({"type": "array"}, "[" * 100_000, "Type an answer in JSON"),
        (None, "", "Type an answer"),
    ],
)
def test_what_cannot_be(schema: Any, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        typed(schema, text)


def test_a_flat_object_is_asked_for_field_by_field() -> None:
    form = form_of(
        {
            "$ref": "#/$defs/Booking",
            "$defs": {
                "Colour": {"enum": ["red"]},
                "Booking": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "description": "Who comes"},
                        "colour": {"$ref": "#/$defs/Colour", "default": "red"},
                    },
                    "required": ["name"],
                },
            },
        }
    )
    assert [(field.name, field.is_required) for field in form.fields] == [
        ("name", True),
        ("colour", False),
    ]
    name, colour = (field.line for field in form.fields)
    assert name.about == "Who comes"
    assert shown_default(colour) == "red"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "array"}}},
        {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}},
        {"$ref": "#/$defs/Loop", "$defs": {"Loop": {"$ref": "#/$defs/Loop"}}},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        {"$ref": "#/$defs/Nowhere"},
        {"$ref": "https://elsewhere.example"},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"enum": "nonsense"},
        {"type": 7},
        {"properties": 7, "type": "object"},
        True,
        "nonsense",
        7,
    ],
)
def test_all_else_is_typed_as_json(schema: Any) -> None:
    form = form_of(schema)
    assert form.fields == ()
    assert typed(schema, '{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("Go on?", "Go on?"),
        ({"question": "Go on?"}, "Go on?"),
        ({"text": 7}, '{\n  "text": 7\n}'),
        ([1], "[\n  1\n]"),
    ],
)
def test_how_a_question_reads(payload: Any, text: str) -> None:
    assert question_text(payload) == text


def test_fields_that_are_required_by_nonsense_are_not() -> None:
    properties = {"a": {"type": "string"}}
    (field,) = form_of({"type": "object", "properties": properties, "required": 7}).fields
    assert not field.is_required
