"""Spans: what they say, whose children they are, and how an end is told in them (§9)."""

from collections import Counter
from typing import Any

import aiohttp
from opentelemetry import baggage, trace

from agentws import Agent, InvocationContext
from tests.conftest import LogLines, Serve
from tests.support.receivers import Receiver
from tests.telemetry.conftest import (
    AGENT,
    OTHER_PARENT,
    OTHER_TRACE,
    OTHER_TRACEPARENT,
    PARENT,
    PREFIX,
    TRACE,
    TRACEPARENT,
    Start,
    ended,
    of_invocation,
    stop,
)


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
    assert Counter((it.failed, it.attributes.get("error.type")) for it in invokes) == {
        (False, None): 1,
        (True, "ValueError"): 1,
    }
    (get,) = await collector.until(1, "get_invocation")
    assert get.attributes["error.type"] == "not_found"


# --- without exporters ------------------------------------------------------------------------


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
