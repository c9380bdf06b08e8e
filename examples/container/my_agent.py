"""An agent for a container of its own; the Dockerfile beside it adds it to the daemon's image."""

from collections.abc import AsyncIterator
from typing import Any

from agentws import Agent, InvocationContext, InvocationError

agent = Agent()


@agent.invoke_handler
async def invoke(payload: Any, context: InvocationContext) -> AsyncIterator[dict[str, str]]:
    """Yield the words of `message`."""
    match payload:
        case {"message": str(message)}:
            for word in message.split():
                yield {"token": word}
        case _:
            raise InvocationError("invalid_request", "payload.message must be a string")
