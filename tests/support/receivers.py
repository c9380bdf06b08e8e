"""What telemetry is sent to, as the real ones take it: OTLP over HTTP and gRPC, App Insights."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

PATIENCE = 20.0
"""Seconds within which what is awaited has to arrive."""


@dataclass
class Span:
    """A span as it arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    failed: bool = False
    kind: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)


@dataclass
class Line:
    """A log line as it arrived."""

    body: str
    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass
class Receiver:
    """Everything that has arrived at one place."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    points: list[tuple[str, float, dict[str, Any]]] = field(default_factory=list)
    requests: int = 0
    status: int = 200
    delay: float = 0.0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def named(self, start: str) -> list[Span]:
        """Return the spans whose names begin so."""
        return [span for span in self.spans if span.name.startswith(start)]

    def measured(self, name: str) -> list[tuple[float, dict[str, Any]]]:
        """Return values (of histograms, counts) and attributes of an instrument's points."""
        return [(value, attributes) for each, value, attributes in self.points if each == name]

    async def until(self, count: int, start: str) -> list[Span]:
        """Wait for as many spans whose names begin so."""
        async with asyncio.timeout(PATIENCE):
            while len(self.named(start)) < count:
                self.news.clear()
                await self.news.wait()
        return self.named(start)

    def arrived(self) -> None:
        """Let whoever waits look again."""
        self.requests += 1
        self.news.set()

    # --- OTLP ---

    def take(self, message: Message) -> None:
        """Take an OTLP request."""
        match message:
            case traces.ExportTraceServiceRequest():
                self.spans += _spans(message)
            case logs.ExportLogsServiceRequest():
                self.lines += _lines(message)
            case metrics.ExportMetricsServiceRequest():
                self.points += _points(message)
        self.arrived()

    # --- Application Insights ---

    def take_envelopes(self, envelopes: list[dict[str, Any]]) -> None:
        """Take what was posted for tracking."""
        for envelope in envelopes:
            data, tags = envelope["data"]["baseData"], envelope.get("tags", {})
            place = (tags.get("ai.operation.id", ""), tags.get("ai.operation.parentId", ""))
            properties = data.get("properties") or {}
            match envelope["data"]["baseType"]:
                case "RequestData" | "RemoteDependencyData":
                    failed = not data["success"]
                    self.spans.append(
                        Span(data["name"], place[0], data["id"], place[1], properties, failed)
                    )
                    self.spans[-1].resource = tags
                case "MessageData":
                    self.lines.append(Line(data["message"], *place, properties))
                case "MetricData":
                    for point in data["metrics"]:
                        value = point.get("count") or point["value"]
                        self.points.append((point["name"], value, properties))
        self.arrived()


def _values(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


def _spans(request: traces.ExportTraceServiceRequest) -> Iterator[Span]:
    for group in request.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    _values(span.attributes),
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    span.kind,
                    [{"name": it.name, **_values(it.attributes)} for it in span.events],
                    _values(group.resource.attributes),
                )


def _lines(request: logs.ExportLogsServiceRequest) -> Iterator[Line]:
    for group in request.resource_logs:
        for scope in group.scope_logs:
            for it in scope.log_records:
                ids = it.trace_id.hex(), it.span_id.hex()
                yield Line(it.body.string_value, *ids, _values(it.attributes))


def _points(
    request: metrics.ExportMetricsServiceRequest,
) -> Iterator[tuple[str, float, dict[str, Any]]]:
    for group in request.resource_metrics:
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                for point in metric.histogram.data_points:
                    yield metric.name, point.count, _values(point.attributes)
                for number in metric.sum.data_points:
                    value = number.as_int or number.as_double
                    yield metric.name, value, _values(number.attributes)


@asynccontextmanager
async def _serving(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await site.stop()
        # What was accepted just now becomes a connection within some turns of the event loop; one
        # that came after the clean-up would stay open.
        for _ in range(5):
            await asyncio.sleep(0)
        await runner.cleanup()


async def _body(receiver: Receiver, request: web.Request) -> bytes | None:
    """Return the body of a request, or None when the receiver is in no mood for it."""
    body = await request.read()
    await asyncio.sleep(receiver.delay)
    if receiver.status != 200:
        receiver.arrived()
        return None
    # aiohttp has decompressed it already where it was told so.
    return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body


@asynccontextmanager
async def otlp_over_http() -> AsyncIterator[Receiver]:
    """Receive OTLP as HTTP/protobuf."""
    receiver = Receiver()
    kinds: dict[str, type[Message]] = {
        "traces": traces.ExportTraceServiceRequest,
        "logs": logs.ExportLogsServiceRequest,
        "metrics": metrics.ExportMetricsServiceRequest,
    }

    async def take(request: web.Request) -> web.Response:
        if (body := await _body(receiver, request)) is None:
            return web.Response(status=receiver.status)
        assert request.content_type == "application/x-protobuf"
        receiver.take(kinds[request.match_info["signal"]].FromString(body))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/v1/{signal}", take)
    async with _serving(app) as port:
        receiver.url = f"http://127.0.0.1:{port}"
        yield receiver


@asynccontextmanager
async def otlp_over_grpc() -> AsyncIterator[Receiver]:
    """Receive OTLP over gRPC."""
    receiver = Receiver()
    server = grpc.aio.server()
    for service, request, response in (
        ("trace.v1.TraceService", traces.ExportTraceServiceRequest, traces),
        ("logs.v1.LogsService", logs.ExportLogsServiceRequest, logs),
        ("metrics.v1.MetricsService", metrics.ExportMetricsServiceRequest, metrics),
    ):
        answer = getattr(response, request.__name__.replace("Request", "Response"))

        async def export(
            message: Message, _context: Any, answer: type[Message] = answer
        ) -> Message:
            receiver.take(message)
            return answer()

        method = grpc.unary_unary_rpc_method_handler(
            export, request.FromString, answer.SerializeToString
        )
        name = f"opentelemetry.proto.collector.{service}"
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, {"Export": method})]
        )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    receiver.url = f"http://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        await server.stop(None)


@asynccontextmanager
async def application_insights() -> AsyncIterator[Receiver]:
    """Receive what is posted to an ingestion endpoint; `url` is a connection string."""
    receiver = Receiver()

    async def track(request: web.Request) -> web.Response:
        if (body := await _body(receiver, request)) is None:
            return web.Response(status=receiver.status)
        envelopes = json.loads(body)
        assert {it["iKey"] for it in envelopes} == {KEY}
        receiver.take_envelopes(envelopes)
        count = len(envelopes)
        return web.json_response({"itemsReceived": count, "itemsAccepted": count, "errors": []})

    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/v2.1/track", track)
    async with _serving(app) as port:
        receiver.url = f"InstrumentationKey={KEY};IngestionEndpoint=http://127.0.0.1:{port}/"
        yield receiver


KEY = "00000000-0000-4000-8000-0123456789ab"
"""The instrumentation key, which has no business anywhere but in envelopes."""
