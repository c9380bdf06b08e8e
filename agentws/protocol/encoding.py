"""JSON, in and out, of whatever size, and whatever it holds."""

import gc
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from agentws.protocol.errors import InvocationError

NOT_JSON: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for a text that is no JSON; for numbers out of range, `ValidationError`."""

_LARGE: Final = 64 * 1024
"""From how many characters on a text may make so many values that collecting garbage counts."""

MOST_PROGRESS: Final = 64 * 1024
"""How many bytes of JSON an invocation may report as its progress."""

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def decode_payload(body: bytes) -> Any:
    """Decode the body of an HTTP invoke; an empty one is `{}` (§6).

    Raises `InvocationError` (`invalid_json`).
    """
    if not body:
        return {}
    try:
        return decode(body, msgspec.json.decode)
    except NOT_JSON as error:
        raise invalid_json(error) from None


def decode(text: str | bytes, decoder: Callable[[str | bytes], _Made]) -> _Made:
    """Decode JSON; a large text without garbage collection in between.

    Raises what `decoder` does.
    """
    return decoder(text) if len(text) < _LARGE else without_collecting(decoder, text)


def without_collecting(make: Callable[[_Given], _Made], given: _Given) -> _Made:
    """Make values of one without garbage collection in between.

    A text of brackets makes a million lists; looking through them again and again as they become
    more would take three times as long as to decode them, with everybody waiting. Raises what
    `make` does.
    """
    if not gc.isenabled():
        return make(given)
    gc.disable()
    try:
        return make(given)
    finally:
        gc.enable()


def invalid_json(error: Exception) -> InvocationError:
    """Return what to answer to a text for which msgspec raised one of `NOT_JSON`."""
    return InvocationError("invalid_json", _why_not_json(error))


def _why_not_json(error: Exception) -> str:
    match error:
        case RecursionError():
            return "The text nests too deeply"
        case UnicodeError():
            return "The text is not UTF-8"
        case msgspec.ValidationError():
            return "The text holds a number out of range"
        case msgspec.DecodeError() if "surrogate" in str(error):
            return "The text holds a lone surrogate"
        case msgspec.DecodeError() if "truncated" in str(error):  # of one, too, where it ends
            return "The text ends too soon, or holds a lone surrogate"
        case _:
            return "The text is not JSON"


def _encode_foreign(value: object) -> object:
    """Make pydantic models encodable, without importing pydantic for those who have none."""
    model_dump = getattr(type(value), "model_dump", None)
    if model_dump is None:
        raise TypeError(f"JSON cannot hold a {type(value).__name__}")
    return model_dump(value, mode="json")


_encoder: Final = msgspec.json.Encoder(enc_hook=_encode_foreign)
encode: Final = _encoder.encode
"""Encode a frame or any value that a handler may return; non-finite numbers become null.

Raises an ordinary exception (its class depends on the value) for what JSON cannot hold.
"""


def encode_said(value: object, what: str) -> bytes:
    """Encode what a handler says to its clients while it runs, such as a question.

    Raises `ValueError`, naming it, for what JSON cannot hold.
    """
    try:
        text = encode(value)
        msgspec.json.decode(text)  # a `Raw` is encoded as it is
    except Exception as error:
        raise ValueError(f"{what} must be a value that JSON can hold: {error}") from error
    return text


def encode_progress(value: object) -> bytes:
    """Encode what a handler reports as its progress (§5).

    Raises `ValueError` for what JSON cannot hold, and for more than `MOST_PROGRESS`.
    """
    progress = encode_said(value, "Progress")
    if len(progress) > MOST_PROGRESS:
        raise ValueError(f"Progress takes {len(progress)} bytes of JSON; {MOST_PROGRESS} may be")
    return progress
