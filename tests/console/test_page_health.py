"""The daemon's health is told in numbers and small charts."""

from typing import Any

from playwright.async_api import expect

from agentws import InvocationContext, InvocationError
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of
from tests.support.browser import IN_A_BROWSER, OpenConsole

pytestmark = IN_A_BROWSER


async def test_numbers_are_charted(serve_console: Serve, open_console: OpenConsole) -> None:
    gate = Gate()
    console = await open_console(await serve_console(agent_of(gate.stream)))
    await console.run('["a"]')
    health = console.region("Health")
    await expect(health.get_by_role("img", name="Sockets: now 1")).to_be_visible()
    await expect(health.get_by_role("img", name="Running: now 1")).to_be_visible()
    for name in ("Invocations per s", "Chunks per s", "First chunk p50 / p99"):
        await expect(health.get_by_role("img", name=name)).to_be_visible()
    await expect(health.get_by_text("ms /")).to_be_visible()


async def test_errors_are_told_by_code(serve_console: Serve, open_console: OpenConsole) -> None:
    async def fails(payload: Any, context: InvocationContext) -> Any:
        raise InvocationError("out_of_cheese", "There is no cheese left")

    console = await open_console(await serve_console(agent_of(fails)))
    await expect(console.region("Health").get_by_role("img", name="Sockets: now")).to_be_visible()
    await console.run("{}")
    await expect(console.region("Health")).to_contain_text("out_of_cheese")
