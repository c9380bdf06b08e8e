"""Which traces and signals are exported, and that each trace is decided once (§9)."""

from collections import Counter
from typing import Any

import aiohttp
import pytest

from tests.support.processes import Daemon
from tests.support.receivers import Receiver
from tests.telemetry.conftest import AGENT, PARENT, TRACEPARENT, Start, ended, stop


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
