"""What the client does when the server does wrong; told in `scenarios.json`, for all clients."""

import pytest

from tests.client.driver import User
from tests.support.misbehaving import misbehaving
from tests.support.scenarios import Scenario, load_scenarios

SCENARIOS = [
    scenario
    for scenario in load_scenarios().values()
    if "python" in scenario.get("only", ["python"])
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario["name"]))
async def test_whatever_the_server_does_the_user_sees_what_is_right(scenario: Scenario) -> None:
    async with misbehaving(scenario) as server:
        try:
            await User(scenario, server).play()
        finally:
            failures = await server.report()
        assert failures == []
