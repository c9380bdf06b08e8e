"""Payloads that pydantic converts; imported for agents that have any."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import msgspec
from pydantic import BaseModel, TypeAdapter, ValidationError

from agentws.protocol.encoding import encode
from agentws.protocol.schemas import REFERENCE, Schema


def converter(annotation: Any) -> Callable[[Any], Any]:
    """Return what converts decoded JSON, by pydantic's rules for JSON.

    It raises `msgspec.ValidationError` with place and text of the first error. Raises whatever
    pydantic does for an annotation that it does not understand.
    """
    validate = TypeAdapter[Any](annotation).validate_json

    def convert(value: Any) -> Any:
        try:
            return validate(encode(value))
        except ValidationError as error:
            raise msgspec.ValidationError(_first(error)) from None

    return convert


part_converter: Final = cache(converter)
"""The same for a class that is part of another type."""


def _first(error: ValidationError) -> str:
    (first, *_) = error.errors(include_url=False, include_context=False, include_input=False)
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def json_schema(annotation: Any, *, is_answer: bool) -> tuple[Schema, Mapping[str, Schema]]:
    """Return the schema of a type, and the named ones that it refers to.

    That of an answer is what models are encoded as. Raises whatever pydantic does for a type that
    no JSON Schema describes.
    """
    adapter = TypeAdapter[Any](annotation)
    schemas, defined = TypeAdapter.json_schemas(
        [("it", "serialization" if is_answer else "validation", adapter)],
        by_alias=not is_answer or _is_encoded_by_alias(annotation),
        ref_template=REFERENCE.replace("{name}", "{model}"),
    )
    (schema,) = schemas.values()
    return schema, defined.get("$defs", {})


def _is_encoded_by_alias(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return bool(annotation.model_config.get("serialize_by_alias"))
    return False
