"""Whether what an author wrote is a JSON Schema (draft 2020-12), keyword by keyword.

What is not known is left alone, as the draft has it; references are not followed.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from agentws.protocol.encoding import encode

_Type = Literal["array", "boolean", "integer", "null", "number", "object", "string"]
_Count = Annotated[int, Meta(ge=0)] | UnsetType
_Flag = bool | UnsetType
_Number = int | float | UnsetType
_Text = str | UnsetType


class _Keywords(Struct, rename="camel"):
    """The keywords that hold no schemas."""

    ref: _Text = field(default=UNSET, name="$ref")
    anchor: _Text = field(default=UNSET, name="$anchor")
    comment: _Text = field(default=UNSET, name="$comment")
    type: _Type | Annotated[list[_Type], Meta(min_length=1)] | UnsetType = UNSET
    title: _Text = UNSET
    description: _Text = UNSET
    format: _Text = UNSET
    pattern: _Text = UNSET
    content_encoding: _Text = UNSET
    content_media_type: _Text = UNSET
    enum: list[Any] | UnsetType = UNSET
    examples: list[Any] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    dependent_required: dict[str, list[str]] | UnsetType = UNSET
    minimum: _Number = UNSET
    maximum: _Number = UNSET
    exclusive_minimum: _Number = UNSET
    exclusive_maximum: _Number = UNSET
    multiple_of: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    min_length: _Count = UNSET
    max_length: _Count = UNSET
    min_items: _Count = UNSET
    max_items: _Count = UNSET
    min_contains: _Count = UNSET
    max_contains: _Count = UNSET
    min_properties: _Count = UNSET
    max_properties: _Count = UNSET
    unique_items: _Flag = UNSET
    deprecated: _Flag = UNSET
    read_only: _Flag = UNSET
    write_only: _Flag = UNSET


class _Schema(_Keywords, rename="camel"):
    """All keywords."""

    all_of: "_Several" = UNSET
    any_of: "_Several" = UNSET
    one_of: "_Several" = UNSET
    prefix_items: "_Several" = UNSET
    not_: "_One" = field(default=UNSET, name="not")
    if_: "_One" = field(default=UNSET, name="if")
    then: "_One" = UNSET
    else_: "_One" = field(default=UNSET, name="else")
    items: "_One" = UNSET
    contains: "_One" = UNSET
    unevaluated_items: "_One" = UNSET
    property_names: "_One" = UNSET
    additional_properties: "_One" = UNSET
    unevaluated_properties: "_One" = UNSET
    content_schema: "_One" = UNSET
    properties: "_Named" = UNSET
    pattern_properties: "_Named" = UNSET
    dependent_schemas: "_Named" = UNSET
    defs: "_Named" = field(default=UNSET, name="$defs")


_One = _Schema | bool | UnsetType
_Several = Annotated[list[_Schema | bool], Meta(min_length=1)] | UnsetType
_Named = dict[str, _Schema | bool] | UnsetType


def checked_schema(schema: object) -> bytes:
    """Return a schema as JSON. Raises `ValueError`, which names the place, for what is none."""
    if not isinstance(schema, dict | bool):
        raise ValueError(f"schema must be a dict, not {type(schema).__name__}")
    try:
        text = encode(schema)
        msgspec.json.decode(text, type=_Schema | bool)
    except Exception as error:  # its class depends on what JSON cannot hold
        raise ValueError(f"schema must be a JSON Schema: {error}") from error
    return text
