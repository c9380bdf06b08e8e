"""What else has a target: waits of a client, memory of a handler, and what the clients can take."""

import statistics
from collections.abc import Callable
from typing import Final

from bench import client, javascript
from bench.contenders import UNLIMITED, Server, Servers
from bench.following import Times
from bench.load import Exchange, open_sockets
from bench.loops import run
from bench.measuring import Effort, Result
from bench.waiting import Waits, retain, waits

_PING: Final = b'{"action":"ping"}'


def waiting(servers: Servers, effort: Effort) -> list[Result]:
    """Measure how long a client waits for an answer to an input, and for pages of a long list."""
    retained, times = effort.of(100_000), effort.of(1000) + 1
    lists = {
        "page of 20": b'{"action":"list_invocations"}',
        "page of 20 of a session": b'{"action":"list_invocations","session_id":"7"}',
    }
    results = []
    with servers.bare() as bare:
        with servers.daemon("talk") as ours:
            invoke = b'{"action":"invoke","invocation_id":"talk"}'
            send = b'{"action":"send_input","invocation_id":"talk","payload":"word"}'
            # Each is answered twice: that it was accepted, and by the handler.
            taken = waits(
                ours, Exchange(send, answers=2), after=Exchange(invoke), bare=bare, times=times
            )
            results.append(_waited("input to answer", taken))
        with servers.daemon("echo") as ours:
            retain(ours, retained)
            for name, request in lists.items():
                taken = waits(
                    ours, Exchange(request), after=Exchange(_PING), bare=bare, times=times
                )
                results.append(_waited(name, taken))
    return results


def _waited(name: str, taken: tuple[Waits, Waits]) -> Result:
    ours, echo = taken
    values = {"p50_ms": ours.p50, "p99_ms": ours.p99, "p99_ms_of_an_echo": echo.p99}
    return Result("waiting", name, values)


def handlers(servers: Servers, effort: Effort) -> list[Result]:
    """Measure what a handler takes that waits, and one that waits for an input."""
    return [
        Result("handlers", name, {"kib_per_invocation": _memory(servers, handler, effort)})
        for name, handler in (("waits", "wait"), ("waits for an input", "wait_for_input"))
    ]


def _memory(servers: Servers, handler: str, effort: Effort) -> float:
    count = effort.of(5000)
    with servers.daemon(handler, **UNLIMITED) as ours:
        return run(_growth(ours, count)) / count / 1024


async def _growth(server: Server, count: int) -> int:
    exchange = Exchange(b'{"action":"invoke","background":true}')
    async with open_sockets(server, exchange, 1) as (socket,):
        await socket.start(rounds=max(count // 10, 1))
        before = server.resident_bytes
        await socket.start(rounds=count)
        return server.resident_bytes - before


def followers(servers: Servers, effort: Effort) -> list[Result]:
    """Measure how fast the first follower of a stream is, alone and beside a second one."""
    length = effort.of(100_000)
    with servers.daemon("stream", **UNLIMITED) as ours:
        rounds = [run(Times.take(ours, f"{number}", length)) for number in range(effort.rounds)]
    return [
        Result("followers", "alone", _rate(length, [it.live for it in rounds])),
        Result("followers", "beside a second one", _rate(length, [it.in_company for it in rounds])),
    ]


def _rate(count: int, seconds: list[float]) -> dict[str, float]:
    return {"per_second": count / statistics.median(seconds)}


def clients(servers: Servers, effort: Effort) -> list[Result]:
    """Measure what the clients in Python and JavaScript can take."""
    chunks, invokes = effort.of(100_000), effort.of(20_000)
    with servers.daemon("stream") as streaming, servers.daemon("echo") as echoing:
        rates = {
            "Python, chunks of one stream": lambda: client.chunks(streaming, chunks),
            "Python, invokes": lambda: client.invokes(echoing, invokes),
            "JavaScript, chunks of one stream": lambda: javascript.chunks(streaming, chunks),
            "JavaScript, invokes": lambda: javascript.invokes(echoing, invokes),
        }
        results = [
            Result("clients", name, {"per_second": _median(rate, effort)})
            for name, rate in rates.items()
        ]
    with servers.daemon("pause") as ours:
        resume = {"ms": _median(lambda: 1e3 * client.resume(ours, effort.of(64)), effort)}
        results.append(Result("clients", "Python, resume of 64 runs", resume))
    imported = {"ms": 1e3 * client.seconds_to_import(4 * effort.rounds)}
    return [*results, Result("clients", "Python, import", imported)]


def _median(take: Callable[[], float], effort: Effort) -> float:
    return statistics.median(take() for _ in range(effort.rounds))
