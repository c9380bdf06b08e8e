"""What an author wants an answer to be: a type, or a JSON Schema."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError

_Type = Literal["null", "boolean", "object", "array", "number", "string", "integer"]


class _Schema(Struct):
    """As much of JSON Schema (2020-12) as tells a schema from something else."""

    type: _Type | list[_Type] | None = None
    properties: dict[str, "_Schema | bool"] = {}
    required: list[str] = []
    items: "_Schema | bool" = True
    enum: list[Any] | None = None
    anyOf: list["_Schema | bool"] = []  # noqa: N815 - JSON Schema's
    allOf: list["_Schema | bool"] = []  # noqa: N815 - JSON Schema's
    oneOf: list["_Schema | bool"] = []  # noqa: N815 - JSON Schema's
    title: str = ""
    description: str = ""


def check_schema(schema: object) -> bytes:
    """Return a JSON Schema as JSON. Raises `ValueError` for what is none."""
    if not isinstance(schema, (dict, bool)):
        raise ValueError(f"schema must be a dict, not {type(schema).__name__}")
    try:
        text = encode(schema)
        msgspec.json.decode(text, type=_Schema | bool)
    except Exception as error:
        raise ValueError(f"schema must be a JSON Schema: {error}") from None
    return text


def answer_type(wanted: Any) -> tuple[bytes, Callable[[Any], Any]]:
    """Return the schema of a type, as JSON, and what turns an answer into it.

    Raises `TypeError` for a type of which there is no schema.
    """
    model_schema = getattr(wanted, "model_json_schema", None)
    if model_schema is not None:
        return encode(model_schema()), _by_pydantic(wanted)
    try:
        return encode(msgspec.json.schema(wanted)), _by_msgspec(wanted)
    except TypeError as error:
        raise TypeError(f"type {wanted!r} cannot be an answer: {error}") from None


def _by_msgspec(wanted: Any) -> Callable[[Any], Any]:
    def convert(payload: Any) -> Any:
        try:
            return msgspec.convert(payload, wanted)
        except msgspec.ValidationError as error:
            raise _unfit(str(error)) from None

    return convert


def _by_pydantic(wanted: Any) -> Callable[[Any], Any]:
    def convert(payload: Any) -> Any:
        try:
            return wanted.model_validate(payload)
        except ValueError as error:
            raise _unfit(str(error)) from None

    return convert


def _unfit(why: str) -> InvocationError:
    return InvocationError("invalid_request", f"payload: {why}")
