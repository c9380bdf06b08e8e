"""How a question is put to a person: the lines to be typed, and what they stand for.

A form is made of the question's JSON Schema where that is simple: booleans, choices, texts,
numbers, and flat objects of them. All else is typed as JSON. The server checks answers; a form
helps with those that cannot be right.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

_NO_DEFAULT: Final = object()

_YES: Final = ("y", "yes", "true")
_NO: Final = ("n", "no", "false")


class Line(Struct, frozen=True):
    """One line to be typed.

    `parse` turns it into a value, and raises `ValueError` with a sentence about what it should be.
    """

    hint: str
    parse: Callable[[str], Any]
    default: Any = _NO_DEFAULT
    choices: tuple[str, ...] = ()
    about: str = ""
    may_be_empty: bool = False

    @property
    def has_default(self) -> bool:
        """Whether there is a value for who types nothing."""
        return self.default is not _NO_DEFAULT

    def value(self, typed: str) -> Any:
        """Return what a line stands for. Raises `ValueError`."""
        if not typed and self.has_default:
            return self.default
        if not typed and not self.may_be_empty:
            raise ValueError('Type an answer ("" is the empty text)')
        return self.parse(typed)


class Field(Struct, frozen=True):
    """One field of an object."""

    name: str
    line: Line
    is_required: bool


class Form(Struct, frozen=True):
    """A line, or the lines of an object's fields."""

    line: Line | None
    fields: tuple[Field, ...] = ()


def form_of(schema: Any) -> Form:
    """Return how to ask for what a schema describes; None stands for no schema."""
    if schema is None:
        return Form(Line("text or JSON", _json_or_text))
    try:
        return _simple_form(schema) or Form(Line("JSON", _json))
    except RecursionError:  # it refers to itself
        return Form(Line("JSON", _json))


def _simple_form(root: Any) -> Form | None:
    schema = _resolved(root, root)
    line = _line(schema, root)
    if line is not None:
        return Form(line)
    fields = _fields(schema, root)
    return Form(None, fields) if fields else None


def _fields(schema: Any, root: Any) -> tuple[Field, ...]:
    """Return the fields of a flat object, none for anything else."""
    match schema:
        case {"type": "object", "properties": dict() as properties}:
            pass
        case _:
            return ()
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    fields = []
    for name, part in properties.items():
        part = _resolved(part, root)
        if (line := _line(part, root)) is None:
            return ()
        fields.append(Field(name, line, name in required))
    return tuple(fields)


def _resolved(schema: Any, root: Any) -> Any:
    """Follow references within the schema (`#/$defs/…`), as far as they lead."""
    for _ in range(16):
        match schema:
            case {"$ref": str() as reference} if reference.startswith("#"):
                target = root
                for step in reference[1:].split("/")[1:]:
                    step = step.replace("~1", "/").replace("~0", "~")
                    target = target.get(step) if isinstance(target, Mapping) else None
                others = {name: value for name, value in schema.items() if name != "$ref"}
                schema = {**target, **others} if isinstance(target, Mapping) else None
            case {"allOf": [single], **others}:
                schema = {**_mapping(_resolved(single, root)), **others}
            case _:
                return schema
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _line(schema: Any, root: Any) -> Line | None:
    """Return the line to be typed for a simple schema, None for one that is not."""
    if not isinstance(schema, Mapping):
        return None
    if (inner := _without_null(schema, root)) is not None:
        line = _line(inner, root)
        return line and _described(_or_null(line), schema)
    line = _plain_line(schema)
    return line and _described(line, schema)


def _described(line: Line, schema: Mapping[str, Any]) -> Line:
    about = str(schema.get("description") or schema.get("title") or line.about)
    default = schema.get("default", line.default)
    return Line(line.hint, line.parse, default, line.choices, about, line.may_be_empty)


def _without_null(schema: Mapping[str, Any], root: Any) -> Any:
    """Return the other half of what may be null, None where it may not."""
    match schema:
        case {"type": [str() as one, "null"] | ["null", str() as one], **others}:
            return {"type": one, **others}
        case {"anyOf": [one, {"type": "null"}] | [{"type": "null"}, one]}:
            return _resolved(one, root)
    return None


def _or_null(line: Line) -> Line:
    def parse(typed: str) -> Any:
        return line.parse(typed) if typed else None

    return Line(f"{line.hint}, or nothing", parse, choices=line.choices, may_be_empty=True)


def _plain_line(schema: Mapping[str, Any]) -> Line | None:
    match schema:
        case {"enum": [_, *_] as values}:
            return _choice(values)
        case {"const": value}:
            return _choice([value])
        case {"anyOf": [_, *_] as parts} | {"oneOf": [_, *_] as parts}:
            return _choice_of_constants(parts)
        case {"type": "boolean"}:
            return Line("y/n", _boolean)
        case {"type": "string"}:
            return Line("text", lambda typed: _text(typed, schema))
        case {"type": "integer" | "number" as kind}:
            hint = "whole number" if kind == "integer" else "number"
            return Line(hint, lambda typed: _number(typed, schema))
    return None


def _choice_of_constants(parts: Sequence[Any]) -> Line | None:
    """Return the line for a choice that is written as alternatives, None for other alternatives."""
    values = [part["const"] for part in parts if isinstance(part, Mapping) and "const" in part]
    return _choice(values) if len(values) == len(parts) else None


# --- what is typed ---


def _choice(values: Sequence[Any]) -> Line:
    names = tuple(value if isinstance(value, str) else _shown(value) for value in values)

    def parse(typed: str) -> Any:
        if typed in names:
            return values[names.index(typed)]
        if typed.isascii() and typed.isdigit() and 1 <= int(typed) <= len(values):
            return values[int(typed) - 1]
        raise ValueError(f"Type one of {', '.join(names)}, or its number")

    return Line(f"1-{len(values)}", parse, choices=names)


def _boolean(typed: str) -> bool:
    if typed.lower() in _YES:
        return True
    if typed.lower() in _NO:
        return False
    raise ValueError("Type y or n")


def _text(typed: str, schema: Mapping[str, Any]) -> str:
    text = "" if typed == '""' else typed
    if isinstance(least := schema.get("minLength"), int) and len(text) < least:
        raise ValueError(f"Type {least} characters or more")
    if isinstance(most := schema.get("maxLength"), int) and len(text) > most:
        raise ValueError(f"Type {most} characters at most")
    return text


def _number(typed: str, schema: Mapping[str, Any]) -> int | float:
    is_whole = schema["type"] == "integer"
    try:
        number = int(typed) if is_whole or re.fullmatch(r"-?\d+", typed) else float(typed)
    except ValueError:
        raise ValueError(f"Type a {'whole ' if is_whole else ''}number") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError("Type a number that JSON can hold")
    for name, is_right, words in _BOUNDS:
        if isinstance(bound := schema.get(name), int | float) and not is_right(number, bound):
            raise ValueError(f"Type a number {words} {bound}")
    return number


_BOUNDS: Final[Sequence[tuple[str, Callable[[float, float], bool], str]]] = (
    ("minimum", lambda number, bound: number >= bound, "not below"),
    ("maximum", lambda number, bound: number <= bound, "not above"),
    ("exclusiveMinimum", lambda number, bound: number > bound, "above"),
    ("exclusiveMaximum", lambda number, bound: number < bound, "below"),
)


def _json(typed: str) -> Any:
    try:
        return json.loads(typed, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError("Type an answer in JSON, on one line") from None


def _refuse_constant(_name: str) -> Any:
    raise ValueError


def _json_or_text(typed: str) -> Any:
    try:
        return _json(typed)
    except ValueError:
        return typed


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def shown_default(line: Line) -> str:
    """Return a line's default as it would be typed."""
    if isinstance(line.default, bool):
        return "y" if line.default else "n"
    return line.default if isinstance(line.default, str) else _shown(line.default)


_WORDS: Final = ("question", "prompt", "message", "text", "title", "content")


def question_text(payload: Any) -> str:
    """Return what an agent asks, for a person to read."""
    match payload:
        case str():
            return payload
        case dict() if len(payload) == 1:
            ((name, value),) = payload.items()
            if name in _WORDS and isinstance(value, str):
                return value
    return json.dumps(payload, ensure_ascii=False, indent=2)
