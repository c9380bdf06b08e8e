"""The agent on Starlette, run by uvicorn, and on the peer package: `python -m … NAME --port PORT`.

Both run in an environment of their own, which has nothing of ours.
"""

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from azure.ai.agentserver.invocations import InvocationAgentServerHost
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from bench.served import watch


async def _chunks(payload: Any) -> AsyncIterator[str]:
    for number in range(1, payload["chunks"] + 1):
        if "pause" in payload:
            await asyncio.sleep(payload["pause"])
        yield json.dumps(
            {
                "type": "stream_chunk",
                "invocation_id": "f0e9a7a4-5b1f-4c9e-9f0e-1d7c3a2b4c5d",
                "session_id": "0d4c2a6e-8a3f-4c53-a3ce-7d6e5f4a3b2c",
                "sequence_number": number,
                "payload": {"token": "word"},
            }
        )
    yield '{"type": "stream_end"}'


async def _events(payload: Any) -> AsyncIterator[str]:
    async for chunk in _chunks(payload):
        yield f"data: {chunk}\n\n"


async def _converse(ws: WebSocket) -> None:
    async for text in ws.iter_text():
        await _answer(ws, json.loads(text))


async def _converse_traced(ws: WebSocket) -> None:
    """Make a span for each message, as ours does: the peer makes one for the socket only."""
    tracer = trace.get_tracer(__name__)
    async for text in ws.iter_text():
        message = json.loads(text)
        with tracer.start_as_current_span("invoke_agent"):
            await _answer(ws, message)


async def _answer(ws: WebSocket, message: Any) -> None:
    if "chunks" not in message["payload"]:
        await ws.send_text(json.dumps(message))
        return
    async for chunk in _chunks(message["payload"]):
        await ws.send_text(chunk)


async def _accept_and_converse(ws: WebSocket) -> None:
    await ws.accept()
    await _converse(ws)


async def _post(request: Request) -> Response:
    payload = json.loads(await request.body())
    if "chunks" not in payload:
        return JSONResponse(payload)
    return StreamingResponse(_events(payload), media_type="text/event-stream")


async def _ready(_request: Request) -> Response:
    return Response()


def _serve_starlette(host: str, port: int) -> None:
    routes = [
        WebSocketRoute("/invocations_ws", _accept_and_converse),
        Route("/invocations", _post, methods=["POST"]),
        Route("/readiness", _ready),
    ]
    uvicorn.run(
        Starlette(routes=routes), host=host, port=port, access_log=False, log_level="warning"
    )


def _serve_peer(host: str, port: int) -> None:
    app = InvocationAgentServerHost(access_log=None, log_level="WARNING")
    app.invoke_handler(_post)
    app.ws_handler(_converse_traced if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ else _converse)
    app.run(host, port)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["starlette", "peer"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    arguments = parser.parse_args()
    watch.begin()
    serve = {"starlette": _serve_starlette, "peer": _serve_peer}[arguments.name]
    serve(arguments.host, arguments.port)


if __name__ == "__main__":
    main()
