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
from bench import javascript
from bench.agents import CHUNKS, TOKEN
from bench.client import (
    IN_FLIGHT,
    RESUMED,
    chunks_per_second,
    invokes_per_second,
    seconds_to_import,
    seconds_to_resume,
)
from bench.following import LENGTH, Times
from bench.load import Exchange, open_sockets
from bench.loops import run
from bench.rates import ROUNDS, SOCKETS, Comparison, Rate, Side, compare
from bench.servers import Server, Servers
from bench.waiting import RETAINED, Waits, retain, waits

IDLE_SOCKETS: Final = 5000
RUNNING: Final = 5000
_INVOKE: Final = b'{"action":"invoke","payload":{"message":"Hello, agent"}}'
_IN_BACKGROUND: Final = b'{"action":"invoke","background":true}'
_LIST: Final = b'{"action":"list_invocations"}'
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
    noise: float | None = None
    """What a bare server came to meanwhile, where that tells what the machine itself takes."""

    @property
    def doubt(self) -> str | None:
        """Why the machine, and not the server, may have missed the target."""
        if self.noise is None or self.noise < self.target / 2:
            return None
        return f"a bare echo took {self.noise:.2f} {self.unit} meanwhile"

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


def answer_to_input(servers: Servers, _seconds: float) -> Measurement:
    """Measure the time from an input until what its handler says to it is there."""
    invoke = b'{"action":"invoke","invocation_id":"talk"}'
    send = b'{"action":"send_input","invocation_id":"talk","payload":"word"}'
    with servers.daemon("bench.agents:talk") as ours, servers.bare() as bare:
        # Each is answered twice: that it was accepted, and by the handler.
        taken = waits(ours, Exchange(send, answers=2), after=Exchange(invoke), bare=bare)
    return _waited("Input to answer", taken, target=2)


def page(servers: Servers, _seconds: float) -> Measurement:
    """Measure the time that a page of one's invocations takes, out of very many."""
    return _waited(f"Page of 20 of {RETAINED:,}", _listed(servers, _LIST), target=5)


def page_of_session(servers: Servers, _seconds: float) -> Measurement:
    """Measure the time that a page of those of one session takes."""
    taken = _listed(servers, b'{"action":"list_invocations","session_id":"7"}')
    return _waited(f"Page of 20 of a session, {RETAINED:,} in all", taken, target=5)


def inbox(servers: Servers, _seconds: float) -> Measurement:
    """Measure what an invocation costs more whose handler waits for an input, and gets none."""
    listening = _memory_of_running(servers, "bench.agents:wait_for_input")
    deaf = _memory_of_running(servers, "bench.agents:wait")
    name = "Memory, a handler that waits for inputs"
    return Measurement(name, (listening - deaf) / 1024, "KiB more", "at most", 2)


def start_up(servers: Servers, _seconds: float) -> Measurement:
    """Measure the time from the start of the process to its first readiness."""
    times = []
    for _ in range(ROUNDS):
        with servers.daemon("bench.agents:echo") as ours:
            times.append(ours.ready_after)
    return Measurement("Start-up", statistics.median(times), "s", "at most", 1)


def client_chunks(servers: Servers, _seconds: float) -> Measurement:
    """Measure how fast the client reads one stream."""
    with servers.daemon("bench.agents:stream_at_length") as ours:
        rate = chunks_per_second(ours)
    return Measurement("Client: chunks of one stream", rate, "/s", "at least", 60_000)


def client_invokes(servers: Servers, _seconds: float) -> Measurement:
    """Measure how many invocations the client awaits."""
    with servers.daemon("bench.agents:echo") as ours:
        rate = invokes_per_second(ours)
    name = f"Client: invokes, {IN_FLIGHT} in flight"
    return Measurement(name, rate, "/s", "at least", 6_000)


def client_resume(servers: Servers, _seconds: float) -> Measurement:
    """Measure how soon all runs of a client go on after the loss of their socket."""
    with servers.daemon("bench.agents:pause") as ours:
        milliseconds = 1000 * seconds_to_resume(ours)
    return Measurement(f"Client: resume of {RESUMED} runs", milliseconds, "ms", "at most", 50)


def client_import(_servers: Servers, _seconds: float) -> Measurement:
    """Measure what importing the client takes."""
    return Measurement("Client: import", 1000 * seconds_to_import(), "ms", "at most", 100)


def javascript_chunks(servers: Servers, _seconds: float) -> Measurement:
    """Measure how fast the client in JavaScript reads one stream."""
    with servers.daemon("bench.agents:stream_at_length") as ours:
        rate = javascript.chunks_per_second(ours)
    return Measurement("JavaScript: chunks of one stream", rate, "/s", "at least", 60_000)


def javascript_invokes(servers: Servers, _seconds: float) -> Measurement:
    """Measure how many invocations the client in JavaScript awaits."""
    with servers.daemon("bench.agents:echo") as ours:
        rate = javascript.invokes_per_second(ours)
    name = f"JavaScript: invokes, {javascript.IN_FLIGHT} in flight"
    return Measurement(name, rate, "/s", "at least", 6_000)


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
        "input": answer_to_input,
        "page": page,
        "page-of-session": page_of_session,
        "memory": memory,
        "inbox": inbox,
        "start-up": start_up,
        "client-chunks": client_chunks,
        "client-invokes": client_invokes,
        "client-resume": client_resume,
        "client-import": client_import,
        "javascript-chunks": javascript_chunks,
        "javascript-invokes": javascript_invokes,
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


def _waited(name: str, taken: tuple[Waits, Waits], target: float) -> Measurement:
    ours, echo = taken
    name = f"{name}, p99 (p50 is {ours.p50:.2f})"
    return Measurement(name, ours.p99, "ms", "at most", target, noise=echo.p99)


def _listed(servers: Servers, request: bytes) -> tuple[Waits, Waits]:
    with servers.daemon("bench.agents:echo") as ours, servers.bare() as bare:
        retain(ours)
        return waits(ours, Exchange(request), after=Exchange(_PING), bare=bare)


def _memory_of_running(servers: Servers, handler: str) -> float:
    """Return how many bytes each of many invocations takes that do nothing but wait."""
    unbounded = {"AGENTWS_WEBSOCKET__MAX_INVOCATIONS_PER_CONNECTION": str(2 * RUNNING)}
    with servers.daemon(handler, **unbounded) as ours:
        return run(_growth_by_running(ours)) / RUNNING


async def _growth_by_running(server: Server) -> int:
    async with open_sockets(server.port, Exchange(_IN_BACKGROUND), 1) as (socket,):
        await socket.start(rounds=RUNNING // 10)
        before = server.resident_bytes
        await socket.start(rounds=RUNNING)
        return server.resident_bytes - before


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
