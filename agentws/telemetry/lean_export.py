"""Lean spans on their way to a collector over HTTP, encoded in a tenth of the time.

Spans of one kind differ in their ids, times and texts alone: what the SDK's encoder makes of the
first of them is filled in anew for each. The SDK's exporter encodes what is not lean, and sends
everything: lean spans follow in the body of its request, as protobuf takes messages that are put
one behind the other for one message.
"""

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import environ
from typing import Final

import requests
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from agentws.telemetry.lean_tracing import SpanRecord

_LEVEL: Final = 3
"""Of compression: spans get no smaller by more, which takes more than twice the time."""

_COMPRESSIONS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "none": bytes,
    "gzip": partial(gzip.compress, compresslevel=_LEVEL),
    "deflate": partial(zlib.compress, level=_LEVEL),
}

_LENGTH_DELIMITED: Final = 2
"""The wire type of a message within another."""


class _Kind:
    """Spans that differ in their ids, times and texts alone."""

    def __init__(self, first: ReadableSpan) -> None:
        self._message = encode_spans([first]).resource_spans[0].scope_spans[0]
        self._message.ClearField("scope")
        self._span = self._message.spans[0]
        self._texts = [pair.value for pair in self._span.attributes]

    def encoded(self, span: SpanRecord) -> bytes:
        """Return a span as it stands among those of a scope."""
        message = self._span
        message.trace_id = span.trace_id.to_bytes(16)
        message.span_id = span.span_id.to_bytes(8)
        if span.parent is not None:
            message.parent_span_id = span.parent.span_id.to_bytes(8)
        message.trace_state = span.trace_state.to_header() if span.trace_state else ""
        message.start_time_unix_nano = span.started_at
        message.end_time_unix_nano = span.ended_at
        for text, value in zip(self._texts, span.attributes.values(), strict=True):
            text.string_value = value
        return self._message.SerializeToString()


class LeanEncoder:
    """Encodes spans of a resource and a scope as the SDK's encoder does."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self._resource = resource
        self._scope = scope
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def encode(self, spans: Sequence[SpanRecord]) -> bytes:
        """Return an `ExportTraceServiceRequest` of at least one span."""
        around = encode_spans([self._readable(spans[0])]).resource_spans[0]
        scope = around.scope_spans[0]
        scope.ClearField("spans")
        of_scope = [scope.SerializeToString(), *(self._kind(it).encoded(it) for it in spans)]
        around.ClearField("scope_spans")
        of_resource = [
            around.SerializeToString(),
            _head(ResourceSpans.SCOPE_SPANS_FIELD_NUMBER, of_scope),
            *of_scope,
        ]
        head = _head(ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER, of_resource)
        return b"".join([head, *of_resource])

    def _kind(self, span: SpanRecord) -> _Kind:
        is_remote = span.parent and span.parent.is_remote
        key = span.name, span.kind, is_remote, *span.attributes
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(self._readable(span))
        return kind

    def _readable(self, span: SpanRecord) -> ReadableSpan:
        return span.readable(self._resource, self._scope)


def _head(number: int, message: Sequence[bytes]) -> bytes:
    """Return what goes before the parts of a message that is a field of another.

    https://protobuf.dev/programming-guides/encoding/#length-types
    """
    return bytes([number << 3 | _LENGTH_DELIMITED]) + _varint(sum(map(len, message)))


def _varint(number: int) -> bytes:
    septets = bytearray()
    while number > 0x7F:
        septets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*septets, number])


class AddingSession(requests.Session):
    """Puts more behind the body of what is sent, and compresses it."""

    def __init__(self, compression: str = "none") -> None:
        super().__init__()
        self._compress = _COMPRESSIONS[compression]
        if compression != "none":
            self.headers["Content-Encoding"] = compression
        self.more = b""
        self.was_asked = False
        """Whether there was a request to put it behind."""

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """See `requests.Session`, which asks this once for each attempt at sending."""
        body = request.data or b""
        assert isinstance(body, bytes)
        request.data = self._compress(body + self.more)
        self.was_asked = True
        return super().prepare_request(request)


class LeanExporter:
    """Sends spans of any kind: the lean ones by the session of an exporter of the others."""

    def __init__(
        self, exporter: SpanExporter, session: AddingSession, encoder: LeanEncoder
    ) -> None:
        self._exporter = exporter
        self._session = session
        self._encoder = encoder

    def export(self, spans: Sequence[SpanRecord | ReadableSpan]) -> bool:
        """Tell whether the spans were taken."""
        lean = [span for span in spans if isinstance(span, SpanRecord)]
        whole = [span for span in spans if not isinstance(span, SpanRecord)]
        self._session.more = self._encoder.encode(lean) if lean else b""
        self._session.was_asked = False
        return self._exporter.export(whole) is SpanExportResult.SUCCESS and self._session.was_asked


def lean_exporter(endpoint: str, resource: Resource, scope: InstrumentationScope) -> LeanExporter:
    """Return what sends to a URL, as the variables of OTLP want it."""
    compression = environ.get("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION") or environ.get(
        "OTEL_EXPORTER_OTLP_COMPRESSION", "none"
    )
    session = AddingSession(compression.strip())
    exporter = OTLPSpanExporter(endpoint, session=session, compression=Compression.NoCompression)
    return LeanExporter(exporter, session, LeanEncoder(resource, scope))
