"""The client in JavaScript: its own tests, the scenarios of all clients, and thousands of cuts."""

import json
import random
import subprocess
import time
from importlib.resources import files

import pytest

from agentws import Agent, __version__
from tests.conftest import Serve
from tests.support.cutting import Witness, cutting
from tests.support.misbehaving import misbehaving
from tests.support.node import JAVASCRIPT, run_node, tool
from tests.support.redis_server import RedisServer
from tests.support.scenarios import load_scenarios

SOCKETS = 2_500
"""How many sockets each test of cuts takes, all but the last of which are cut; there are four."""

SCENARIOS = {
    name: scenario
    for name, scenario in load_scenarios().items()
    if "javascript" in scenario.get("only", ["javascript"])
}


async def test_its_own_tests_pass() -> None:
    output = await run_node("--test", "--test-reporter=tap", "test/*.test.js")
    assert "\n# fail 0" in output
    assert "\n# pass 0" not in output


@pytest.mark.parametrize("name", SCENARIOS)
async def test_it_bears_what_clients_must_bear(name: str) -> None:
    async with misbehaving(SCENARIOS[name]) as server:
        await run_node("test/scenario.js", str(server.port), stdin=json.dumps(SCENARIOS[name]))


# --- cuts ---


@pytest.fixture(params=["one server", "two servers on one Redis"])
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the settings of the store, which two servers share."""
    if request.param == "one server":
        return {}
    redis: RedisServer = request.getfixturevalue("redis")
    return {"url": redis.url}


async def be_cut_off(
    serve: Serve, agent: Agent, name: str, store: dict[str, str], *, sockets: int, seed: int
) -> None:
    """Have users of an agent cut off until they have had so many sockets."""
    servers = [await serve(agent, store=store) for _ in range(2 if store else 1)]
    async with cutting(servers, seed) as cutter:
        arguments = [cutter.http, name, str(sockets), str(seed)]
        done = json.loads(await run_node("test/cuts.js", *arguments))
        assert done["sockets"] >= sockets


@pytest.mark.random
@pytest.mark.parametrize("name", ["streams", "returns"])
async def test_thousands_of_cuts_cost_nothing(
    serve: Serve, store: dict[str, str], name: str
) -> None:
    witness = Witness()
    agent: Agent = getattr(witness, name)
    await be_cut_off(serve, agent, name, store, sockets=SOCKETS, seed=1)
    assert len(witness.runs) > 100
    assert witness.run_twice == []


@pytest.mark.soak
@pytest.mark.parametrize("name", ["streams", "returns"])
async def test_any_number_of_cuts_costs_nothing(
    serve: Serve, store: dict[str, str], name: str, soak_seconds: float
) -> None:
    witness, until = Witness(), time.monotonic() + soak_seconds / 4
    while time.monotonic() < until:
        seed = random.randrange(2**31)
        print(f"seed {seed}")  # noqa: T201
        agent: Agent = getattr(witness, name)
        await be_cut_off(serve, agent, name, store, sockets=SOCKETS, seed=seed)
    assert witness.run_twice == []


# --- what is published ---


def test_its_types_are_what_users_write() -> None:
    result = subprocess.run(
        [tool("tsc")], cwd=JAVASCRIPT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_it_can_be_packed() -> None:
    tool("tsc")  # where there is npm, it has been installed
    command = ["npm", "pack", "--dry-run", "--json", "--loglevel=error"]
    result = subprocess.run(command, cwd=JAVASCRIPT, capture_output=True, text=True, check=True)
    (packed,) = json.loads(result.stdout)
    names = {file["path"] for file in packed["files"]}
    assert names == {"README.md", "agentws.d.ts", "agentws.js", "package.json"}


def test_it_has_the_version_of_the_daemon() -> None:
    assert json.loads((JAVASCRIPT / "package.json").read_text())["version"] == __version__


def test_the_lock_names_no_registry() -> None:
    assert "resolved" not in (JAVASCRIPT / "package-lock.json").read_text()


def test_the_daemon_carries_it() -> None:
    carried = files("agentws") / "console/static/agentws.js"
    assert carried.read_text() == (JAVASCRIPT / "agentws.js").read_text()
