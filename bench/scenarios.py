"""What is measured: each scenario runs its contenders in turns and returns what they came to."""

import asyncio
import contextlib
import functools
import json
import statistics
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from bench import users
from bench.contenders import UNLIMITED, Server, Servers
from bench.load import Exchange, HttpClient, Requester, Sink, open_socket, open_sockets, post
from bench.loops import run
from bench.measuring import Effort, Load, Result, in_turns, observed, settled, under_load, watch
from bench.waiting import Waits, retain

CHUNKS: Final = 100
PING_INTERVAL: Final = 30
"""Seconds between pings of either kind, as it is set by default."""

_STREAMS: Final = 200
_LOOKING: Final = 12
"""For how many rounds' time get and cancel are tried."""

_FEWEST_LOOKS: Final = 2
_CONNECTING: Final = 20
_MESSAGE: Final = {"message": "Hello, agent"}

_ALL: Final = ("agentws", "aiohttp, json", "aiohttp, msgspec", "Starlette", "peer")
_FEW: Final = ("agentws", "aiohttp, json", "Starlette", "peer")


@dataclass(frozen=True)
class Rate:
    """A scenario in which contenders do the same over and over under load."""

    name: str
    title: str
    load: Load
    contenders: tuple[str, ...] = _FEW
    handler: str = "echo"
    retained: int = 0
    """How many ended invocations ours holds beforehand."""
    echoed: bytes | None = None
    """What is asked of contenders of which an echo is measured, in place of the load's."""

    def __call__(self, servers: Servers, effort: Effort) -> list[Result]:
        """Measure it."""
        clients = effort.of(self.load.clients)
        with contextlib.ExitStack() as stack:
            running = {}
            for contender in servers.chosen(self.contenders):
                server = stack.enter_context(servers.run(contender, self.handler))
                if self.retained and contender.is_ours:
                    retain(server, effort.of(self.retained))
                exchange = (
                    Exchange(self.echoed)
                    if contender.echoes and self.echoed
                    else self.load.exchange
                )
                load = Load(exchange, clients, self.load.kind)
                running[contender.name] = under_load(server, load, effort)
            return in_turns(self.name, running, effort.rounds)


def _invoke(payload: Any, **fields: object) -> bytes:
    return json.dumps({"action": "invoke", "payload": payload, **fields}).encode()


def _streaming(count: int, **payload: float) -> Exchange:
    request = _invoke({"chunks": count, **payload})
    return Exchange(request, answers=count + 1, closing=1)


def _chunk() -> bytes:
    ids = {"invocation_id": str(uuid.uuid4()), "session_id": str(uuid.uuid4())}
    chunk = {"type": "stream_chunk", **ids, "sequence_number": 99, "payload": {"token": "word"}}
    return json.dumps(chunk).encode()


def _invokes(clients: int) -> Load:
    return Load(Exchange(_invoke(_MESSAGE)), clients)


_WITH_VARIANTS: Final = (
    *("agentws", "agentws, OTLP", "agentws, Redis", "agentws, Prometheus"),
    *("agentws, declared type", "agentws, invocation log"),
    *("aiohttp, json", "aiohttp, msgspec", "Starlette", "peer", "peer, OTLP"),
)
_POSTING: Final = (
    *("agentws", "agentws, OTLP", "agentws, access log", "agentws, Redis"),
    *(
        "aiohttp, json",
        "aiohttp, msgspec",
        "aiohttp, access log",
        "Starlette",
        "peer",
        "peer, OTLP",
    ),
)
_EVENTS: Final = Exchange(
    post(json.dumps({"chunks": CHUNKS}).encode(), "text/event-stream"), answers=CHUNKS
)

RATES: Final = (
    Rate("invoke-1", "invoke, 1 socket", _invokes(1), _ALL),
    Rate("invoke-50", "invoke, 50 sockets", _invokes(50), _WITH_VARIANTS),
    Rate("invoke-1000", "invoke, 1,000 sockets", _invokes(1000), _ALL),
    Rate(
        *("invoke-4000", "invoke, 4,000 sockets, 100,000 retained", _invokes(4000)),
        retained=100_000,
    ),
    Rate("stream-1", "chunks, 1 x 10,000", Load(_streaming(10_000), 1), _ALL, "stream"),
    Rate(
        *("stream-50", "chunks, 50 x 100", Load(_streaming(CHUNKS), 50)),
        (
            "agentws",
            "agentws, OTLP",
            "agentws, Redis",
            *_ALL[1:],
            "aiohttp, json, echo",
            "peer, OTLP",
        ),
        "stream",
        echoed=_chunk(),
    ),
    Rate("stream-200", "chunks, 200 x 2,000", Load(_streaming(2000), 200), _FEW, "stream"),
    Rate(
        *("stream-slow", "chunks, 1,000 x 20 a second", Load(_streaming(40, pause=0.05), 1000)),
        ("agentws", "agentws, Redis", *_FEW[1:]),
        "stream",
    ),
    Rate(
        *("post", "POST, 50 connections"),
        Load(Exchange(post(json.dumps(_MESSAGE).encode())), 50, HttpClient),
        _POSTING,
    ),
    Rate(
        *("sse", "events, 50 x 100", Load(_EVENTS, 50, HttpClient)),
        ("agentws", "aiohttp, json", "Starlette", "peer"),
        "stream",
    ),
)


def retained(servers: Servers, effort: Effort) -> list[Result]:
    """Compare invokes beside nothing, ten thousand and a hundred thousand ended invocations."""
    load = _invokes(effort.of(50))
    with contextlib.ExitStack() as stack:
        running = {}
        for count in (1, 10_000, 100_000):
            held = effort.of(count)
            limit = {"AGENTWS_INVOCATIONS__MAX_RETAINED": str(held)}
            server = stack.enter_context(servers.daemon("echo", **limit))
            retain(server, held)
            running[f"agentws, {count:,} retained"] = under_load(server, load, effort)
        return in_turns("retained", running, effort.rounds)


def replay(servers: Servers, effort: Effort) -> list[Result]:
    """Measure what a chunk costs that is sent again to whoever attaches."""
    count = effort.of(100_000)
    first = Exchange(_invoke({"chunks": count}, invocation_id="long"), answers=count + 1)
    attach = json.dumps({"action": "attach_invocation", "invocation_id": "long"}).encode()
    with servers.daemon("stream", **UNLIMITED) as server:
        run(_once(server, first))
        load = Load(Exchange(attach, answers=count + 1, closing=1), 1)
        return in_turns("replay", {"agentws": under_load(server, load, effort)}, effort.rounds)


async def _once(server: Server, exchange: Exchange) -> None:
    async with open_sockets(server, exchange, 1) as (socket,):
        await socket.start(rounds=1)


def connects(servers: Servers, effort: Effort) -> list[Result]:
    """Measure handshakes: sockets that are opened and dropped."""
    with contextlib.ExitStack() as stack:
        running = {it.name: stack.enter_context(servers.run(it)) for it in servers.chosen(_FEW)}
        return in_turns(
            "connects",
            {name: functools.partial(_connect, it, effort) for name, it in running.items()},
            effort.rounds,
        )


async def _connect(server: Server, effort: Effort) -> dict[str, float]:
    opened = 0
    server.pauses.reset()
    until = time.perf_counter() + effort.seconds

    async def open_and_drop() -> None:
        nonlocal opened
        while time.perf_counter() < until:
            socket = await open_socket(server, Exchange(b""))
            socket.abort()
            opened += 1

    with observed(server, lambda: opened) as sample:
        await asyncio.gather(*(open_and_drop() for _ in range(_CONNECTING)))
    await settled(server)
    return sample


def idle(servers: Servers, effort: Effort) -> list[Result]:
    """Measure what ten thousand sockets take that do nothing but answer pings."""
    interval = max(PING_INTERVAL * effort.scale, 0.5)
    pings = {
        "AGENTWS_WEBSOCKET__HEARTBEAT": str(interval),
        "AGENTWS_WEBSOCKET__APP_PING_INTERVAL": str(interval),
    }
    results = []
    for contender in servers.chosen(_FEW):
        with servers.run(contender, **(pings if contender.is_ours else {})) as server:
            watched = interval if contender.is_ours else 0
            values = run(_hold(server, effort.of(10_000), watched))
            results.append(Result("idle", contender.name, values))
    return results


async def _hold(server: Server, count: int, seconds: float) -> dict[str, float]:
    """Open sockets that exchange one message each, and watch them for a while."""
    exchange = Exchange(_invoke(_MESSAGE))
    server.pauses.reset()
    async with open_sockets(server, exchange, 1) as (first,):
        await first.start(rounds=1)
        before = server.resident_bytes
        async with open_sockets(server, exchange, count) as sockets:
            for socket in sockets:
                await socket.start(rounds=1)
            held = {"kib_per_socket": (server.resident_bytes - before) / count / 1024}
            if not seconds:
                return held
            with observed(server, lambda: sum(socket.messages for socket in sockets)) as sample:
                await asyncio.sleep(seconds)
    return held | {
        key: sample[key] for key in ("core_share", "longest_pause_ms", "full_collections")
    }


def responsive(servers: Servers, effort: Effort) -> list[Result]:
    """Measure how soon get and cancel are answered while many streams run at full speed.

    Their agents yield without ever waiting, or let others have a turn after each chunk.
    """
    results = []
    for kind, payload in (("never waiting", {}), ("giving way", {"pause": 0})):
        with servers.daemon("stream") as server:
            waits = run(_look(server, effort, _invoke({"chunks": 10**9, **payload})))
        results += [
            Result("responsive", f"{verb}, agents {kind}", {"p50_ms": it.p50, "p99_ms": it.p99})
            for verb, it in waits.items()
        ]
    return results


async def _look(server: Server, effort: Effort, endless: bytes) -> dict[str, Waits]:
    times: dict[str, list[float]] = {"get": [], "cancel": []}
    async with (
        open_sockets(server, Exchange(endless), effort.of(_STREAMS), Sink) as streams,
        open_sockets(server, Exchange(b""), 1) as (socket,),
    ):
        streaming = [stream.start() for stream in streams]
        await watch(streaming, effort.seconds)
        until = time.perf_counter() + _LOOKING * effort.seconds
        while len(times["get"]) < _FEWEST_LOOKS or time.perf_counter() < until:
            name = str(uuid.uuid4())
            asleep = {"chunks": 1, "pause": 3600}
            await _ask(socket, _invoke(asleep, invocation_id=name, background=True))
            for verb, taken in times.items():
                action = {"action": f"{verb}_invocation", "invocation_id": name}
                taken.append(await _ask(socket, json.dumps(action).encode()))
        await watch(streaming, 0)
    return {verb: Waits.of(taken) for verb, taken in times.items()}


async def _ask(socket: Requester, request: bytes) -> float:
    """Return the milliseconds until it is answered."""
    socket.turn_to(Exchange(request))
    began = time.perf_counter()
    await socket.start(rounds=1)
    return (time.perf_counter() - began) * 1e3


def start(servers: Servers, effort: Effort) -> list[Result]:
    """Measure the time from the start of the process to its first readiness."""
    times: dict[str, list[float]] = {}
    for _ in range(effort.rounds):
        for contender in servers.chosen(("agentws, OTLP", "agentws, Redis", *_FEW)):
            with servers.run(contender) as server:
                times.setdefault(contender.name, []).append(server.ready_after)
    return [
        Result("start", name, {"seconds": statistics.median(taken)})
        for name, taken in times.items()
    ]


Scenario = Callable[[Servers, Effort], list[Result]]

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        **{rate.name: rate for rate in RATES},
        "replay": replay,
        "connects": connects,
        "responsive": responsive,
        "retained": retained,
        "idle": idle,
        "start": start,
        "followers": users.followers,
        "waiting": users.waiting,
        "handlers": users.handlers,
        "clients": users.clients,
    }
)
"""Every comparison by its name."""

TITLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{rate.name: rate.title for rate in RATES},
        "replay": "replay of 100,000 chunks",
        "connects": "sockets opened and dropped",
        "responsive": "get, cancel while 200 stream",
        "retained": "invoke, 50 sockets, beside ended invocations",
        "idle": "10,000 idle sockets",
        "start": "start to ready",
        "followers": "one stream, its first follower",
        "waiting": "one client, beside 100,000 retained",
        "handlers": "memory of running invocations",
        "clients": "what the clients take, the daemon on another core",
    }
)
