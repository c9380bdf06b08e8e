"""What the signature of an invoke handler says of its payload and its answer."""

import inspect
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
)
from types import SimpleNamespace
from typing import Any, Final

from agentws.agent.signatures import code_of, is_generator
from agentws.agent.type_parts import shown

_STREAMS: Final = (AsyncIterator, AsyncIterable, AsyncGenerator)
_AWAITABLES: Final = (Awaitable, Coroutine)


def payload_annotation(function: Callable[..., Any]) -> object:
    """Return the type that a handler wants its payload in, `Any` where it does not say.

    Raises `TypeError` for an annotation in quotes that leads nowhere.
    """
    first, *_ = inspect.signature(function).parameters.values()
    return _resolved(function, first.annotation)


def answer_annotation(function: Callable[..., Any]) -> object:
    """Return the type of what a handler returns, or of each value that it yields.

    `Any` where it does not say. Raises `TypeError` for an annotation in quotes that leads nowhere,
    and for one of an async generator that is no stream's.
    """
    annotation = _resolved(function, inspect.signature(function).return_annotation)
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if is_generator(function):
        if not says_nothing(annotation) and origin not in _STREAMS:
            raise TypeError(f"{shown(annotation)}: an async generator returns an AsyncIterator")
        return arguments[0] if arguments else Any
    if origin in _AWAITABLES:
        return arguments[-1] if arguments else Any
    return annotation


def says_nothing(annotation: object) -> bool:
    """Tell whether an annotation leaves a value as it comes: `Any`, `object`, a bare `dict`."""
    bare = typing.get_origin(annotation) if not typing.get_args(annotation) else None
    return any(one is anything for anything in (Any, object, dict) for one in (annotation, bare))


def _resolved(function: Callable[..., Any], annotation: object) -> object:
    """Return an annotation with the names that are in quotes in it resolved."""
    if annotation is inspect.Signature.empty:
        return Any
    names = getattr(inspect.unwrap(code_of(function)), "__globals__", {})
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, names, include_extras=True)["it"]
    except Exception as error:  # whatever the text in quotes does
        raise TypeError(f"{annotation!r} cannot be resolved: {error}") from error
