"""Where telemetry goes while it is measured: takes OTLP over HTTP, and counts the spans."""

import click
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.loops import new_event_loop

LARGEST_REQUEST = 64 * 1024**2


class Collector:
    """Counts spans, and tells how many there were."""

    def __init__(self) -> None:
        self.spans = 0

    async def take(self, request: web.Request) -> web.Response:
        """Take a request of any signal."""
        body = await request.read()
        if request.match_info["signal"] == "traces":
            groups = ExportTraceServiceRequest.FromString(body).resource_spans
            self.spans += sum(len(scope.spans) for group in groups for scope in group.scope_spans)
        return web.Response(content_type="application/x-protobuf")

    async def ready(self, _request: web.Request) -> web.Response:
        """Answer how many spans have come so far."""
        return web.Response(text=str(self.spans))


@click.command()
@click.option("--host", required=True)
@click.option("--port", required=True, type=int)
def main(host: str, port: int) -> None:
    """Serve until killed."""
    collector = Collector()
    app = web.Application(client_max_size=LARGEST_REQUEST)
    app.router.add_post("/v1/{signal}", collector.take)
    app.router.add_get("/readiness", collector.ready)
    web.run_app(app, host=host, port=port, print=None, access_log=None, loop=new_event_loop())


if __name__ == "__main__":
    main()
