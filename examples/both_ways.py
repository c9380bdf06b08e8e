"""One agent, three ways in: framed socket and HTTP by the invoke handler, and a raw socket."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import WSMsgType, web

from agentws import Agent, InvocationContext, InvocationError

agent = Agent(
    openapi={
        "openapi": "3.1.0",
        "info": {"title": "Shout", "version": "1"},
        "paths": {"/invocations": {"post": {"summary": "Shout the words of `message`."}}},
    }
)


@agent.invoke_handler
async def shout(payload: Any, context: InvocationContext) -> AsyncIterator[str]:
    """Yield the words of `message` in capitals."""
    match payload:
        case {"message": str(message)}:
            for word in message.split():
                yield word.upper()
        case _:
            raise InvocationError("invalid_request", "payload.message must be a string")


@agent.ws_handler
async def converse(ws: web.WebSocketResponse, context: InvocationContext) -> None:
    """Own the raw socket: plain text in, capitals out; "bye" ends it."""
    async for message in ws:
        if message.type is not WSMsgType.TEXT or message.data == "bye":
            return
        await ws.send_str(message.data.upper())
