"""What is measured, and what each measurement should come to."""

import asyncio
import statistics
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from msgspec import Raw

from agentws.protocol.encoding import encode
from agentws.protocol.frames import StreamChunk
from bench.agents import CHUNKS, TOKEN
from bench.following import LENGTH, Times
from bench.load import Exchange, open_sockets
from bench.loops import run
from bench.rates import ROUNDS, SOCKETS, Comparison, Rate, Side, compare
from bench.servers import Server, Servers

IDLE_SOCKETS: Final = 5000
_INVOKE: Final = b'{"action":"invoke","payload":{"message":"Hello, agent"}}'
_PING: Final = b'{"action":"ping"}'


@dataclass(frozen=True)
class Measurement:
    """A measured value beside its target."""

    name: str
    value: float
    unit: str
    bound: Literal["at least", "at most"]
    target: float
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """What a ratio was made of."""

    @property
    def passed(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.target if self.bound == "at least" else self.value <= self.target


def round_trips(servers: Servers, seconds: float) -> Measurement:
    """Compare invocations a second with echoes a second of the same message."""
    exchange = Exchange(_INVOKE)
    with servers.daemon("bench.agents:echo") as ours, servers.bare() as bare:
        comparison = compare(Side(ours, exchange), Side(bare, exchange), seconds)
    return _ratio(f"Invoke round trips, {SOCKETS} sockets", comparison, target=0.6)


def chunks(servers: Servers, seconds: float) -> Measurement:
    """Compare streamed chunks a second with echoes a second of a message of that size."""
    stream = Exchange(_INVOKE, answers=CHUNKS + 1, closing=1)
    with servers.daemon("bench.agents:stream") as ours, servers.bare() as bare:
        comparison = compare(Side(ours, stream), Side(bare, Exchange(_chunk_frame())), seconds)
    return _ratio(f"Streamed chunks, {SOCKETS} sockets", comparison, target=1.2)


def replay(servers: Servers, _seconds: float) -> Measurement:
    """Compare the replay of an ended stream with its live rate."""
    times = _following(servers)
    name = f"Replay of {LENGTH:,} chunks"
    return Measurement(name, times.live / times.replayed, "x live", "at least", 0.5)


def second_follower(servers: Servers, _seconds: float) -> Measurement:
    """Measure what is left of the first follower's rate beside a second one."""
    times = _following(servers)
    name = "First of two followers of a stream"
    return Measurement(name, times.live / times.in_company, "x alone", "at least", 0.5)


def redis_round_trips(servers: Servers, seconds: float) -> Measurement:
    """Compare invocations a second whose ids are claimed in Redis with those in memory."""
    exchange = Exchange(_INVOKE)
    with (
        servers.redis() as url,
        servers.daemon("bench.agents:echo", AGENTWS_STORE__URL=url) as shared,
        servers.daemon("bench.agents:echo") as alone,
    ):
        comparison = compare(Side(shared, exchange), Side(alone, exchange), seconds)
    name = f"Invoke round trips on Redis, {SOCKETS} sockets"
    return _ratio(name, comparison, target=0.3, other="memory")


def redis_chunks(servers: Servers, seconds: float) -> Measurement:
    """Compare chunks a second that Redis keeps as well with those in memory."""
    stream = Exchange(_INVOKE, answers=CHUNKS + 1, closing=1)
    with (
        servers.redis() as url,
        servers.daemon("bench.agents:stream", AGENTWS_STORE__URL=url) as shared,
        servers.daemon("bench.agents:stream") as alone,
    ):
        comparison = compare(Side(shared, stream), Side(alone, stream), seconds)
    name = f"Streamed chunks on Redis, {SOCKETS} sockets"
    return _ratio(name, comparison, target=0.5, other="memory")


def tracing(servers: Servers, seconds: float) -> Measurement:
    """Compare invocations a second while every span of them is exported with those without."""
    exchange = Exchange(_INVOKE)
    with (
        Servers(core=None).collector() as collector,  # not on the core of what is measured
        servers.daemon("bench.agents:echo", **_exporting_to(collector)) as traced,
        servers.daemon("bench.agents:echo") as untraced,
    ):
        comparison = compare(Side(traced, exchange), Side(untraced, exchange), seconds)
    return _ratio("Round trips with tracing", comparison, 0.4, other="untraced")


def metrics(servers: Servers, seconds: float) -> Measurement:
    """Compare invocations a second that are measured for Prometheus with those that are not."""
    exchange = Exchange(_INVOKE)
    served = {"AGENTWS_TELEMETRY__PROMETHEUS": "true"}
    with (
        servers.daemon("bench.agents:echo", **served) as measured,
        servers.daemon("bench.agents:echo") as unmeasured,
    ):
        comparison = compare(Side(measured, exchange), Side(unmeasured, exchange), seconds)
    return _ratio("Round trips with metrics", comparison, 0.7, other="unmeasured")


def _exporting_to(collector: Server) -> Mapping[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}


def types(servers: Servers, seconds: float) -> Measurement:
    """Compare invocations a second whose payloads have a declared type with those without."""
    exchange = Exchange(_INVOKE)
    with (
        servers.daemon("bench.agents:echo_typed") as typed,
        servers.daemon("bench.agents:echo") as untyped,
    ):
        comparison = compare(Side(typed, exchange), Side(untyped, exchange), seconds)
    return _ratio("Round trips with types", comparison, 0.91, other="untyped")


def memory(servers: Servers, _seconds: float) -> Measurement:
    """Measure what an idle socket costs that has exchanged one message."""
    with servers.daemon("bench.agents:echo") as ours:
        growth = run(_growth(ours))
    per_socket = growth / IDLE_SOCKETS / 1024
    return Measurement(f"Memory, {IDLE_SOCKETS:,} idle sockets", per_socket, "KiB", "at most", 18)


def start_up(servers: Servers, _seconds: float) -> Measurement:
    """Measure the time from the start of the process to its first readiness."""
    times = []
    for _ in range(ROUNDS):
        with servers.daemon("bench.agents:echo") as ours:
            times.append(ours.ready_after)
    return Measurement("Start-up", statistics.median(times), "s", "at most", 1)


MEASUREMENTS: Final[Mapping[str, Callable[[Servers, float], Measurement]]] = MappingProxyType(
    {
        "round-trips": round_trips,
        "chunks": chunks,
        "replay": replay,
        "second-follower": second_follower,
        "redis-round-trips": redis_round_trips,
        "redis-chunks": redis_chunks,
        "tracing": tracing,
        "metrics": metrics,
        "types": types,
        "memory": memory,
        "start-up": start_up,
    }
)
"""Every measurement by its short name; it takes the servers and the seconds of one round."""


def _following(servers: Servers) -> Times:
    hold_all = {"AGENTWS_INVOCATIONS__REPLAY_BYTES": str(100 * LENGTH)}
    with servers.daemon("bench.agents:stream_at_length", **hold_all) as ours:
        return Times.median(ours)


def _chunk_frame() -> bytes:
    invocation_id, session_id = str(uuid.uuid4()), str(uuid.uuid4())
    return encode(StreamChunk(invocation_id, session_id, CHUNKS, Raw(encode({"token": TOKEN}))))


async def _growth(server: Server) -> int:
    """Return by how many bytes the server grows with idle sockets, after a first one."""
    exchange = Exchange(_PING)
    async with open_sockets(server.port, exchange, 1) as (first,):
        await first.start(rounds=1)
        before = server.resident_bytes
        async with open_sockets(server.port, exchange, IDLE_SOCKETS) as sockets:
            await asyncio.gather(*(socket.start(rounds=1) for socket in sockets))
            return server.resident_bytes - before


def _ratio(name: str, comparison: Comparison, target: float, other: str = "bare") -> Measurement:
    rates = {"ours": Rate.median(comparison.ours), other: Rate.median(comparison.other)}
    return Measurement(name, comparison.ratio, f"x {other}", "at least", target, rates)
