"""OTLP: the exporters of its SDK, with lean spans encoded here.

Most of what a lean span says is the same in every span. Putting it together from pieces that are
encoded already takes a tenth of the time that the SDK takes, which at full load would be more than
the invocations themselves. All other spans, the SDK encodes.
"""

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind

from agentws.lean_tracing import EndedSpan

# https://protobuf.dev/programming-guides/encoding/ and opentelemetry/proto/trace/v1/trace.proto:
# a field is its number and wire type, then its value, with its length first where that varies.
_RESOURCE_SPANS: Final = b"\x0a"  # of a request
_RESOURCE: Final = b"\x0a"  # of ResourceSpans
_SCOPE_SPANS: Final = b"\x12"
_SCOPE: Final = b"\x0a"  # of ScopeSpans
_SPAN: Final = b"\x12"
_PARENT_ID: Final = b"\x22\x08"  # of Span
_NAME: Final = b"\x2a"
_ATTRIBUTE: Final = b"\x4a"
_KEY: Final = b"\x0a"  # of KeyValue
_VALUE: Final = b"\x12"
_TEXT: Final = b"\x0a"  # of AnyValue
_IDS: Final = struct.Struct("<2s16s2s8s")  # trace_id, span_id
_REST: Final = struct.Struct("<2scQcQ4sI")  # kind, start and end, status and flags
_END: Final = b"\x7a\x00\x85\x01"
_KINDS: Final = {kind: bytes((0x30, kind.value + 1)) for kind in SpanKind}
_PARENT_IS_KNOWN, _PARENT_IS_REMOTE = 0x100, 0x200


Encode = Callable[[Sequence[Any]], bytes]


def encoder(resource: Resource, scope: InstrumentationScope) -> Encode:
    """Return what makes an `ExportTraceServiceRequest` of spans, ended lean ones and the SDK's.

    The lean ones are of this scope.
    """
    nobody = SpanContext(1, 1, is_remote=False)
    sample = ReadableSpan("", nobody, resource=resource, instrumentation_scope=scope)
    (like,) = encode_spans([sample]).resource_spans
    head = _field(_RESOURCE, like.resource.SerializeToString())
    scope_head = _field(_SCOPE, like.scope_spans[0].scope.SerializeToString())

    def encode(spans: Sequence[Any]) -> bytes:
        lean: list[bytes] = []
        others: list[ReadableSpan] = []
        for span in spans:
            if not isinstance(span, EndedSpan):
                others.append(span)
            elif span.trace_state:
                others.append(span.readable(resource, scope))
            else:
                lean.append(_encoded(span))
        # Requests put behind one another are one request: their fields are repeated ones.
        ours = _field(_SCOPE_SPANS, scope_head + b"".join(lean))
        request = _field(_RESOURCE_SPANS, head + ours) if lean else b""
        return request + (encode_spans(others).SerializePartialToString() if others else b"")

    return encode


def _encoded(span: EndedSpan) -> bytes:
    ids = span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big")
    parent, kind = span.parent, span.kind
    if parent is None:
        flags, above = _PARENT_IS_KNOWN, b""
    else:
        flags = _PARENT_IS_KNOWN | (_PARENT_IS_REMOTE if parent.is_remote else 0)
        above = _PARENT_ID + parent.span_id.to_bytes(8, "big")
    fields = [_IDS.pack(b"\x0a\x10", ids[0], b"\x12\x08", ids[1]), above, _name(span.name)]
    for key, value in span.attributes.items():
        text = _utf8(value)
        fields += (_before_text(key, len(text)), text)
    fields.append(
        _REST.pack(_KINDS[kind], b"\x39", span.started_at, b"\x41", span.ended_at, _END, flags)
    )
    return _field(_SPAN, b"".join(fields))


@functools.lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    return _field(_NAME, _utf8(name))


@functools.lru_cache(maxsize=4096)
def _before_text(key: str, size: int) -> bytes:
    """Return all of an attribute but its value, a text of so many bytes, which stands last."""
    any_value = _field(_VALUE, _field(_TEXT, bytes(size)))
    attribute = _field(_ATTRIBUTE, _field(_KEY, _utf8(key)) + any_value)
    return attribute[: len(attribute) - size]


def _field(tag: bytes, value: bytes) -> bytes:
    length = len(value)
    if length < 0x80:
        return b"%b%c%b" % (tag, length, value)
    digits = bytearray()
    while length >= 0x80:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return tag + digits + value


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


class HttpSpanExporter(http.OTLPSpanExporter):
    """The SDK's exporter over HTTP, which retries, compresses and reads its own variables."""

    def __init__(self, encode: Encode, endpoint: str) -> None:
        super().__init__(endpoint)
        self._encode = encode
        self._body = b""

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Send spans."""
        self._body = self._encode(spans)
        return super().export(())

    def _export(self, serialized_data: bytes, timeout_sec: float | None = None) -> Any:
        """Post what `export` encoded, in place of the empty request."""
        return super()._export(self._body or serialized_data, timeout_sec)


class GrpcSpanExporter(grpc.OTLPSpanExporter):
    """The SDK's exporter over gRPC."""

    def __init__(self, encode: Encode, endpoint: str) -> None:
        super().__init__(endpoint)
        self._encode = encode

    def _translate_data(self, data: Sequence[Any]) -> ExportTraceServiceRequest:
        request = ExportTraceServiceRequest()
        request.ParseFromString(self._encode(data))
        return request
