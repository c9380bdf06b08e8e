"""What the figures should come to."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from bench.measuring import Result

Results = Mapping[tuple[str, str], Result]
"""By scenario and contender."""


@dataclass(frozen=True)
class Target:
    """A figure and its bound."""

    name: str
    unit: str
    take: Callable[[Results], float]
    """Returns the figure. Raises `KeyError` where what it is made of was not measured."""
    bound: Literal["at least", "at most"]
    target: float


@dataclass(frozen=True)
class Verdict:
    """What a target was met with, or not."""

    name: str
    value: float
    unit: str
    bound: str
    target: float

    @property
    def met(self) -> bool:
        """Whether it was."""
        return self.value >= self.target if self.bound == "at least" else self.value <= self.target


def verdicts(results: Iterable[Result]) -> list[Verdict]:
    """Hold the results to all targets for which enough was measured."""
    by_name = {(it.scenario, it.contender): it for it in results}
    found = []
    for it in TARGETS:
        try:
            value = it.take(by_name)
        except KeyError:
            continue
        found.append(Verdict(it.name, value, it.unit, it.bound, it.target))
    return found


def _cheaper(scenario: str, ours: str, other: str) -> Callable[[Results], float]:
    """Return how many of our operations the CPU time of one of the other's pays for.

    It is the median of the rounds, in each of which both saw the same noise.
    """

    def take(results: Results) -> float:
        pairs = zip(
            results[scenario, ours].cpu_rounds, results[scenario, other].cpu_rounds, strict=True
        )
        return statistics.median(theirs / own for own, theirs in pairs)

    return take


def _value(scenario: str, contender: str, quantity: str) -> Callable[[Results], float]:
    """Return a quantity of a result."""
    return lambda results: results[scenario, contender].values[quantity]


def _replay(results: Results) -> float:
    live = results["stream-1", "agentws"].values["cpu_us"]
    return live / results["replay", "agentws"].values["cpu_us"]


def _in_company(results: Results) -> float:
    alone = results["followers", "alone"].values["per_second"]
    return results["followers", "beside a second one"].values["per_second"] / alone


def _inbox(results: Results) -> float:
    kib = "kib_per_invocation"
    listening = results["handlers", "waits for an input"].values[kib]
    return listening - results["handlers", "waits"].values[kib]


def _ratio(name: str, scenario: str, contenders: tuple[str, str], target: float) -> Target:
    return Target(name, "x", _cheaper(scenario, *contenders), "at least", target)


def _at_most(name: str, where: tuple[str, str, str], unit: str, target: float) -> Target:
    return Target(name, unit, _value(*where), "at most", target)


def _at_least(name: str, where: tuple[str, str, str], unit: str, target: float) -> Target:
    return Target(name, unit, _value(*where), "at least", target)


_OURS: Final = "agentws"
_JSON: Final = "aiohttp, json"

TARGETS: Final = (
    _ratio("invoke, 50 sockets: aiohttp with json", "invoke-50", (_OURS, _JSON), 0.75),
    _ratio("invoke, 50 sockets: the peer", "invoke-50", (_OURS, "peer"), 2.2),
    _ratio("invoke, 4,000 sockets: aiohttp with json", "invoke-4000", (_OURS, _JSON), 0.9),
    _at_most(
        "longest collection there, 100,000 retained",
        ("invoke-4000", _OURS, "longest_pause_ms"),
        *("ms", 25),
    ),
    _ratio("invoke, OTLP: our own without", "invoke-50", ("agentws, OTLP", _OURS), 0.5),
    _ratio("invoke, OTLP: the peer with", "invoke-50", ("agentws, OTLP", "peer, OTLP"), 2.7),
    _ratio("chunks, 50 x 100: echoes of aiohttp", "stream-50", (_OURS, "aiohttp, json, echo"), 6),
    _ratio("chunks, 50 x 100: the peer", "stream-50", (_OURS, "peer"), 9),
    _ratio("POST: aiohttp with json", "post", (_OURS, _JSON), 0.7),
    _ratio(
        "POST, access log: aiohttp with its own",
        "post",
        ("agentws, access log", "aiohttp, access log"),
        0.85,
    ),
    _ratio("POST: the peer", "post", (_OURS, "peer"), 4),
    _at_most("memory of an idle socket", ("idle", _OURS, "kib_per_socket"), "KiB", 16),
    _at_most("10,000 idle sockets, both pings", ("idle", _OURS, "core_share"), "of a core", 0.04),
    *(
        _at_most(
            f"{verb} while 200 stream, agents {kind}, p99",
            ("responsive", f"{verb}, agents {kind}", "p99_ms"),
            *("ms", 20),
        )
        for kind in ("never waiting", "giving way")
        for verb in ("get", "cancel")
    ),
    _at_most("start to ready", ("start", _OURS, "seconds"), "s", 0.25),
    _at_most("start to ready, OTLP", ("start", "agentws, OTLP", "seconds"), "s", 0.4),
    _ratio("invoke, Redis: our own in memory", "invoke-50", ("agentws, Redis", _OURS), 0.45),
    _ratio("chunks, Redis: our own in memory", "stream-50", ("agentws, Redis", _OURS), 0.75),
    _ratio("invoke, /metrics: our own without", "invoke-50", ("agentws, Prometheus", _OURS), 0.7),
    _ratio(
        "invoke, a declared type: our own without",
        *("invoke-50", ("agentws, declared type", _OURS)),
        0.91,
    ),
    Target("replay: its live rate", "x", _replay, "at least", 0.5),
    Target("first of two followers: its rate alone", "x", _in_company, "at least", 0.5),
    _at_most("input to answer, p99", ("waiting", "input to answer", "p99_ms"), "ms", 2),
    _at_most("page of 20 of 100,000, p99", ("waiting", "page of 20", "p99_ms"), "ms", 5),
    _at_most(
        "page of 20 of a session, p99", ("waiting", "page of 20 of a session", "p99_ms"), "ms", 5
    ),
    Target("a handler that waits for inputs, more", "KiB", _inbox, "at most", 2),
    *(
        _at_least(
            f"{language} client, {what}",
            ("clients", f"{language}, {what}", "per_second"),
            "/s",
            rate,
        )
        for language in ("Python", "JavaScript")
        for what, rate in (("chunks of one stream", 60_000), ("invokes", 6_000))
    ),
    _at_most(
        "Python client, resume of 64 runs", ("clients", "Python, resume of 64 runs", "ms"), "ms", 50
    ),
    _at_most("Python client, import", ("clients", "Python, import", "ms"), "ms", 100),
)
"""All targets. A ratio is of CPU time; 0.5 x means that ours takes twice that of the other."""
