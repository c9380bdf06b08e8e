"""What a type is made of, and so whose it is to convert."""

import typing
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Meta, Struct

_OWN_SCHEMA: Final = "__get_pydantic_core_schema__"
"""What everything has that tells pydantic how to make it."""


def is_for_pydantic(annotation: object) -> bool:
    """Tell whether a type is pydantic's to convert: it has a part of pydantic's, and no Struct.

    Else it is msgspec's. Raises `TypeError` where whoever converts it would pass over what the
    other one's parts say, and what names in quotes raise that lead nowhere.
    """
    parts = list(_parts(annotation))
    foreign = [part for part in parts if _is_of_pydantic(part)]
    if any(isinstance(part, type) and issubclass(part, Struct) for part in parts):
        for part in foreign:
            if not (isinstance(part, type) and hasattr(part, _OWN_SCHEMA)):
                raise TypeError(f"it has Structs, and msgspec does not know {shown(part)}")
        return False
    if foreign and any(isinstance(part, Meta) for part in parts):
        raise TypeError("it has parts of pydantic's, which does not know msgspec.Meta")
    return bool(foreign)


def has_parts_for_pydantic(annotation: object) -> bool:
    """Tell whether a type that msgspec converts has classes in it that pydantic does."""
    return any(_is_of_pydantic(part) for part in _parts(annotation))


def has_keys_besides_text(annotation: object) -> bool:
    """Tell whether a type has mappings in it whose keys JSON has as texts, and Python has not."""
    for part in _parts(annotation):
        origin = typing.get_origin(part)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            key, *_ = typing.get_args(part) or (str,)
            if key is not str:
                return True
    return False


def holds(annotation: object, wanted: object) -> bool:
    """Tell whether a type is another one, or has it in it."""
    return any(part is wanted for part in _parts(annotation))


def shown(annotation: object) -> str:
    """Return an annotation as an author would write it."""
    return annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)


def _is_of_pydantic(part: object) -> bool:
    """Tell whether a class, or what `Annotated` says of one, is something of pydantic's."""
    if hasattr(part, _OWN_SCHEMA) or hasattr(part, "__pydantic_validator__"):  # its dataclasses
        return True
    return type(part).__module__.partition(".")[0] in ("annotated_types", "pydantic")


def _parts(annotation: object) -> Iterator[object]:
    """Yield a type and all that it is made of, each once, down to the fields of its classes.

    What pydantic has made is not looked into.
    """
    found: dict[int, object] = {}
    waiting = [annotation]
    while waiting:
        part = waiting.pop()
        if id(part) not in found:
            found[id(part)] = part  # which keeps it, and so its id
            yield part
            waiting += _made_of(part)


def _made_of(part: object) -> Iterator[object]:
    yield from typing.get_args(part)
    for alias in ("__value__", "__supertype__"):  # of `type X = …` and `NewType`
        if hasattr(part, alias):
            yield getattr(part, alias)
    origin = typing.get_origin(part) or part
    if isinstance(origin, type) and not _is_of_pydantic(origin):
        yield from typing.get_type_hints(origin, include_extras=True).values()
