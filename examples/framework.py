"""An agent framework behind the socket: its events in, your wire format out.

`LocalModel` stands in for a framework's client, so that this runs without a network: it has what
most of them have, an object whose `stream()` is an async context manager around an async iterator
of events. Leaving the context is what stops the model, and it is left however the invocation ends.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agentws import Agent, InvocationContext, InvocationError

# --- the framework ---


@dataclass
class TextDelta:
    """A piece of text."""

    text: str


@dataclass
class Usage:
    """What it cost."""

    input_tokens: int
    output_tokens: int


class LocalModel:
    """Says the prompt backwards, word by word."""

    @asynccontextmanager
    async def stream(self, prompt: str) -> AsyncIterator[AsyncIterator[TextDelta | Usage]]:
        """Run the model while the context is open."""
        yield self._events(prompt.split())

    async def _events(self, words: list[str]) -> AsyncIterator[TextDelta | Usage]:
        for word in reversed(words):
            await asyncio.sleep(0.05)
            yield TextDelta(word)
        yield Usage(input_tokens=len(words), output_tokens=len(words))


# --- the agent ---

model = LocalModel()
agent = Agent()


@agent.invoke_handler
async def complete(payload: Any, context: InvocationContext) -> AsyncIterator[dict[str, Any]]:
    """Stream the model's events as tokens, and its usage last."""
    match payload:
        case {"prompt": str(prompt)}:
            pass
        case _:
            raise InvocationError("invalid_request", "payload.prompt must be a string")
    async with model.stream(prompt) as events:
        async for event in events:
            match event:
                case TextDelta(text):
                    yield {"token": text}
                case Usage():
                    yield {"usage": event}
