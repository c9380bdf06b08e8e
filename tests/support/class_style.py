"""An agent in class style that answers as a test says, by functions of one request."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from agentws import InvocationContext, InvocationWebSocketHandler

EVENTS = {"Content-Type": "text/event-stream"}
PART = b"data: 1\n\n"

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Answers(InvocationWebSocketHandler):
    """An agent that answers everything as the test says."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer

    async def handle_websocket(
        self, ws: web.WebSocketResponse, context: InvocationContext
    ) -> None: ...

    async def handle(self, request: web.Request, context: InvocationContext) -> web.StreamResponse:
        return await self.answer(request)

    async def get(
        self, invocation_id: str, request: web.Request, context: InvocationContext
    ) -> web.StreamResponse:
        return await self.answer(request)

    async def get_openapi(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request)


async def begun(request: web.Request, length: int | None = None) -> web.StreamResponse:
    """Begin an answer, and write a part of its body."""
    response = web.StreamResponse(headers=EVENTS)
    response.content_length = length
    await response.prepare(request)
    await response.write(PART)
    return response
