"""An invoke, a POST, a chunk and a span cost no more than they did, in Python's instructions.

They are the same each time and on any machine. Who has made an operation cheaper, or has a good
reason to make it dearer, writes the new number down; `pytest -rP` shows it.
"""

import importlib.metadata
import json
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from websockets.sync.client import connect

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent
from agentws.config.settings import AgentSettings
from agentws.telemetry.lean_export import LeanEncoder
from agentws.telemetry.lean_tracing import LeanTracer, SpanRecord, WatchedProvider
from agentws.telemetry.meters import SCOPE, meters_for
from agentws.telemetry.operations import ObservingTelemetry
from agentws.telemetry.sampling import EVERYTHING, Decisions
from agentws.telemetry.trace_context import NO_TRACE
from tests.bench.counting import Counted, counted, instructions_here
from tests.support.processes import ROOT

OPERATIONS = 50
ROOM = 1.1

COSTS = {
    (3, 11): {"invoke": 1957, "post": 3644, "chunk": 250, "span": 734, "encoded span": 233},
    (3, 12): {"invoke": 1802, "post": 3357, "chunk": 261, "span": 669, "encoded span": 220},
    (3, 13): {"invoke": 1777, "post": 3339, "chunk": 243, "span": 655, "encoded span": 180},
}
"""By version of Python, whose machines differ."""


async def echo(payload: Any, _context: object) -> Any:
    return payload


async def stream(payload: Any, _context: object) -> AsyncGenerator[Any, None]:
    for _ in range(payload):
        yield {"token": "word"}


def served(handler: Any) -> Iterator[Counted]:
    agent = Agent()
    agent.invoke_handler(handler)
    with counted(agent) as server:
        yield server


@pytest.fixture
def echoing() -> Iterator[Counted]:
    yield from served(echo)


@pytest.fixture
def streaming() -> Iterator[Counted]:
    yield from served(stream)


def locked_versions() -> bool:
    """Tell whether the packages that an operation goes through are those that were counted."""
    locked = (ROOT / "constraints.txt").read_text().splitlines()
    names = ("aiohttp", "msgspec", "multidict", "yarl", "uvloop", "opentelemetry-sdk")
    return all(f"{name}=={importlib.metadata.version(name)}" in locked for name in names)


def check(name: str, cost: float) -> None:
    print(f"{name}: {cost:.0f} instructions")  # noqa: T201 - it is what is to be written down
    version = sys.version_info[:2]
    if version not in COSTS or not locked_versions():
        pytest.skip(f"nothing was counted with Python {version} or these packages")
    assert cost <= ROOM * COSTS[version][name]


def repeated(operation: Callable[[], None]) -> Callable[[], None]:
    """Return what does it many times, after it was done a few times."""
    for _ in range(5):
        operation()

    def repeat() -> None:
        for _ in range(OPERATIONS):
            operation()

    return repeat


def test_an_invoke_costs_no_more_than_it_did(echoing: Counted) -> None:
    with connect(f"ws://127.0.0.1:{echoing.port}/invocations_ws/ws", compression=None) as ws:

        def invoke() -> None:
            ws.send('{"action":"invoke","payload":{"message":"Hello, agent"}}')
            assert json.loads(ws.recv(20))["type"] == "result"

        check("invoke", echoing.instructions(repeated(invoke)) / OPERATIONS)


def test_a_chunk_costs_no_more_than_it_did(streaming: Counted) -> None:
    with connect(f"ws://127.0.0.1:{streaming.port}/invocations_ws/ws", compression=None) as ws:

        def read_stream(length: int) -> None:
            ws.send(f'{{"action":"invoke","payload":{length}}}')
            types = [json.loads(ws.recv(20))["type"] for _ in range(length + 1)]
            assert types == ["stream_chunk"] * length + ["stream_end"]

        def short() -> None:
            read_stream(1)

        def long() -> None:
            read_stream(101)

        more = streaming.instructions(repeated(long)) - streaming.instructions(repeated(short))
        check("chunk", more / OPERATIONS / 100)


def test_a_span_costs_no_more_than_it_did() -> None:
    resource, ended = Resource.get_empty(), list[SpanRecord]()
    decisions = Decisions(EVERYTHING)
    provider = WatchedProvider(decisions, resource, shutdown_on_exit=False, id_generator=decisions)
    tracer = LeanTracer(provider, decisions, provider.get_tracer("t"), ended.append)
    meter = meters_for([InMemoryMetricReader()], resource).get_meter("m")
    telemetry = ObservingTelemetry(tracer, meter, AgentSettings())

    def invoke() -> None:
        with telemetry.begin("invoke_agent", InvocationContext("i", "s"), NO_TRACE):
            pass

    check("span", instructions_here(repeated(invoke)) / OPERATIONS)
    encoder = LeanEncoder(resource, SCOPE)
    check("encoded span", instructions_here(lambda: encoder.encode(ended)) / len(ended))


def test_a_post_costs_no_more_than_it_did(echoing: Counted) -> None:
    with closing(HTTPConnection("127.0.0.1", echoing.port, timeout=20)) as connection:

        def post() -> None:
            connection.request("POST", "/invocations", '{"message": "Hello, agent"}')
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b'{"message":"Hello, agent"}')

        check("post", echoing.instructions(repeated(post)) / OPERATIONS)
