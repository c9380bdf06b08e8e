"""Telemetry is told as it is sent: log lines here, metrics in `tests/deploy/test_prometheus.py`."""

import re
import signal

import aiohttp
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentws import InvocationContext
from agentws.config.settings import AgentSettings
from agentws.protocol.errors import internal_error
from agentws.telemetry.operations import ObservingTelemetry
from tests.docs.conftest import names, page, rows, section
from tests.support.processes import ROOT, Start

TELEMETRY = page("telemetry.md")

LOGGER = r'getLogger\("(agentws[.\w]*)"\)'

COMMON = {"timestamp", "level", "logger", "message", "trace_id", "span_id"}

AGENT = """
    @agent.invoke_handler
    async def invoke(payload, context):
        if payload == "fail":
            raise ValueError("no")
        await asyncio.sleep(payload)
"""


def documented_fields() -> dict[str, set[str]]:
    """Return the fields that the table of log lines names, by logger."""
    fields: dict[str, set[str]] = {}
    for row in rows(section(TELEMETRY, "## Log lines")):
        if len(row) == 3 and row[0].startswith("`"):
            fields.setdefault(row[0].strip("`"), set()).update(names(row[2]))
    return fields


async def test_the_fields_of_log_lines_are_those_of_the_table(start: Start) -> None:
    daemon = await start(AGENT, server__shutdown_grace=0, server__log_level="debug")
    lines = [await daemon.line(logger="agentws.server")]
    daemon.port = lines[0]["port"]
    async with daemon.connect() as client, aiohttp.ClientSession() as session:
        for payload in (0, "fail"):
            await client.ask(action="invoke", payload=payload)
        await client.send(action="invoke", payload=600)
        async with session.get(f"http://127.0.0.1:{daemon.port}/invocations/i") as response:
            assert response.status == 404
        daemon.send(signal.SIGTERM)
        await client.closed()
    lines += await daemon.rest()
    documented = documented_fields()
    assert {line["logger"] for line in lines} >= documented.keys() - {"agentws.store"}
    for line in lines:
        if line["logger"] in documented and "exc_info" not in line:
            assert line.keys() - COMMON <= documented[line["logger"]], line


def test_all_loggers_are_told() -> None:
    files = (ROOT / "agentws").rglob("*.py")
    loggers = {name for file in files for name in re.findall(LOGGER, file.read_text())}
    assert loggers <= set(names(section(TELEMETRY, "## Log lines")))


def test_all_attributes_of_spans_are_told() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    agent = AgentSettings(name="n", version="1", id="i")
    meter = NoOpMeterProvider().get_meter("none")
    telemetry = ObservingTelemetry(provider.get_tracer("test"), meter, agent)
    context = InvocationContext("invocation", "session")
    telemetry.begin("invoke_agent", context, Context()).fail(internal_error(), ValueError())
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes.keys() <= set(names(section(TELEMETRY, "## Spans")))
