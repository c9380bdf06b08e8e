"""Tokens as they come: an async generator is streamed, over WebSocket and over SSE alike."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agentws import Agent, InvocationContext, InvocationError

agent = Agent()


@agent.invoke_handler
async def answer(payload: Any, context: InvocationContext) -> AsyncIterator[dict[str, str]]:
    """Yield the words of `message`, `delay` seconds apart."""
    try:
        words = payload["message"].split()
    except (TypeError, KeyError, AttributeError):
        raise InvocationError("no_message", "payload.message must be a string") from None
    for word in words:
        yield {"token": word}
        await asyncio.sleep(payload.get("delay", 0.1))
