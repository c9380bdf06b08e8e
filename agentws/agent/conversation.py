"""What an invoke handler says to its clients while it runs, and hears from them (§5)."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct


class Input(Struct, frozen=True):
    """What a client said to a running invocation."""

    payload: Any
    input_id: str | None = None
    """The sender's name for it, where it has one."""
    user_id: str | None = None
    """Who sent it, where that is known."""


class Answer(Input, frozen=True):
    """What a client answered to a question; `payload` is of the type that was asked for."""


class Ask(Struct, frozen=True):
    """A question as it is asked. `payload` and `schema` are JSON."""

    payload: bytes
    schema: bytes | None
    convert: Callable[[Any], Any] | None
    """Turns an answer into what was asked for. Raises `InvocationError` where it does not fit."""
    timeout: float | None
    """Seconds for which it is open, 0 for ever, None for the setting."""


class Conversation(Protocol):
    """What a handler speaks through while its invocation runs."""

    def report(self, progress: bytes) -> None:
        """Put progress (JSON) where whoever polls finds it."""

    async def receive(self) -> Input:
        """Wait for the next input."""

    async def ask(self, question: Ask) -> Answer:
        """Ask the clients, and wait for the first answer."""


class Conversations(Protocol):
    """Where the conversations are that go on.

    A context knows of this, and not of its own: it may be kept for long after the end, and would
    keep all that was said.
    """

    def held_by(self, context: Any) -> Conversation | None:
        """Return the conversation of the handler that was called with a context, until its end."""


class Draining:
    """Whether the daemon is about to end, for whoever wants to be done by then (§8)."""

    def __init__(self) -> None:
        self.begun = False
        """Whether the drain has begun."""
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """Begin it."""
        self.begun = True
        self._begun.set()

    async def wait(self) -> None:
        """Wait for its beginning."""
        await self._begun.wait()
