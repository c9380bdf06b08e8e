"""Types are the contract: what a payload may be is declared, and checked before the agent runs.

A payload that does not fit is refused with `invalid_request`, which names the field. The same types
make `/invocations/docs/openapi.json`, and the payloads of `/invocations_ws/docs/asyncapi.json`.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from agentws import Agent, InvocationContext

agent = Agent()


class Request(Struct, forbid_unknown_fields=True):
    """A text to be said again."""

    text: Annotated[str, Meta(min_length=1, description="What is to be said.")]
    voice: Literal["plain", "loud", "spelled"] = "plain"
    times: Annotated[int, Meta(ge=1, le=10, description="How often it is said.")] = 1


class Word(Struct):
    """One word of the answer."""

    word: str
    turn: int
    """Which of the `times` it belongs to."""


@agent.invoke_handler
async def say(payload: Request, context: InvocationContext) -> AsyncIterator[Word]:
    """Say a text word by word, as often as is wished."""
    for turn in range(1, payload.times + 1):
        for word in payload.text.split():
            yield Word(in_voice(payload.voice, word), turn)


def in_voice(voice: str, word: str) -> str:
    """Return a word as a voice says it."""
    match voice:
        case "loud":
            return word.upper()
        case "spelled":
            return "-".join(word)
        case _:
            return word
