"""Whether what an author wrote can be called, and named, as its role has it."""

import functools
import inspect
import re
from collections.abc import Iterable
from typing import Any, Final

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What a subprotocol's name is made of (RFC 9110 §5.6.2)."""


def checked_subprotocols(names: Iterable[str]) -> tuple[str, ...]:
    """Raise `TypeError` unless all of them are names that a handshake may carry."""
    found = list(names)
    are_names = all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in found)
    if isinstance(names, str) or not are_names:
        raise TypeError(f"subprotocols must be a list of names such as 'chat.v1', not {names!r}")
    return tuple(found)


def check_call(
    function: object, role: str, arguments: tuple[str, ...], *, may_stream: bool = False
) -> None:
    """Raise `TypeError` unless `function` is async and takes exactly these positional arguments."""
    kinds = "an async function or async generator" if may_stream else "an async function"
    wanted = f"{role} must be {kinds} taking ({', '.join(arguments)})"
    name = getattr(function, "__qualname__", repr(function))
    if not _is_coroutine(function) and not (may_stream and is_generator(function)):
        raise TypeError(f"The {wanted}; {name} is not")
    assert callable(function)
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise TypeError(f"The {wanted}; {name} cannot be called so: {error}") from None


def _is_coroutine(function: object) -> bool:
    return inspect.iscoroutinefunction(code_of(function))


def is_generator(function: object) -> bool:
    """Tell whether a function, or what it wraps, is an async generator function."""
    return inspect.isasyncgenfunction(code_of(function))


def code_of(function: Any) -> Any:
    """Look through `functools.partial`, and at `__call__` of a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return getattr(function, "__call__", function)  # noqa: B004 - the method, not a test
