"""Messages, in and out: read with leniency, as servers of the future may say more."""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from agentws.protocol.encoding import NOT_JSON, decode, encode


class Nonsense(Exception):
    """The server said what no server says; the socket is worth nothing any more."""


class Message(Struct, gc=False):
    """Any frame of the server's (§4): all fields that some of them have."""

    type: str = ""
    invocation_id: str | None = None
    sequence_number: int = 0
    payload: Any = None
    request_id: str | None = None
    schema: Any = None
    withdrawn: bool = False
    query_id: str | None = None
    action: str | None = None
    error: dict[str, Any] | None = None
    invocations: list[dict[str, Any]] | None = None
    next: str | None = None
    grace_seconds: float = 0.0


_decoder: Final = msgspec.json.Decoder(Message)


def read(data: str | bytes) -> Message:
    """Read a message; one of a type or with fields from the future is one like any other.

    Raises `Nonsense` for what is no JSON object, and for a field of a wrong type.
    """
    try:
        return decode(data, _decoder.decode)
    except NOT_JSON as error:
        raise Nonsense(f"The server sent what is no frame: {error}") from None


def action(name: str, **fields: Any) -> bytes:
    """Write an action (§3); fields that are None are left out.

    Raises `TypeError` or `ValueError` for what JSON cannot hold.
    """
    given = {key: value for key, value in fields.items() if value is not None}
    return encode({"action": name, **given})


PING: Final = action("ping")
PONG: Final = action("pong")


def raw(payload: Any) -> Raw:
    """Write what goes into a message as it is, null included.

    Raises `TypeError` or `ValueError` for what JSON cannot hold.
    """
    try:
        return Raw(encode(payload))
    except RecursionError:
        raise ValueError("The payload nests too deeply, or refers to itself") from None
