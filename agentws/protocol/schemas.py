"""JSON Schemas under names, as documents hold them: `#/components/schemas/NAME`."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

Schema = dict[str, Any]

REFERENCE: Final = "#/components/schemas/{name}"
"""The form of a reference to a named schema, in OpenAPI and AsyncAPI alike."""

_PARTS: Final = {
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
    *("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"),
    *("additionalProperties", "unevaluatedProperties", "propertyNames", "contentSchema"),
}
"""The keywords that hold a schema or a list of them."""

_NAMED_PARTS: Final = {
    *("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"),
}
"""The keywords that hold schemas by names."""


class Contract(Struct, frozen=True):
    """What an agent's types say of its payloads; a schema that is None says nothing.

    References lead to `schemas`.
    """

    description: str = ""
    """The invoke handler's docstring."""
    payload: Schema | None = None
    answer: Schema | None = None
    """What the handler returns, or each of the values that it yields."""
    streams: bool = False
    schemas: Mapping[str, Schema] = {}

    @property
    def is_typed(self) -> bool:
        """Whether there is anything that it says."""
        return self.payload is not None or self.answer is not None


UNTYPED: Final = Contract()
"""What an agent without types says."""


class Components:
    """The named schemas of one document; what comes in under a taken name gets another."""

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        """Begin without any; `reserved` are names that no schema gets."""
        self.schemas: dict[str, Schema] = {}
        self._taken = {_folded(name) for name in reserved}

    def add(self, named: Mapping[str, Schema], prefix: str = "Other") -> Mapping[str, str]:
        """Take in named schemas, and return the names that they have here, by those they had.

        Where another schema has a name, the new one's begins with `prefix`. One that is here under
        its name already stays one.
        """
        clashing = self._clashing(named)
        are_here = (named.keys() & self.schemas.keys()) - clashing
        names = {name: name if name in are_here else self._free(name, prefix) for name in named}
        for name, part in named.items():
            changed = with_references(part, names)
            if changed.get("title") == name:
                changed = {**changed, "title": names[name]}
            self.schemas[names[name]] = changed
        return names

    def _clashing(self, named: Mapping[str, Schema]) -> set[str]:
        """Return the names that other schemas have, and of what is here, but refers to those."""
        clashing = {
            name
            for name, part in named.items()
            if _folded(name) in self._taken and self.schemas.get(name) != part
        }
        while True:
            elsewhere = dict.fromkeys(clashing, "")
            more = {
                name
                for name in (named.keys() & self.schemas.keys()) - clashing
                if with_references(named[name], elsewhere) != named[name]
            }
            if not more:
                return clashing
            clashing |= more

    def _free(self, wished: str, prefix: str) -> str:
        """Take a name that generators will tell from all others, too."""
        name, number = wished, 1
        while _folded(name) in self._taken:
            name = f"{prefix}{wished}{number if number > 1 else ''}"
            number += 1
        self._taken.add(_folded(name))
        return name


def _folded(name: str) -> str:
    """Return what is left of a name where case and signs do not count."""
    return "".join(filter(str.isalnum, name)).lower()


def reference(name: str) -> Schema:
    """Return the schema that refers to a named one."""
    return {"$ref": REFERENCE.format(name=name)}


def with_references(schema: Schema, names: Mapping[str, str]) -> Schema:
    """Return a schema whose references to the keys of `names` lead to their values."""
    form = REFERENCE.format
    return _led(schema, {form(name=old): form(name=new) for old, new in names.items()})


def standing_alone(schema: Schema, named: Mapping[str, Schema]) -> Schema:
    """Return a schema that has the named ones that it refers to in itself."""
    if not named:
        return schema
    places = {REFERENCE.format(name=name): f"#/$defs/{name}" for name in named}
    return {
        **_led(schema, places),
        "$defs": {name: _led(part, places) for name, part in named.items()},
    }


def _led(schema: Schema, places: Mapping[str, str]) -> Schema:
    """Return a schema with references to `places` that have moved."""

    def lead(part: Schema) -> Schema:
        led = dict(part)
        if "$ref" in part:
            led["$ref"] = places.get(part["$ref"], part["$ref"])
        match part:
            case {"discriminator": {"mapping": dict(mapping), **more}}:
                there = {value: places.get(place, place) for value, place in mapping.items()}
                led["discriminator"] = {**more, "mapping": there}
        return led

    return changed_throughout(schema, lead)


def changed_throughout(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """Return a schema in which `change` was made to itself and all its parts, the innermost first.

    A part that is true or false stays as it is.
    """

    def changed(part: Any) -> Any:
        match part:
            case dict():
                return change({keyword: within(keyword, value) for keyword, value in part.items()})
            case list():
                return [changed(each) for each in part]
            case _:
                return part

    def within(keyword: str, value: Any) -> Any:
        if keyword in _PARTS:
            return changed(value)
        if keyword in _NAMED_PARTS:
            return {name: changed(part) for name, part in value.items()}
        return value

    made: Schema = changed(schema)
    return made
