"""The agent of a daemon that is attacked."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from agentws import Agent, InvocationContext

agent = Agent()


@agent.invoke_handler
async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    match payload:
        case {"do": "hang"}:
            await asyncio.Event().wait()
        case {"do": "stream"}:
            while True:
                yield "x" * 10_000
        case _:
            yield payload


@agent.ws_handler
async def raw(ws: web.WebSocketResponse, context: InvocationContext) -> None:
    async for _ in ws:
        pass
