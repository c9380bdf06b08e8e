"""What is taken for a JSON Schema: what the published meta-schema takes, keyword by keyword."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentws.protocol.json_schema import checked_schema

SCHEMAS: list[Any] = [
    True,
    False,
    {},
    {"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]},
    {"$ref": "#/$defs/a", "$defs": {"a": {"enum": [1, None, {}]}}, "$comment": "c"},
    {"anyOf": [{"not": {"const": None}}, True], "oneOf": [{}], "allOf": [{"if": {}, "then": {}}]},
    {"prefixItems": [{}], "items": False, "contains": {}, "minContains": 0, "uniqueItems": True},
    {"minimum": -1, "exclusiveMaximum": 1.5, "multipleOf": 0.1, "minLength": 0, "pattern": "^a"},
    {"additionalProperties": {"type": "null"}, "propertyNames": {"maxLength": 5}},
    {"unheardOf": [1], "format": "color", "examples": [1], "deprecated": False},
    {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"a": {}}, "readOnly": True},
]

NO_SCHEMAS: list[Any] = [
    {"type": "text"},
    {"type": []},
    {"type": None},
    {"properties": []},
    {"properties": {"a": 5}},
    {"properties": {"a": {"items": {"type": "text"}}}},
    {"patternProperties": {"a": "b"}},
    {"required": "a"},
    {"required": [1]},
    {"enum": "a"},
    {"anyOf": []},
    {"allOf": {}},
    {"oneOf": [1]},
    {"not": 1},
    {"if": []},
    {"prefixItems": {}},
    {"items": [{}]},
    {"contains": "a"},
    {"additionalProperties": "no"},
    {"$ref": 1},
    {"$defs": [{}]},
    {"minimum": "1"},
    {"multipleOf": 0},
    {"maxLength": -1},
    {"minItems": 1.5},
    {"uniqueItems": "yes"},
    {"pattern": 1},
    {"title": 1},
    {"description": ["a"]},
    {"dependentRequired": {"a": "b"}},
    {"contentSchema": 1},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_what_is_a_schema_is_taken(schema: Any) -> None:
    Draft202012Validator.check_schema(schema)
    assert json.loads(checked_schema(schema)) == schema


@pytest.mark.parametrize("schema", NO_SCHEMAS, ids=json.dumps)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    assert not Draft202012Validator(Draft202012Validator.META_SCHEMA).is_valid(schema)
    with pytest.raises(ValueError, match=r"schema must be a JSON Schema: .* at `"):
        checked_schema(schema)


@pytest.mark.parametrize("schema", [None, "object", ["object"], 5])
def test_what_is_no_dict_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match=f"must be a dict, not {type(schema).__name__}"):
        checked_schema(schema)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="schema must be a JSON Schema: JSON cannot hold a object"):
        checked_schema({"default": object()})
