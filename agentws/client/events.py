"""What a run's reader is told of."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

Answer = Callable[[str, Any], Awaitable[None]]
"""Answers a question, by its `request_id`."""


class Chunk(Struct, frozen=True):
    """One value that the agent yielded."""

    number: int
    payload: Any


class Question:
    """What the agent wants to know; `schema` is a JSON Schema of the answer, or None.

    `number` is its place among the chunks.
    """

    __slots__ = ("_answer", "number", "payload", "request_id", "schema")

    def __init__(
        self, number: int, request_id: str, payload: Any, schema: Any, answer: Answer
    ) -> None:
        self.number = number
        self.request_id = request_id
        self.payload = payload
        self.schema = schema
        self._answer = answer

    async def answer(self, payload: Any) -> None:
        """Answer it, and wait until the server has the answer.

        Raises `InvocationFailed`, with the code `input_not_expected` where another was faster.
        """
        await self._answer(self.request_id, payload)

    def __repr__(self) -> str:
        return f"Question(request_id={self.request_id!r}, payload={self.payload!r})"


class Answered(Struct, frozen=True):
    """A question was answered, by whomever, or is not asked any more (`withdrawn`)."""

    request_id: str
    withdrawn: bool


class Gap(Struct, frozen=True):
    """Chunks before `first_available` are gone, and it goes on from there."""

    first_available: int


class Reconnected(Struct, frozen=True):
    """The socket was lost, and replaced after so many attempts and seconds; nothing is missing.

    Several losses in a row, which nobody had time to read of, are one, with all their attempts.
    """

    attempts: int
    seconds: float


Event = Chunk | Question | Answered | Gap | Reconnected
