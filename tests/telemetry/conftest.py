"""Daemons that export to a collector, and an agent with spans and log lines of its own."""

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Client
from tests.support.processes import ROOT, Daemon
from tests.support.receivers import Receiver, Span, otlp_over_http

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
"""An agent that does what its payload tells it to, and then yields three numbers within a span."""

Start = Callable[..., Awaitable[Daemon]]


@pytest.fixture
async def collector() -> AsyncIterator[Receiver]:
    """What takes OTLP over HTTP."""
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
    """Return the one span of an invocation."""
    (span,) = [it for it in spans if it.attributes["gen_ai.response.id"] == invocation_id]
    return span


async def on_a_socket(daemon: Daemon, socket: int) -> None:
    """Invoke fifty times on a socket, and see all of it end."""
    async with daemon.connect() as client:
        for number in range(50):
            await client.send(action="invoke", invocation_id=f"ws-{socket}-{number}")
        await ended(client, 50)
