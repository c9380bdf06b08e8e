"""What is told of the daemon's work, seen from where it is told to (§9)."""

import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry import baggage, trace

from agentws import Agent, InvocationContext
from tests.conftest import Client, LogLines, Serve
from tests.support.processes import ROOT, Daemon
from tests.support.receivers import (
    KEY,
    Receiver,
    Span,
    application_insights,
    otlp_over_grpc,
    otlp_over_http,
)

PREFIX = "azure.ai.agentserver.invocations_ws."
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c"
OTHER_PARENT = "b7ad6b7169203331"
OTHER_TRACEPARENT = f"00-{OTHER_TRACE}-{OTHER_PARENT}-01"

AGENT = """
    import asyncio, logging

    from opentelemetry import baggage, trace

    from agentws import Agent, InvocationError

    agent = Agent()
    tracer = trace.get_tracer("of.the.agent")


    @agent.invoke_handler
    async def invoke(payload, context):
        match payload.get("do"):
            case "raise":
                raise ValueError("a private text")
            case "refuse":
                raise InvocationError("no_message", "There is no message", 422)
            case "wait":
                yield "waiting"
                await asyncio.Event().wait()
            case "swallow":
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass
                await asyncio.Event().wait()
            case "touch":
                trace.get_current_span().set_attribute("of.the.agent", 5)
            case "tell":
                yield dict(baggage.get_all())
        with tracer.start_as_current_span(f"child of {context.invocation_id}"):
            logging.getLogger("of.the.agent").info("Working")
            for number in range(3):
                await asyncio.sleep(0)
                yield number


    @agent.get_invocation_handler
    async def get(context):
        return f"{trace.get_current_span().get_span_context().span_id:016x}"


    @agent.cancel_invocation_handler
    async def cancel(context):
        if context.invocation_id == "unwilling":
            raise KeyError("no")
"""

Start = Callable[..., Awaitable[Daemon]]
Place = Callable[[], AbstractAsyncContextManager[Receiver]]


@pytest.fixture
async def collector() -> AsyncIterator[Receiver]:
    async with otlp_over_http() as receiver:
        yield receiver


@pytest.fixture
async def start(tmp_path: Path, collector: Receiver) -> AsyncIterator[Start]:
    """Make daemons that run the source of an agent, with variables of the environment.

    They end before the collector does, which would else be left with connections of theirs.
    """
    daemons: list[Daemon] = []

    async def start(source: str, **variables: str) -> Daemon:
        (tmp_path / "agent.py").write_text(textwrap.dedent(source))
        usual = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BLRP_SCHEDULE_DELAY": "50"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentws", "serve", "--host", "127.0.0.1"),
            *("--port", "0", "--handler", "agent:agent"),
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **usual, **variables},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=16 * 1024**2,
        )
        daemon = Daemon(process)
        daemons.append(daemon)
        return await daemon.listening()

    yield start
    for daemon in daemons:
        if daemon.process.returncode is None:
            daemon.process.kill()
            await daemon.process.communicate()


async def stop(daemon: Daemon) -> list[dict[str, Any]]:
    """End a daemon as it should end, and return the rest of its log."""
    daemon.send(signal.SIGTERM)
    lines = await daemon.rest()
    assert await daemon.process.wait() == 0
    assert not any("detach" in line["message"] for line in lines)
    return lines


async def ended(client: Client, count: int = 1) -> list[dict[str, Any]]:
    """Return frames up to the last of so many ends."""
    frames = []
    while count:
        frames.append(await client.receive())
        count -= frames[-1]["type"] in ("stream_end", "error", "result")
    return frames


def of_invocation(spans: list[Span], invocation_id: str) -> Span:
    (span,) = [it for it in spans if it.attributes["gen_ai.response.id"] == invocation_id]
    return span


# --- both receivers ---


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


async def on_a_socket(daemon: Daemon, socket: int) -> None:
    async with daemon.connect() as client:
        for number in range(50):
            await client.send(action="invoke", invocation_id=f"ws-{socket}-{number}")
        await ended(client, 50)


async def over_http(daemon: Daemon) -> None:
    async with aiohttp.ClientSession() as session:

        async def invoke(number: int) -> None:
            url = f"http://127.0.0.1:{daemon.port}/invocations"
            headers = {"x-agent-invocation-id": f"http-{number}"}
            async with session.post(url, json={}, headers=headers) as response:
                assert b"stream_end" in await response.read()

        await asyncio.gather(*map(invoke, range(150)))


# --- spans ---


async def test_what_a_span_says(start: Start, collector: Receiver) -> None:
    daemon = await start(
        AGENT,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        AGENTWS_AGENT__NAME="alice",
        AGENTWS_AGENT__ID="asst_1",
    )
    async with daemon.connect() as client:
        await client.send(action="invoke", invocation_id="i", session_id="s")
        await ended(client)
        await client.send(action="invoke", invocation_id="t", payload={"do": "touch"})
        await ended(client)
    spans = await collector.until(2, "invoke_agent")
    span, touched = of_invocation(spans, "i"), of_invocation(spans, "t")
    assert (span.name, span.kind, span.parent_id) == ("invoke_agent alice", 2, "")
    assert not span.failed
    assert span.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "AzureAI Hosted Agents",
        "gen_ai.system": "azure.ai.agentserver",
        "service.name": "alice",
        "gen_ai.agent.name": "alice",
        "gen_ai.agent.id": "asst_1",
        "gen_ai.response.id": "i",
        "gen_ai.conversation.id": "s",
        "microsoft.session.id": "s",
        f"{PREFIX}invocation_id": "i",
        f"{PREFIX}session_id": "s",
    }
    assert touched.attributes["of.the.agent"] == 5
    (child,) = [it for it in collector.named("child") if it.name.endswith(" t")]
    assert child.parent_id == touched.span_id


async def test_spans_over_http_have_names_of_their_own(start: Start, collector: Receiver) -> None:
    daemon = await start(AGENT, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    url = f"http://127.0.0.1:{daemon.port}/invocations"
    headers = {"x-agent-invocation-id": "i", "traceparent": TRACEPARENT}
    async with aiohttp.ClientSession(headers=headers) as session:
        await (await session.post(url, json={"do": "raise"})).read()
        answer = await (await session.get(f"{url}/i?agent_session_id=s")).json()
        await (await session.post(f"{url}/i/cancel")).read()
    (invoke,) = await collector.until(1, "invoke_agent")
    (get,) = await collector.until(1, "get_invocation")
    (cancel,) = await collector.until(1, "cancel_invocation")
    assert get.span_id == answer
    for span in (invoke, get, cancel):
        assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
        assert span.attributes["azure.ai.agentserver.invocations.invocation_id"] == "i"
    assert get.attributes["azure.ai.agentserver.invocations.session_id"] == "s"
    assert invoke.attributes["azure.ai.agentserver.invocations.error.code"] == "internal_error"


async def test_a_message_may_bring_its_own_trace(start: Start, collector: Receiver) -> None:
    daemon = await start(AGENT, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    url = f"http://127.0.0.1:{daemon.port}/invocations_ws/ws"
    headers = {"traceparent": TRACEPARENT, "baggage": "of=handshake", "x-request-id": "r"}
    told = {}
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as ws:
        messages: dict[str, dict[str, Any]] = {
            "none": {},
            "own": {"traceparent": OTHER_TRACEPARENT},
            "baggage": {"baggage": "of=message"},
            "malformed": {"traceparent": "00-nonsense", "baggage": None},
        }
        for name, fields in messages.items():
            message = {"action": "invoke", "invocation_id": name, "payload": {"do": "tell"}}
            await ws.send_json({**message, **fields})
            told[name] = (await ws.receive_json())["payload"]
            while (await ws.receive_json())["type"] != "stream_end":
                pass
    spans = await collector.until(4, "invoke_agent")
    places = {name: of_invocation(spans, name) for name in told}
    assert (places["none"].trace_id, places["none"].parent_id) == (TRACE, PARENT)
    assert (places["own"].trace_id, places["own"].parent_id) == (OTHER_TRACE, OTHER_PARENT)
    assert (places["baggage"].trace_id != TRACE, places["baggage"].parent_id) == (True, "")
    assert (places["malformed"].trace_id, places["malformed"].parent_id) == (TRACE, PARENT)
    assert {name: entries.get("of") for name, entries in told.items()} == {
        "none": "handshake",
        "own": None,
        "baggage": "message",
        "malformed": "handshake",
    }
    assert told["own"]["azure.ai.agentserver.invocation_id"] == "own"
    assert (
        told["own"]["azure.ai.agentserver.session_id"]
        == places["own"].attributes["gen_ai.conversation.id"]
    )
    assert told["own"]["x-request-id"] == TRACE


async def test_every_end_is_told_once(start: Start, collector: Receiver) -> None:
    daemon = await start(
        AGENT,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        AGENTWS_INVOCATIONS__DISCONNECT_GRACE="0.05",
        AGENTWS_SERVER__SHUTDOWN_GRACE="0",
        AGENTWS_INVOCATIONS__CANCEL_GRACE="0.1",
    )
    async with daemon.connect() as client:
        for do in ("raise", "refuse", "wait"):
            await client.send(action="invoke", invocation_id=do, payload={"do": do})
        await client.until(type="stream_chunk")
        await client.send(action="invoke", invocation_id="wait")  # refused
        await client.send(action="cancel_invocation", invocation_id="unwilling")
        await client.until(action="cancel_invocation")
        await client.send(action="cancel_invocation", invocation_id="wait")
        await client.until(type="result", invocation_id="wait")
        await client.send(action="nonsense")
        await client.until(type="error")
        await client.send(action="invoke", invocation_id="deserted", payload={"do": "wait"})
        await client.until(type="stream_chunk")
    await collector.until(5, "invoke_agent")
    async with daemon.connect() as client:
        await client.ask(
            action="invoke", invocation_id="s", payload={"do": "swallow"}, background=True
        )
        await client.ask(
            action="invoke", invocation_id="w", payload={"do": "wait"}, background=True
        )
        await stop(daemon)

    outcomes = sorted(
        (span.attributes["gen_ai.response.id"], span.failed, span.attributes["error.type"])
        for span in collector.named("invoke_agent")
    )
    assert outcomes == [
        ("deserted", False, "cancelled"),
        ("raise", True, "ValueError"),
        ("refuse", True, "no_message"),
        ("s", True, "shutting_down"),
        ("w", True, "shutting_down"),
        ("wait", False, "cancelled"),
        ("wait", True, "already_exists"),
    ]
    failed = of_invocation(collector.named("invoke_agent"), "raise")
    assert failed.attributes[f"{PREFIX}error.code"] == "internal_error"
    assert failed.attributes[f"{PREFIX}error.message"] == "Internal server error"
    (event,) = failed.events
    assert (event["name"], event["exception.type"]) == ("exception", "ValueError")
    assert event["exception.message"] == "a private text"
    unwilling = of_invocation(collector.named("cancel_invocation"), "unwilling")
    assert (unwilling.failed, unwilling.attributes["error.type"]) == (True, "KeyError")
    errors = {it["error.code"]: count for count, it in collector.measured("agentws.errors")}
    assert errors == {
        "internal_error": 2,
        "no_message": 1,
        "already_exists": 1,
        "invalid_action": 1,
        "shutting_down": 2,
    }
    # The one that swallows its cancellation was given up and goes on.
    assert collector.measured("agentws.invocations.active") == [(1, {})]


async def test_a_time_out_is_a_failure(start: Start, collector: Receiver) -> None:
    daemon = await start(
        AGENT, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, AGENTWS_INVOCATIONS__TIMEOUT="0.05"
    )
    async with daemon.connect() as client:
        await client.send(action="invoke", invocation_id="i", payload={"do": "wait"})
        await ended(client)
    (span,) = await collector.until(1, "invoke_agent")
    assert (span.failed, span.attributes["error.type"]) == (True, "timeout")
    assert span.attributes[f"{PREFIX}error.code"] == "timeout"


async def test_a_raw_socket_has_its_callers_trace_and_no_span(
    start: Start, collector: Receiver
) -> None:
    source = """
        import logging
        from opentelemetry import baggage, trace
        from agentws import Agent
        agent = Agent()
        @agent.ws_handler
        async def serve(ws, context):
            with trace.get_tracer("a").start_as_current_span("child"):
                await ws.send_json(dict(baggage.get_all()))
            await ws.close(code=4001)
    """
    daemon = await start(source, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    url = f"http://127.0.0.1:{daemon.port}/invocations_ws?agent_session_id=s"
    headers = {"traceparent": TRACEPARENT}
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as ws:
        entries = await ws.receive_json()
        await ws.receive()
    await stop(daemon)
    assert entries["azure.ai.agentserver.session_id"] == "s"
    (child,) = collector.spans
    assert (child.trace_id, child.parent_id) == (TRACE, PARENT)
    for name in ("websocket.connections.closed", "websocket.connection.duration"):
        assert collector.measured(name) == [(1, {"websocket.close_code": 4001})]
    assert collector.measured("websocket.active_connections") == [(0, {})]


async def test_an_agent_in_class_style_has_spans_too(start: Start, collector: Receiver) -> None:
    source = """
        from aiohttp import web
        from agentws import InvocationWebSocketHandler
        class Own(InvocationWebSocketHandler):
            async def handle_websocket(self, ws, context): ...
            async def handle(self, request, context):
                if "fail" in request.query:
                    raise ValueError("private")
                raise web.HTTPConflict()
        agent = Own()
    """
    daemon = await start(source, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    url = f"http://127.0.0.1:{daemon.port}/invocations"
    async with aiohttp.ClientSession(headers={"x-agent-invocation-id": "i"}) as session:
        assert (await session.post(url)).status == 409
        assert (await session.post(url + "?fail=1")).status == 500
        assert (await session.get(url + "/i")).status == 404
    invokes = await collector.until(2, "invoke_agent")
    assert [(it.failed, it.attributes.get("error.type")) for it in invokes] == [
        (False, None),
        (True, "ValueError"),
    ]
    (get,) = await collector.until(1, "get_invocation")
    assert get.attributes["error.type"] == "not_found"


@pytest.mark.parametrize(
    ("variables", "headers", "count"),
    [
        ({"AGENTWS_TELEMETRY__SAMPLING_RATIO": "0"}, {}, 0),
        ({"AGENTWS_TELEMETRY__SAMPLING_RATIO": "0"}, {"traceparent": TRACEPARENT}, 1),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, {}, 0),
        (
            {"AGENTWS_TELEMETRY__SAMPLING_RATIO": "0", "OTEL_TRACES_SAMPLER": "always_on"},
            {},
            1,
        ),
    ],
)
async def test_which_traces_are_kept(
    start: Start,
    collector: Receiver,
    variables: dict[str, str],
    headers: dict[str, str],
    count: int,
) -> None:
    daemon = await start(AGENT, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **variables)
    async with aiohttp.ClientSession(headers=headers) as session:
        await (await session.post(f"http://127.0.0.1:{daemon.port}/invocations")).read()
    await stop(daemon)
    assert len(collector.named("invoke_agent")) == len(collector.named("child")) == count


DECIDED = """
    from opentelemetry import trace

    async def agent(payload, context):
        own = trace.get_current_span().get_span_context()
        with trace.get_tracer("of.the.agent").start_as_current_span("child") as child:
            inner = child.get_span_context()
        assert (inner.trace_id, inner.trace_flags) == (own.trace_id, own.trace_flags)
        if payload.get("touch"):
            trace.get_current_span().set_attribute("touched", True)
        return f"{own.trace_id:032x}", own.trace_flags.sampled
"""


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5])
async def test_each_trace_is_decided_once(start: Start, collector: Receiver, ratio: float) -> None:
    daemon = await start(
        DECIDED,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        AGENTWS_TELEMETRY__SAMPLING_RATIO=str(ratio),
    )
    told = await decided_on_a_socket(daemon, 2000) + await decided_over_http(daemon, 500)
    with_parent = await decided_over_http(daemon, 50, parent_flags="01")
    assert {sampled for _, sampled in with_parent} == {True}
    without = await decided_over_http(daemon, 50, parent_flags="00")
    assert {sampled for _, sampled in without} == {False}
    await stop(daemon)

    # Nothing is kept that the handler did not see sampled, and all that it saw so, whole.
    kept = Counter(trace_id for trace_id, sampled in (*told, *with_parent) if sampled)
    assert Counter(span.trace_id for span in collector.named("invoke_agent")) == kept
    assert Counter(span.trace_id for span in collector.named("child")) == kept
    # Six standard deviations of a fair draw.
    assert abs(len(kept) - len(with_parent) - ratio * len(told)) < 6 * (len(told) / 4) ** 0.5


async def decided_on_a_socket(daemon: Daemon, count: int) -> list[Any]:
    """Invoke on a socket, in turns with a span that is touched; return what the handlers saw."""
    told = []
    async with daemon.connect() as client:
        for first in range(0, count, 50):
            for number in range(first, first + 50):
                await client.send(action="invoke", payload={"touch": number % 2 == 0})
            told += [frame["payload"] for frame in await ended(client, 50)]
    return told


async def decided_over_http(daemon: Daemon, count: int, parent_flags: str = "") -> list[Any]:
    """Invoke over HTTP, with callers' traces where flags for them are given."""
    url = f"http://127.0.0.1:{daemon.port}/invocations"
    told = []
    async with aiohttp.ClientSession() as session:
        for number in range(1, count + 1):
            parent = f"00-{number:032x}-{PARENT}-{parent_flags}"
            headers = {"traceparent": parent} if parent_flags else {}
            json = {"touch": number % 2 == 0}
            async with session.post(url, json=json, headers=headers) as response:
                told.append(await response.json())
    return told


@pytest.mark.parametrize("left_out", ["TRACES", "METRICS", "LOGS"])
async def test_a_signal_whose_exporter_is_none_is_not_exported(
    start: Start, collector: Receiver, left_out: str
) -> None:
    variables = {f"OTEL_{left_out}_EXPORTER": "none"}
    daemon = await start(AGENT, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **variables)
    async with aiohttp.ClientSession() as session:
        await (await session.post(f"http://127.0.0.1:{daemon.port}/invocations")).read()
    await stop(daemon)
    arrived = {"TRACES": collector.spans, "METRICS": collector.points, "LOGS": collector.lines}
    assert {signal for signal, what in arrived.items() if not what} == {left_out}


# --- backends in trouble ---


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


# --- without any ---


async def test_without_exporters_handlers_find_their_callers_trace(
    serve: Serve, log_lines: LogLines
) -> None:
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        span = trace.get_current_span().get_span_context()
        return [f"{span.trace_id:032x}", f"{span.span_id:016x}", dict(baggage.get_all())]

    server = await serve(agent)
    async with server.connect(headers={"traceparent": TRACEPARENT}) as client:
        frame = await client.ask(action="invoke", invocation_id="i", session_id="s")
        other = await client.ask(action="invoke", traceparent=OTHER_TRACEPARENT, baggage="a=b")
    assert frame["payload"] == [
        TRACE,
        PARENT,
        {
            "azure.ai.agentserver.invocation_id": "i",
            "azure.ai.agentserver.session_id": "s",
            "x-request-id": TRACE,
        },
    ]
    assert other["payload"][:2] == [OTHER_TRACE, OTHER_PARENT]
    assert other["payload"][2]["a"] == "b"
