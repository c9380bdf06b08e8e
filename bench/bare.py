"""What aiohttp can do at best: a WebSocket server that only parses JSON and sends it back."""

import json

import click
from aiohttp import web

from bench.loops import new_event_loop


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Echo the JSON messages of one socket."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for msg in ws:
        await ws.send_str(json.dumps(json.loads(msg.data)))
    return ws


async def ready(_request: web.Request) -> web.Response:
    """Answer the probe that the daemon has, too."""
    return web.Response()


@click.command()
@click.option("--host", required=True)
@click.option("--port", required=True, type=int)
def main(host: str, port: int) -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_get("/invocations_ws/ws", echo)
    app.router.add_get("/readiness", ready)
    web.run_app(app, host=host, port=port, print=None, access_log=None, loop=new_event_loop())


if __name__ == "__main__":
    main()
