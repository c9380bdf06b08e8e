"""What a Prometheus server reads at `/metrics` (§9)."""

import asyncio
import signal
from collections import Counter
from typing import Any

import aiohttp
import pytest
import websockets
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.util.types import AttributeValue

from agentws import Agent
from agentws.telemetry.metrics import MOST_CODES, OTHER, Metrics
from tests.conftest import PATIENCE, Serve
from tests.support.http_client import Session, refusal
from tests.support.processes import Daemon
from tests.support.receivers import Receiver
from tests.support.scrapes import OPEN_METRICS, Scrape, scrape
from tests.telemetry.conftest import AGENT, PARENT, TRACE, TRACEPARENT, Start, ended, stop

ON = {"AGENTWS_TELEMETRY__PROMETHEUS": "true"}


async def settled(daemon: Daemon, name: str, count: float) -> Scrape:
    """Scrape until a metric has reached a value: what ends a socket is told after it is closed."""
    async with asyncio.timeout(PATIENCE):
        while (told := await scrape(daemon.port)).value(name) < count:
            pass
    return told


async def work(daemon: Daemon) -> None:
    """Have three invocations succeed, two fail, one be cancelled and one refused; close two."""
    async with daemon.connect() as client:
        for number, do in enumerate(("", "touch", "tell", "raise", "refuse", "wait")):
            await client.send(action="invoke", invocation_id=f"i{number}", payload={"do": do})
        await ended(client, 5)
        await client.send(action="invoke", invocation_id="i0")
        await client.send(action="cancel_invocation", invocation_id="i5")
        await ended(client, 2)
    url = f"ws://127.0.0.1:{daemon.port}/invocations_ws/ws"
    other = await websockets.connect(url)
    await other.close(4001)


async def test_the_instruments_are_served(start: Start) -> None:
    daemon = await start(AGENT, **ON, AGENTWS_INVOCATIONS__MAX_RUNNING="77")
    await work(daemon)
    told = await settled(daemon, "websocket_connections_closed_total", 2)
    assert told.by("error_code", "gen_ai_invoke_agent_duration_seconds_count") == {
        "": 3,
        "internal_error": 1,
        "no_message": 1,
        "cancelled": 1,
    }
    assert told.value("agentws_invocation_time_to_first_chunk_seconds_count") == 4
    assert told.by("error_code", "agentws_errors_total") == {
        "internal_error": 1,
        "no_message": 1,
        "already_exists": 1,
    }
    closed = told.by("websocket_close_code", "websocket_connections_closed_total")
    assert closed == {"1000": 1, "4001": 1}
    assert told.by("websocket_close_code", "websocket_connection_duration_seconds_count") == closed
    assert told.value("agentws_invocations_limit") == 77
    assert told.value("websocket_connections_limit") == 20_000
    assert told.by("check", "agentws_ready") == {"draining": 1, "store": 1}
    assert told.value("process_resident_memory_bytes") > 20e6
    async with daemon.connect() as client:
        await client.send(action="invoke", payload={"do": "wait"})
        await client.until(type="stream_chunk")
        now = await scrape(daemon.port)
        assert now.value("agentws_invocations_active") == 1
        assert now.value("websocket_active_connections") == 1
    await settled(daemon, "agentws_event_loop_delay_seconds_count", 1)


FORMS = {
    "*/*": "text/plain; version=0.0.4",
    "text/html, */*;q=0.1": "text/plain; version=0.0.4",
    "text/plain;version=0.0.4": "text/plain; version=0.0.4",
    "application/openmetrics-text;q=0": "text/plain; version=0.0.4",
    "application/openmetrics-text;version=nonsense": "application/openmetrics-text; version=",
    OPEN_METRICS: "application/openmetrics-text; version=1.0.0",
}


async def test_the_form_is_the_one_that_is_accepted(start: Start, session: Session) -> None:
    daemon = await start(AGENT, **ON)
    url = f"http://127.0.0.1:{daemon.port}/metrics"
    for accept, media_type in FORMS.items():
        async with session.get(url, headers={"Accept": accept}) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith(media_type)
            is_whole = (await answer.text()).endswith("# EOF\n")
            assert is_whole == media_type.startswith("application")
        told = await scrape(daemon.port, accept)
        assert {"target_info", "process_open_fds", "agentws_ready"} <= told.names
    async with session.head(url) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize("auth", [{}, {"api_keys": ("k",)}])
async def test_there_is_no_such_route_where_it_is_off(
    serve: Serve, session: Session, auth: dict[str, Any]
) -> None:
    server = await serve(Agent(), auth=auth)
    async with session.get(f"{server.http}/metrics") as answer:
        await refusal(answer, 404, "not_found")


async def test_it_takes_the_key_that_all_takes(start: Start, session: Session) -> None:
    daemon = await start(AGENT, **ON, AGENTWS_AUTH__API_KEYS="secret")
    for path in ("/metrics", "/metrics/"):
        async with session.get(f"http://127.0.0.1:{daemon.port}{path}") as answer:
            await refusal(answer, 401, "unauthorized")
    told = await scrape(daemon.port, authorization="Bearer secret")
    assert told.by("error_code", "agentws_errors_total") == {"unauthorized": 2}
    assert "secret" not in told.text


async def test_handshakes_that_are_refused_count(start: Start) -> None:
    daemon = await start(AGENT, **ON, AGENTWS_WEBSOCKET__MAX_CONNECTIONS="1")
    async with daemon.connect():
        for _ in range(3):
            with pytest.raises(websockets.InvalidStatus):
                async with daemon.connect():
                    pass
        told = await scrape(daemon.port)
    assert told.by("error_code", "agentws_errors_total") == {"too_many_connections": 3}


PRIVATE = ("ThisInvocation", "ThisSession", "ThisUser", "ThisPayload", "ThisRequest", "ThisPeer")


async def test_no_label_tells_who_or_what(start: Start) -> None:
    daemon = await start(AGENT, **ON)
    url = f"http://127.0.0.1:{daemon.port}/invocations"
    headers = {"x-agent-user-id": "ThisUser", "x-request-id": "ThisRequest"}
    async with daemon.connect(additional_headers=headers) as client:
        payload = {"do": "raise", "text": "ThisPayload"}
        fields = {"invocation_id": "ThisInvocation", "session_id": "ThisSession"}
        await client.ask(action="invoke", payload=payload, **fields)
        await client.ask(action="ThisPayload")
    session = aiohttp.ClientSession(headers=headers)
    async with session, session.post(url + "?agent_session_id=ThisSession", json=payload) as answer:
        assert await answer.read()
    told = await settled(daemon, "websocket_connections_closed_total", 1)
    assert not [text for text in PRIVATE if text in told.text]
    labels = Counter(name for it in told.samples for name in it.labels if it.name != "target_info")
    assert {name for name in labels if not name.startswith("otel_scope_")} == {
        *("le", "error_code", "websocket_close_code", "check"),
    }


def attributes_told(reader: InMemoryMetricReader) -> dict[str, list[AttributeValue]]:
    """Return the one attribute of each point, by instrument."""
    data = reader.get_metrics_data()
    assert data is not None
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    points = {metric.name: metric.data.data_points for scope in scopes for metric in scope.metrics}
    return {
        name: [value for point in of_name for value in (point.attributes or {}).values()]
        for name, of_name in points.items()
        if of_name
    }


def test_codes_that_others_make_up_are_few() -> None:
    reader = InMemoryMetricReader()
    metrics = Metrics(MeterProvider([reader]).get_meter("test"))
    for number in range(1000):
        metrics.error(f"of_the_agent_{number}")
        metrics.invocation_ended(1.0, f"of_the_agent_{number}")
        metrics.socket_ended(1.0, 3000 + number, None)
    metrics.error("a text with ThisUser in it")
    metrics.error("internal_error")
    told = attributes_told(reader)
    counts = {name: len(values) for name, values in told.items()}
    assert counts == {
        "agentws.errors": MOST_CODES + 2,
        "gen_ai.invoke_agent.duration": MOST_CODES + 1,
        "websocket.connections.closed": MOST_CODES + 1,
        "websocket.connection.duration": MOST_CODES + 1,
    }
    assert all(OTHER in values for values in told.values())
    assert "internal_error" in told["agentws.errors"]


MEASURING = """
    import asyncio, threading, time
    from opentelemetry import metrics, trace
    from agentws import Agent

    meter = metrics.get_meter("of.the.agent", "7")
    tools = meter.create_counter("tool.calls", "{call}", "Calls of tools")
    held = threading.Event()

    def observe(options):
        yield metrics.Observation(5, {"queue": "jobs"})

    def fail(options):
        raise ValueError("a private text")

    def hold(options):
        held.wait()
        yield metrics.Observation(1)

    meter.create_observable_gauge("jobs", [observe])
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload, context):
        tools.add(1, {"tool": "search"})
        metrics.get_meter("another").create_histogram("took", "ms").record(3)
        if payload == "fail":
            meter.create_observable_gauge("failing", [fail])
        if payload == "hold":
            meter.create_observable_gauge("holding", [hold])
        if payload == "release":
            held.set()
        own = trace.get_current_span().get_span_context()
        return f"{own.trace_id:032x} {own.span_id:016x}"
"""


async def invoke(daemon: Daemon, payload: str, **headers: str) -> str:
    url = f"http://127.0.0.1:{daemon.port}/invocations"
    session = aiohttp.ClientSession(headers=headers)
    async with session, session.post(url, json=payload) as answer:
        return str(await answer.json())


async def test_the_agents_own_meters_are_served(start: Start) -> None:
    daemon = await start(MEASURING, **ON)
    for _ in range(3):
        await invoke(daemon, "")
    for accept in ("*/*", OPEN_METRICS):
        told = await scrape(daemon.port, accept)
        assert told.value("tool_calls_total", tool="search", otel_scope_name="of.the.agent") == 3
        assert told.value("jobs", queue="jobs") == 5
        assert told.value("took_milliseconds_sum") == 9
        assert told.value("gen_ai_invoke_agent_duration_seconds_count") == 3


async def test_callbacks_of_the_agents_may_fail_or_hang(start: Start) -> None:
    daemon = await start(MEASURING, **ON)
    await invoke(daemon, "fail")
    assert (await scrape(daemon.port)).value("tool_calls_total") == 1
    await invoke(daemon, "hold")
    scrapes = [asyncio.create_task(scrape(daemon.port)) for _ in range(3)]
    await invoke(daemon, "")  # others are served meanwhile
    assert not any(it.done() for it in scrapes)
    await invoke(daemon, "release")
    assert {(await it).value("holding") for it in scrapes} == {1}
    lines = await stop(daemon)
    assert "a private text" not in str(lines)


async def test_one_that_hangs_does_not_hold_up_the_end(start: Start) -> None:
    daemon = await start(MEASURING, **ON)
    await invoke(daemon, "hold")
    async with aiohttp.ClientSession() as session:
        pending = asyncio.create_task(session.get(f"http://127.0.0.1:{daemon.port}/metrics"))
        await invoke(daemon, "")
        daemon.send(signal.SIGTERM)
        assert await daemon.exit_code() == 0
        with pytest.raises(aiohttp.ClientError):
            await pending


async def test_without_exporters_spans_are_the_callers(start: Start) -> None:
    daemon = await start(MEASURING, **ON)
    assert await invoke(daemon, "", traceparent=TRACEPARENT) == f"{TRACE} {PARENT}"
    assert await invoke(daemon, "") == f"{0:032x} {0:016x}"
    lines = await stop(daemon)
    assert {line["level"] for line in lines} == {"INFO"}


async def test_the_agents_own_tracing_gets_the_spans(start: Start) -> None:
    source = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider())
        from agentws import Agent
        agent = Agent()

        @agent.invoke_handler
        async def invoke(payload, context):
            return trace.get_current_span().name
    """
    daemon = await start(source, **ON, AGENTWS_AGENT__NAME="alice")
    assert await invoke(daemon, "") == "invoke_agent alice"
    told = await scrape(daemon.port)
    assert told.value("gen_ai_invoke_agent_duration_seconds_count") == 1


async def test_what_is_exported_is_served_as_well(start: Start, collector: Receiver) -> None:
    daemon = await start(AGENT, **ON, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    await work(daemon)
    told = await settled(daemon, "websocket_connections_closed_total", 2)
    await stop(daemon)
    for name, served in (
        ("gen_ai.invoke_agent.duration", "gen_ai_invoke_agent_duration_seconds_count"),
        ("agentws.errors", "agentws_errors_total"),
    ):
        exported = {it.get("error.code", ""): value for value, it in collector.measured(name)}
        assert exported == told.by("error_code", served)
    assert len(collector.named("invoke_agent")) == 7
    assert set(told.by("queue", "agentws_telemetry_lost_total").values()) == {0}


@pytest.mark.parametrize("exporter", ["none", "otlp"])
async def test_it_is_served_whatever_is_exported(
    start: Start, collector: Receiver, exporter: str
) -> None:
    variables = {"OTEL_METRICS_EXPORTER": exporter, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    daemon = await start(AGENT, **ON, **variables)
    assert "agentws_ready" in (await scrape(daemon.port)).names
    await stop(daemon)
    assert bool(collector.points) == (exporter == "otlp")


async def test_scrapes_are_no_news(start: Start) -> None:
    daemon = await start(AGENT, **ON)
    for _ in range(3):
        await scrape(daemon.port)
    url = f"http://127.0.0.1:{daemon.port}/nowhere"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 404
    lines = await stop(daemon)
    paths = [line["path"] for line in lines if line["logger"] == "agentws.access"]
    assert paths == ["/nowhere"]


async def test_an_agent_in_class_style_has_it_too(start: Start) -> None:
    source = """
        from agentws import InvocationWebSocketHandler
        class Own(InvocationWebSocketHandler):
            async def handle_websocket(self, ws, context): ...
        agent = Own()
    """
    daemon = await start(source, **ON)
    assert "agentws_ready" in (await scrape(daemon.port)).names
