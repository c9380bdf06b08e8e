"""What a client says to a running invocation (§5)."""

from typing import Any

from msgspec import Struct


class Delivery(Struct, frozen=True):
    """One input on its way to the replica that runs the invocation."""

    payload: Any
    request_id: str | None = None
    """Which question it answers; None for one that goes to the inbox."""
    input_id: str | None = None
    """The sender's name for it: what comes twice under one name is delivered once."""
    user_id: str | None = None
    """Who sent it, where that is known."""
