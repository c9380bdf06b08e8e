"""OTLP: the exporters of its SDK, with spans encoded here.

A span of ours has nothing but text for attributes, most of it the same in every span. Encoding it
as protobuf from pieces that are encoded already takes a tenth of the time that the SDK takes, which
at full load is most of what tracing costs. Whatever else a span may have, the SDK encodes.
"""

import functools
import struct
from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any, Final, cast

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import StatusCode

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
_REST: Final = struct.Struct("<2scQcQ2s2sI")  # kind, start and end, status, flags
_PARENT_IS_KNOWN, _PARENT_IS_REMOTE = 0x100, 0x200


def encode(spans: Sequence[ReadableSpan]) -> bytes:
    """Return an `ExportTraceServiceRequest` of the spans."""
    plain: dict[Any, list[bytes]] = {}
    others: list[ReadableSpan] = []
    samples: dict[Any, ReadableSpan] = {}
    for span in spans:
        encoded = _plain(span)
        if encoded is None:
            others.append(span)
        else:
            plain.setdefault(span.instrumentation_scope, []).append(encoded)
            samples[span.instrumentation_scope] = span
    # Requests put behind one another are one request: their fields are repeated ones.
    request = [_group(samples[scope], encoded) for scope, encoded in plain.items()]
    if others:
        request.append(encode_spans(others).SerializePartialToString())
    return b"".join(request)


def _group(sample: ReadableSpan, spans: Iterable[bytes]) -> bytes:
    """Return what spans of one scope are in a request; resource and scope are the sample's."""
    (like,) = encode_spans([sample]).resource_spans
    scope = _field(_SCOPE, like.scope_spans[0].scope.SerializeToString())
    resource = _field(_RESOURCE, like.resource.SerializeToString())
    return _field(_RESOURCE_SPANS, resource + _field(_SCOPE_SPANS, scope + b"".join(spans)))


def _plain(span: ReadableSpan) -> bytes | None:
    """Return an encoded span, None for one that has more than texts."""
    context, parent = span.context, span.parent
    if (
        context is None
        or context.trace_state
        or span.status.status_code is not StatusCode.UNSET
        or span.events
        or span.links
        or span.dropped_attributes
    ):
        return None
    # The SDK's view of its attributes locks and copies for each access.
    attributes = cast(MappingProxyType[str, Any], span.attributes).copy()
    fields = [
        _IDS.pack(
            *(b"\x0a\x10", context.trace_id.to_bytes(16, "big")),
            *(b"\x12\x08", context.span_id.to_bytes(8, "big")),
        ),
        _name(span.name),
    ]
    flags = _PARENT_IS_KNOWN
    if parent is not None:
        fields += (_PARENT_ID, parent.span_id.to_bytes(8, "big"))
        flags |= _PARENT_IS_REMOTE if parent.is_remote else 0
    for key, value in attributes.items():
        if type(value) is not str:
            return None
        fields.append(_attribute(key, value))
    kind = bytes((0x30, span.kind.value + 1))
    times = (b"\x39", span.start_time or 0, b"\x41", span.end_time or 0)
    fields.append(_REST.pack(kind, *times, b"\x7a\x00", b"\x85\x01", flags))
    return _field(_SPAN, b"".join(fields))


@functools.lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    return _field(_NAME, _utf8(name))


@functools.lru_cache(maxsize=4096)
def _attribute(key: str, value: str) -> bytes:
    text = _field(_TEXT, _utf8(value))
    return _field(_ATTRIBUTE, _field(_KEY, _utf8(key)) + _field(_VALUE, text))


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

    _body = b""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        self._body = encode(spans)
        return super().export(())

    def _export(self, serialized_data: bytes, timeout_sec: float | None = None) -> Any:
        """Post what `export` encoded, in place of the empty request."""
        return super()._export(self._body or serialized_data, timeout_sec)


class GrpcSpanExporter(grpc.OTLPSpanExporter):
    """The SDK's exporter over gRPC."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        request = ExportTraceServiceRequest()
        request.ParseFromString(encode(data))
        return request
