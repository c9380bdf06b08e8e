"""Whether what telemetry goes to answers: one attempt, which leaves nothing there.

It reads the variables that the exporters read, as far as they tell how to get there.
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

import asyncio
import ssl
from collections.abc import Mapping
from os import environ
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import grpc
from opentelemetry.util.re import parse_env_headers

from agentws.config.otel_variables import SIGNALS, Signal, exports

_SERVICES: Final[Mapping[Signal, str]] = {
    "TRACES": "trace.v1.TraceService",
    "METRICS": "metrics.v1.MetricsService",
    "LOGS": "logs.v1.LogsService",
}

_GLOBAL_INGESTION: Final = "https://dc.services.visualstudio.com"
"""Where a connection string leads that names no endpoint."""


async def trouble_with_collector(endpoint: str) -> str:
    """Send requests with nothing in them, of each signal that is exported; empty if all are taken.

    Raises what a broken connection raises.
    """
    signals = [signal for signal in SIGNALS if exports(signal, environ)]
    troubles = await asyncio.gather(*(_trouble(signal, endpoint) for signal in signals))
    return next(filter(None, troubles), "")


async def _trouble(signal: Signal, endpoint: str) -> str:
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    match _variable(signal, "PROTOCOL") or "http/protobuf":
        case "grpc":
            trouble = await _over_grpc(signal, own or endpoint)
        case "http/protobuf":
            trouble = await _over_http(signal, own or f"{endpoint.rstrip('/')}/v1/{signal.lower()}")
        case other:
            trouble = f"OTEL_EXPORTER_OTLP_PROTOCOL is {other!r}, not http/protobuf or grpc"
    return trouble and f"{signal.lower()}: {trouble}"


def _variable(signal: Signal, name: str) -> str:
    return environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}") or environ.get(
        f"OTEL_EXPORTER_OTLP_{name}", ""
    )


async def _over_http(signal: Signal, url: str) -> str:
    headers = {
        **parse_env_headers(_variable(signal, "HEADERS"), liberal=True),
        "Content-Type": "application/x-protobuf",
    }
    async with (
        aiohttp.ClientSession(trust_env=True) as session,
        session.post(url, data=b"", headers=headers, ssl=_tls(signal)) as answer,
    ):
        return "" if answer.ok else f"it answers {answer.status} ({answer.reason})"


def _tls(signal: Signal) -> ssl.SSLContext | bool:
    if not (_variable(signal, "CERTIFICATE") or _variable(signal, "CLIENT_CERTIFICATE")):
        return True
    context = ssl.create_default_context(cafile=_variable(signal, "CERTIFICATE") or None)
    if certificate := _variable(signal, "CLIENT_CERTIFICATE"):
        context.load_cert_chain(certificate, _variable(signal, "CLIENT_KEY") or None)
    return context


async def _over_grpc(signal: Signal, endpoint: str) -> str:
    parts = urlsplit(endpoint)
    target = parts.netloc or endpoint
    is_secure = parts.scheme == "https" and _variable(signal, "INSECURE").lower() != "true"
    channel = (
        grpc.aio.secure_channel(target, _credentials(signal))
        if is_secure
        else grpc.aio.insecure_channel(target)
    )
    headers = tuple(parse_env_headers(_variable(signal, "HEADERS"), liberal=True).items())
    async with channel:
        service = f"opentelemetry.proto.collector.{_SERVICES[signal]}"
        export: Any = channel.unary_unary(f"/{service}/Export")
        try:
            await export(b"", metadata=headers)
        except grpc.aio.AioRpcError as error:
            return f"it answers {error.code().name} ({error.details()})"
    return ""


def _credentials(signal: Signal) -> grpc.ChannelCredentials:
    files = (
        _variable(signal, name) for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    )
    return grpc.ssl_channel_credentials(
        *(Path(file).read_bytes() if file else None for file in files)
    )


async def trouble_with_ingestion(connection_string: str) -> str:
    """Ask what Application Insights takes telemetry at; any answer will do, but for its failures.

    Raises what a broken connection raises.
    """
    url = f"{ingestion_endpoint(connection_string)}/v2.1/track"
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as answer:
        return f"it answers {answer.status} ({answer.reason})" if answer.status >= 500 else ""


def ingestion_endpoint(connection_string: str) -> str:
    """Return the URL that a connection string leads to.

    https://learn.microsoft.com/azure/azure-monitor/app/connection-strings
    """
    pairs = (part.partition("=") for part in connection_string.split(";"))
    fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if endpoint := fields.get("ingestionendpoint"):
        return endpoint.rstrip("/")
    if suffix := fields.get("endpointsuffix"):
        location = f"{fields['location']}." if fields.get("location") else ""
        return f"https://{location}dc.{suffix}"
    return _GLOBAL_INGESTION
