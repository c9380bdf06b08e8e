"""Each scenario of `make bench` measures what it should, in a split second with few sockets."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from xml.etree import ElementTree

import pytest

from bench import chart
from bench.contenders import Contender, Server, Servers
from bench.measuring import Effort, Result
from bench.scenarios import SCENARIOS, TITLES
from bench.targets import TARGETS, verdicts
from tests.support.node import node

EFFORT = Effort(seconds=0.02, rounds=1, scale=0.002)


class KeptServers(Servers):
    """Runs each server once, for all scenarios, without those that need the peer's environment."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(core=None, with_others=False)
        self._stack = stack
        self._kept: dict[str, Server] = {}

    @contextmanager
    def run(
        self, contender: Contender, handler: str = "echo", **environment: str
    ) -> Iterator[Server]:
        """Lend out the server that runs, or start it."""
        key = f"{contender} {handler if contender.is_ours else ''} {environment}"
        if key not in self._kept:
            running = super().run(contender, handler, **environment)
            self._kept[key] = self._stack.enter_context(running)
        yield self._kept[key]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        yield KeptServers(stack)


@pytest.fixture(scope="module")
def results() -> list[Result]:
    """What the scenarios have measured so far; the last test looks at all of it."""
    return []


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_measures(name: str, servers: Servers, results: list[Result]) -> None:
    if name == "clients":
        node()  # skips without it
    measured = SCENARIOS[name](servers, EFFORT)
    assert measured
    assert {it.scenario for it in measured} == {name}
    for it in measured:
        assert it.values
        assert all(value >= 0 for value in it.values.values()), it
        assert it.values.get("per_second", 1) > 0, it
    results += measured


def test_all_targets_but_those_against_the_peer_are_looked_at(results: list[Result]) -> None:
    if {it.scenario for it in results} != set(SCENARIOS):
        pytest.skip("not all scenarios were run")
    looked_at = {it.name for it in verdicts(results)}
    assert {it.name for it in TARGETS if "peer" not in it.name} == looked_at


def test_the_chart_is_drawn(results: list[Result]) -> None:
    made_up = [Result("post", "agentws", {"cpu_us": 50}), Result("post", "peer", {"cpu_us": 200})]
    svg = ElementTree.fromstring(chart.drawn(made_up))
    assert "agentws" in [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    widths = [float(it.attrib["width"]) for it in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] * 4 == widths[1]


def test_every_scenario_has_a_title() -> None:
    assert list(TITLES) == list(SCENARIOS)
