"""A module in the style of the azure-ai-agentserver SDK: only its import line was changed."""

from collections.abc import AsyncIterator
from typing import Any

from agentws.compat import InvocationWSAgentServerHost, InvocationWSContext, InvocationWSError

app = InvocationWSAgentServerHost(ws_ping_interval=20)


@app.ws_invoke_handler
async def invoke(payload: Any, context: InvocationWSContext) -> AsyncIterator[dict[str, str]]:
    """Yield the words of `message`."""
    match payload:
        case {"message": str(message)}:
            for word in message.split():
                yield {"token": word}
        case _:
            raise InvocationWSError("invalid_request", "payload.message must be a string")


if __name__ == "__main__":
    app.run()
