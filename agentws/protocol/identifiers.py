"""Identifiers: what one may look like, where new ones come from, and that of a trace (§2)."""

import os
import re
import uuid
from typing import Annotated, Final

import msgspec

from agentws.protocol.errors import InvocationError

_ID: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9._:-]{1,256}\Z")

Id = Annotated[
    str, msgspec.Meta(extra_json_schema={"pattern": r"^(?!\.+$)[A-Za-z0-9._:-]{1,256}$"})
]

_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z"
)

ID_RULE: Final = "1 to 256 characters of A-Z a-z 0-9 . _ : - and not dots only"


def is_id(value: object) -> bool:
    """Tell whether `value` is an identifier as §2 defines it."""
    return isinstance(value, str) and _ID.match(value) is not None


def given_id(name: str, value: str | None) -> str | None:
    """Return the caller's identifier, or None where it counts as not given (absent or empty).

    Raises `InvocationError` (`invalid_request`) naming the field when it breaks the rule of §2.
    """
    if not value:
        return None
    if _ID.match(value) is None:
        raise InvocationError("invalid_request", f"{name} must be {ID_RULE}")
    return value


def required_id(name: str, value: str) -> str:
    """Return an identifier that must be given. Raises `InvocationError` (`invalid_request`)."""
    identifier = given_id(name, value)
    if identifier is None:
        raise InvocationError("invalid_request", f"{name} is required")
    return identifier


class IdSource:
    """Makes new identifiers: UUIDs, version 4 (RFC 9562 §5.4), that nobody can guess.

    It makes many at a time, digit by digit: for the first of all, then for the second. It asks the
    kernel for the randomness of all of them, because where system calls are dear, such as in
    sandboxes, one for each would be a fifth of the cost of an invocation.
    """

    BATCH: Final = 256

    # The 4 is the version, the "a" has the bits of the variant.
    _FORM: Final = b"xxxxxxxx-xxxx-4xxx-axxx-xxxxxxxxxxxx"
    _RANDOM: Final = tuple(place for place, sign in enumerate(_FORM) if sign == ord("x"))

    def __init__(self) -> None:
        self._unused: list[str] = []

    def __call__(self) -> str:
        """Return a new identifier."""
        if not self._unused:
            self._unused = self._make()
        return self._unused.pop()

    def _make(self) -> list[str]:
        width, count = len(self._FORM), len(self._RANDOM)
        digits = os.urandom(count * self.BATCH // 2).hex().encode()
        text = bytearray(self._FORM * self.BATCH)
        for number, place in enumerate(self._RANDOM):
            text[place::width] = digits[number::count]
        ids = text.decode()
        return [ids[at : at + width] for at in range(0, len(ids), width)]


def new_id() -> str:
    """Return a new identifier, where one is needed now and then."""
    return str(uuid.uuid4())


def trace_id(traceparent: str | None) -> str | None:
    """Return the trace id of a W3C `traceparent`, None where that is absent or malformed."""
    match = _TRACEPARENT.match(traceparent) if traceparent else None
    if match is None or (match[1] == "00" and match[3] is not None):
        return None
    return match[2]
