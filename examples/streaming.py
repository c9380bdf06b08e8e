"""Tokens as they come: an async generator is streamed, over WebSocket and over SSE alike."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agentws import Agent, InvocationContext, InvocationError

LONGEST_DELAY = 3600

agent = Agent()


@agent.invoke_handler
async def answer(payload: Any, context: InvocationContext) -> AsyncIterator[dict[str, str]]:
    """Yield the words of `message`, `delay` seconds apart."""
    match payload:
        case {"message": str(message)}:
            delay = delay_of(payload)
        case _:
            raise InvocationError("invalid_request", "payload.message must be a string")
    for word in message.split():
        yield {"token": word}
        await asyncio.sleep(delay)


def delay_of(payload: dict[str, Any]) -> float:
    """Return how many seconds the payload asks for, a tenth of one where it does not say."""
    match payload.get("delay", 0.1):
        case bool():  # which is an int, too
            pass
        case int(delay) | float(delay) if 0 <= delay <= LONGEST_DELAY:
            return delay
    raise InvocationError(
        "invalid_request", f"payload.delay must be a number from 0 to {LONGEST_DELAY}"
    )
