"""A module in the style of the azure-ai-agentserver SDK: only its import line was changed."""

from collections.abc import AsyncIterator
from typing import Any

from agentws.compat import InvocationWSAgentServerHost, InvocationWSContext, InvocationWSError

app = InvocationWSAgentServerHost(ws_ping_interval=20)


@app.ws_invoke_handler
async def invoke(payload: Any, context: InvocationWSContext) -> AsyncIterator[dict[str, str]]:
    """Yield the words of `message`."""
    if "message" not in payload:
        raise InvocationWSError("no_message", "payload.message is missing")
    for word in payload["message"].split():
        yield {"token": word}


if __name__ == "__main__":
    app.run()
