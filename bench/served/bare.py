"""What aiohttp can do at best: the agent written by hand, with `json` or with msgspec."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import click
import msgspec
from aiohttp import web

from bench.loops import new_event_loop
from bench.served import watch


@dataclass(frozen=True)
class Codec:
    """How JSON is read and written."""

    loads: Callable[[str | bytes], Any]
    dumps: Callable[[Any], str]


CODECS: Final = {
    "json": Codec(json.loads, json.dumps),
    "msgspec": Codec(msgspec.json.decode, lambda value: msgspec.json.encode(value).decode()),
}


async def chunks(payload: Any) -> AsyncIterator[dict[str, Any]]:
    """Yield the frames of a stream as the framed socket has them."""
    for number in range(1, payload["chunks"] + 1):
        if "pause" in payload:
            await asyncio.sleep(payload["pause"])
        yield {
            "type": "stream_chunk",
            "invocation_id": "f0e9a7a4-5b1f-4c9e-9f0e-1d7c3a2b4c5d",
            "session_id": "0d4c2a6e-8a3f-4c53-a3ce-7d6e5f4a3b2c",
            "sequence_number": number,
            "payload": {"token": "word"},
        }
    yield {"type": "stream_end"}


class Bare:
    """The agent's routes."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    async def converse(self, request: web.Request) -> web.WebSocketResponse:
        """Echo the messages of one socket, or stream what they ask for."""
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for msg in ws:
            message = self._codec.loads(msg.data)
            if "chunks" not in message["payload"]:
                await ws.send_str(self._codec.dumps(message))
                continue
            async for chunk in chunks(message["payload"]):
                await ws.send_str(self._codec.dumps(chunk))
        return ws

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Echo the body, or stream what it asks for."""
        payload = self._codec.loads(await request.read())
        if "chunks" not in payload:
            return web.Response(text=self._codec.dumps(payload), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for chunk in chunks(payload):
            await response.write(f"data: {self._codec.dumps(chunk)}\n\n".encode())
        return response


async def ready(_request: web.Request) -> web.Response:
    """Answer the probe that the daemon has, too."""
    return web.Response()


@click.command()
@click.option("--host", required=True)
@click.option("--port", required=True, type=int)
@click.option("--codec", type=click.Choice(list(CODECS)), default="json")
@click.option("--access-log", is_flag=True, help="Log requests as aiohttp does.")
def main(host: str, port: int, codec: str, access_log: bool) -> None:
    """Serve until killed."""
    watch.begin()
    bare = Bare(CODECS[codec])
    app = web.Application()
    app.router.add_get("/invocations_ws/ws", bare.converse)
    app.router.add_post("/invocations", bare.post)
    app.router.add_get("/readiness", ready)
    log = logging.getLogger("aiohttp.access") if access_log else None
    if access_log:
        logging.basicConfig(level=logging.INFO)
    web.run_app(app, host=host, port=port, print=None, access_log=log, loop=new_event_loop())


if __name__ == "__main__":
    main()
