"""What the annotations of an invoke handler make: a converter of payloads, and a contract."""

import inspect
import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from agentws.agent.annotations import answer_annotation, payload_annotation, says_nothing
from agentws.agent.signatures import code_of, is_generator
from agentws.agent.type_parts import (
    has_keys_besides_text,
    has_parts_for_pydantic,
    holds,
    is_for_pydantic,
    shown,
)
from agentws.agent.type_schemas import json_schema
from agentws.protocol.encoding import encode, without_collecting
from agentws.protocol.errors import InvocationError, internal_error
from agentws.protocol.schemas import (
    Components,
    Contract,
    Schema,
    standing_alone,
    with_references,
)

_logger: Final = logging.getLogger("agentws.agent")

LONGEST_TEXT: Final = 1000
"""How many characters a client is told of what is wrong: the text may quote what it sent."""

MOST_ANSWERS: Final = 256
"""How many classes of answers are remembered, as each question names one anew."""

Convert = Callable[[Any], Any]
Made = TypeVar("Made")


class HandlerTypes(Struct, frozen=True):
    """What an invoke handler's annotations make."""

    convert: Convert | None
    """What converts its payload, None where that stays as it came."""
    contract: Contract
    answer_problem: str | None
    """Why its answer's annotation says nothing, although it was meant to."""


def handler_types(function: Callable[..., Any]) -> HandlerTypes:
    """Read the annotations of an invoke handler.

    Raises `TypeError`, which names it, for one of the payload that cannot be understood.
    """
    name = getattr(function, "__qualname__", repr(function))
    components, problem = Components(), None
    try:
        wanted = payload_annotation(function)
        convert = None if says_nothing(wanted) else converter(wanted)
        payload = _schema(wanted, components, "Payload")
    except TypeError as error:
        raise TypeError(f"The payload of {name}: {error}") from error
    try:
        given = answer_annotation(function)
        answer = _schema(given, components, "Answer", is_answer=True)
    except TypeError as error:
        answer, problem = None, f"The answer of {name}: {error}"
    said = inspect.getdoc(code_of(function)) or ""
    found = Contract(said, payload, answer, is_generator(function), components.schemas)
    return HandlerTypes(convert, found, problem)


def _schema(
    annotation: Any, components: Components, prefix: str, *, is_answer: bool = False
) -> Schema | None:
    if says_nothing(annotation):
        return None
    schema, named = _understood(annotation, partial(json_schema, is_answer=is_answer))
    return with_references(schema, components.add(named, prefix))


def converter(annotation: Any) -> Convert:
    """Return what converts a client's payload, as decoded JSON, to a type.

    It raises `InvocationError`: `invalid_request` with the library's text for a payload that does
    not fit, one that the type's own code raised, and `internal_error` for whatever else that
    raised. Raises `TypeError` for an annotation that cannot be understood.
    """
    convert = _understood(annotation, _converter)

    def convert_or_refuse(value: Any) -> Any:
        try:
            return without_collecting(convert, value)
        except (msgspec.ValidationError, RecursionError) as error:
            text = f"payload: {error}"[:LONGEST_TEXT]
            raise InvocationError("invalid_request", text) from None
        except InvocationError:
            raise
        except BaseException as error:  # SystemExit, too: no type takes the daemon with it
            _logger.error("The type of a payload raised", exc_info=error)
            raise internal_error() from error

    return convert_or_refuse


def answer_type(wanted: Any) -> tuple[bytes, Convert]:
    """Return the JSON Schema of a type that an answer is wanted in, and what converts one to it.

    Raises `TypeError` for a type that cannot be understood.
    """
    return _answer_type_of_class(wanted) if isinstance(wanted, type) else _answer_type(wanted)


def _answer_type(wanted: Any) -> tuple[bytes, Convert]:
    schema = standing_alone(*_understood(wanted, json_schema))
    return encode(schema), converter(wanted)


_answer_type_of_class: Final = lru_cache(maxsize=MOST_ANSWERS)(_answer_type)


def _understood(annotation: Any, make: Callable[[Any], Made]) -> Made:
    try:
        return make(annotation)
    except Exception as error:  # whatever msgspec, pydantic and the type's own code raise
        raise TypeError(f"{shown(annotation)} cannot be understood: {error}") from error


def _converter(annotation: Any) -> Convert:
    json_schema(annotation)  # which refuses what msgspec would leave to us
    if is_for_pydantic(annotation):
        from agentws.agent import pydantic_types

        return pydantic_types.converter(annotation)
    if holds(annotation, Raw):
        raise TypeError("a payload is decoded before it meets its type, so that none is Raw")
    msgspec.json.Decoder(annotation, dec_hook=_convert_part)  # refuses what JSON never becomes
    # Reading keyword arguments takes msgspec as long as converting a small payload does.
    options: dict[str, Any] = {}
    if has_keys_besides_text(annotation):
        options["str_keys"] = True
    if has_parts_for_pydantic(annotation):
        options["dec_hook"] = _convert_part
    return lambda value: msgspec.convert(value, annotation, **options)


def _convert_part(part: type, value: Any) -> Any:
    """Convert what msgspec leaves to others in one of its types, all of which is pydantic's."""
    from agentws.agent import pydantic_types

    try:
        return pydantic_types.part_converter(part)(value)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None  # to which msgspec adds the place of the part
