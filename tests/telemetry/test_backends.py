"""What backends receive, and what becomes of clients when a backend is in trouble (§9)."""

import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.processes import ROOT, Daemon
from tests.support.receivers import (
    KEY,
    Receiver,
    application_insights,
    otlp_over_grpc,
    otlp_over_http,
)
from tests.telemetry.conftest import AGENT, Start, on_a_socket, stop

Place = Callable[[], AbstractAsyncContextManager[Receiver]]


@pytest.mark.parametrize(
    ("protocol", "place"), [("http/protobuf", otlp_over_http), ("grpc", otlp_over_grpc)]
)
async def test_300_invocations_give_300_trees_at_both_receivers(
    start: Start, protocol: str, place: Place
) -> None:
    async with place() as otlp, application_insights() as insights:
        daemon = await start(
            AGENT,
            OTEL_EXPORTER_OTLP_ENDPOINT=otlp.url,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            APPLICATIONINSIGHTS_CONNECTION_STRING=insights.url,
            FOUNDRY_AGENT_NAME="alice",
            FOUNDRY_AGENT_VERSION="7",
        )
        await asyncio.gather(
            *(on_a_socket(daemon, number) for number in range(3)), over_http(daemon)
        )
        await stop(daemon)

    for receiver in (otlp, insights):
        invocations, children = receiver.named("invoke_agent alice:7"), receiver.named("child")
        assert len({span.span_id for span in invocations}) == len(invocations) == 300
        by_id = {span.span_id: span for span in invocations}
        assert {
            f"child of {by_id[it.parent_id].attributes['gen_ai.response.id']}" == it.name
            and by_id[it.parent_id].trace_id == it.trace_id
            for it in children
        } == {True}
        assert len({span.name for span in children}) == len(children) == 300
        working = [line for line in receiver.lines if line.body == "Working"]
        assert {(line.trace_id, line.span_id) for line in working} == {
            (span.trace_id, span.span_id) for span in children
        } or receiver is insights
        assert Counter(line.attributes["invocation_id"] for line in working).total() == 300
        assert sum(count for count, _ in receiver.measured("gen_ai.invoke_agent.duration")) == 300
        first_chunks = receiver.measured("agentws.invocation.time_to_first_chunk")
        assert sum(count for count, _ in first_chunks) == 300
        closed = receiver.measured("websocket.connections.closed")
        assert {str(attributes["websocket.close_code"]) for _, attributes in closed} == {"1000"}
    resource = otlp.spans[0].resource
    assert (resource["service.name"], resource["service.version"]) == ("alice", "7")
    assert resource["service.instance.id"]
    tags = insights.spans[0].resource
    assert (tags["ai.cloud.role"], tags["ai.application.ver"]) == ("alice", "7")
    assert tags["ai.cloud.roleInstance"] == resource["service.instance.id"]


async def test_the_sdks_exporter_counts_each_span_where_it_is_to_count(
    start: Start, collector: Receiver
) -> None:
    counter = "otel.sdk.exporter.span.exported"
    daemon = await start(
        AGENT,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED="true",
        OTEL_METRIC_EXPORT_INTERVAL="100",
    )
    await on_a_socket(daemon, 0)
    await collector.until(50, "invoke_agent")
    async with asyncio.timeout(20):
        while 100 not in [count for count, _ in collector.measured(counter)]:
            collector.news.clear()
            await collector.news.wait()
    await stop(daemon)


async def over_http(daemon: Daemon) -> None:
    async with aiohttp.ClientSession() as session:

        async def invoke(number: int) -> None:
            url = f"http://127.0.0.1:{daemon.port}/invocations"
            headers = {"x-agent-invocation-id": f"http-{number}"}
            async with session.post(url, json={}, headers=headers) as response:
                assert b"stream_end" in await response.read()

        await asyncio.gather(*map(invoke, range(150)))


async def test_receivers_that_die_change_nothing_for_clients(start: Start) -> None:
    async with otlp_over_http() as otlp, application_insights() as insights:
        daemon = await start(
            AGENT,
            OTEL_EXPORTER_OTLP_ENDPOINT=otlp.url,
            APPLICATIONINSIGHTS_CONNECTION_STRING=insights.url,
        )
        await on_a_socket(daemon, 0)
        await otlp.until(50, "invoke_agent")
    began = time.monotonic()
    for number in range(1, 5):
        await on_a_socket(daemon, number)
    assert time.monotonic() - began < 5
    daemon.send(signal.SIGTERM)
    began = time.monotonic()
    lines = await daemon.rest()
    assert await daemon.process.wait() == 0
    assert time.monotonic() - began < 5
    warnings = [line["message"] for line in lines if line["logger"] == "agentws.telemetry"]
    assert len(warnings) == 1
    assert warnings[0].startswith("Telemetry does not get through: ")
    assert not any(line["logger"].startswith(("azure", "opentelemetry")) for line in lines)
    assert KEY not in json.dumps(lines)


@pytest.mark.parametrize("trouble", [{"status": 503}, {"status": 400}, {"delay": 30.0}])
async def test_a_backend_that_refuses_or_sleeps_does_not_delay_the_end(
    start: Start, collector: Receiver, trouble: dict[str, Any]
) -> None:
    daemon = await start(AGENT, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    for name, value in trouble.items():
        setattr(collector, name, value)
    await on_a_socket(daemon, 0)
    began = time.monotonic()
    lines = await stop(daemon)
    assert time.monotonic() - began < 5
    assert len([line for line in lines if line["logger"] == "agentws.telemetry"]) <= 1


async def test_nobody_else_is_asked_or_told(start: Start, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    hook = f"""
        import sys
        def watch(event, arguments):
            if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
                with open({str(seen)!r}, "a") as file:
                    file.write(f"{{event}} {{arguments}}\\n")
        sys.addaudithook(watch)
    """
    async with otlp_over_http() as otlp, application_insights() as insights:
        daemon = await start(
            textwrap.dedent(hook) + textwrap.dedent(AGENT),
            OTEL_EXPORTER_OTLP_ENDPOINT=otlp.url,
            APPLICATIONINSIGHTS_CONNECTION_STRING=insights.url,
        )
        await on_a_socket(daemon, 0)
        await insights.until(50, "invoke_agent")
        await stop(daemon)
    ports = {otlp.url.rpartition(":")[2], insights.url.rpartition(":")[2].rstrip("/")}
    lines = seen.read_text().splitlines()
    assert lines
    strangers = [
        line
        for line in lines
        if "'127.0.0.1'" not in line or not any(port in line for port in (*ports, " 0,"))
    ]
    assert strangers == []


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        (
            "APPLICATIONINSIGHTS_CONNECTION_STRING",
            f"InstrumentationKey={KEY};IngestionEndpoint=nonsense",
            "telemetry.connection_string should look like",
        ),
        (
            "APPLICATIONINSIGHTS_CONNECTION_STRING",
            "InstrumentationKey=hunter2",
            "telemetry is wrongly configured: Invalid instrumentation key",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "localhost:4317",
            "telemetry.otlp_endpoint should be a URL",
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL should be"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "OTEL_BSP_MAX_QUEUE_SIZE should be"),
    ],
)
async def test_a_mistake_is_one_sentence(
    tmp_path: Path, variable: str, value: str, complaint: str
) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:9", variable: value}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentws", "serve", "--port", "0"),
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 2
    assert complaint in told.decode()
    assert len(told.splitlines()) == 1
    assert KEY not in told.decode()
    assert "hunter2" not in told.decode()
