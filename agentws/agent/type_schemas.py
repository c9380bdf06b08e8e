"""The JSON Schemas of types that an author declares."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agentws.agent.type_parts import is_for_pydantic, shown
from agentws.protocol.json_schema import checked_schema
from agentws.protocol.schemas import (
    REFERENCE,
    Components,
    Schema,
    changed_throughout,
    with_references,
)

Described = tuple[Schema, Mapping[str, Schema]]
"""A schema, and the named ones that it refers to."""


def json_schema(annotation: Any, *, is_answer: bool = False) -> Described:
    """Return the schema of what is converted to a type, or of what one is encoded as in an answer.

    Raises, of whatever class, for what is no type of values that JSON can hold.
    """
    if is_for_pydantic(annotation):
        schema, named = _of_pydantic(annotation, is_answer)
    else:
        schema, named = _of_msgspec(annotation, is_answer)
    checked_schema({"allOf": [schema], "$defs": named})
    return _tidied(schema), {name: _tidied(part) for name, part in named.items()}


def _of_msgspec(annotation: Any, is_answer: bool) -> Described:
    """Return what msgspec says of a type, and pydantic of what it knows in it."""
    _, named = _generated(annotation, lambda _: {"title": "known only when all names are"})
    models = Components(reserved=named)

    def describe(part: type) -> Schema:
        schema, defined = _of_pydantic(part, is_answer)
        return with_references(schema, models.add(defined, "Model"))

    schema, named = _generated(annotation, describe)
    return schema, {**named, **models.schemas}


def _generated(annotation: Any, describe: Callable[[type], Schema]) -> Described:
    def described(part: type) -> Schema:
        if not is_for_pydantic(part):
            raise TypeError(f"{shown(part)} is not known to msgspec")
        return describe(part)

    (schema,), named = msgspec.json.schema_components(
        [annotation], schema_hook=described, ref_template=REFERENCE
    )
    return schema, named


def _of_pydantic(annotation: Any, is_answer: bool) -> Described:
    from agentws.agent import pydantic_types

    return pydantic_types.json_schema(annotation, is_answer=is_answer)


def _tidied(schema: Schema) -> Schema:
    """Return a schema with its docstrings unindented."""

    def tidy(part: Schema) -> Schema:
        if isinstance(said := part.get("description"), str):
            return {**part, "description": inspect.cleandoc(said)}
        return part

    return changed_throughout(schema, tidy)
