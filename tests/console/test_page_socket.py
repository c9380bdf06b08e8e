"""Sockets are cut, by the page and under it, and nothing is missing."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from playwright.async_api import expect

from agentws import InvocationContext
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, each
from tests.support.browser import IN_A_BROWSER, OpenConsole
from tests.support.cutting import cutting

pytestmark = IN_A_BROWSER


class Counter:
    """Streams numbers while nobody stops it, and counts how often it runs."""

    def __init__(self, last: int, pause: float) -> None:
        self.last = last
        self.pause = pause
        self.runs = 0

    async def __call__(self, payload: Any, _: InvocationContext) -> AsyncGenerator[Any, None]:
        self.runs += 1
        for number in range(1, self.last + 1):
            yield {"token": f"{number} "}
            await asyncio.sleep(self.pause)

    @property
    def text(self) -> str:
        return "".join(f"{number} " for number in range(1, self.last + 1))


async def test_a_socket_is_dropped_under_a_stream(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    counter = Counter(last=100, pause=0.01)
    console = await open_console(await serve_console(agent_of(counter)))
    await console.run("{}")
    run = console.page.get_by_role("article")
    await expect(run.get_by_label("Text of the run")).to_contain_text("10 ")
    await console.button("Drop my socket").click()

    await expect(run).to_contain_text("Socket lost after chunk")
    await expect(run).to_contain_text("Reconnected after")
    await expect(run).to_contain_text("100 chunks")
    await expect(run).to_contain_text("1 reconnect · nothing missing")
    text = await run.get_by_label("Text of the run").text_content()
    assert text == counter.text
    assert counter.runs == 1
    frames = console.rows("Frames")
    await console.page.get_by_label("Type of frame").select_option("attach_invocation")
    await expect(frames.first).to_contain_text("attach_invocation")


async def test_a_socket_is_dropped_for_ten_seconds(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    gate = Gate()
    server = await serve_console(agent_of(gate.stream))
    console = await open_console(server, locale="en")  # its clock is its own
    await console.page.clock.install()
    await console.page.reload()
    await console.run('["one ", "two"]')
    text = console.page.get_by_label("Text of the run")
    await expect(text).to_have_text("one ")
    await console.button("Drop for 10 s").click()
    gate.opened.set()
    await expect(console.page.locator("#connection")).to_have_text("reconnecting")
    await console.page.clock.fast_forward(9_000)
    await expect(console.page.locator("#connection")).to_have_text("reconnecting")
    await expect(text).to_have_text("one ")

    await console.page.clock.fast_forward(10_000)
    await expect(text).to_have_text("one two")
    await expect(console.page.locator("#connection")).to_have_text("connected")


async def test_a_slow_reader_loses_nothing(serve_console: Serve, open_console: OpenConsole) -> None:
    counter = Counter(last=700, pause=0)
    console = await open_console(await serve_console(agent_of(counter)))
    await console.button("Slow reader").click()
    await console.run("{}")
    run = console.page.get_by_role("article")
    await expect(run.get_by_label("Text of the run")).to_contain_text("3 ")
    await expect(run).not_to_contain_text("700 chunks")
    await console.button("Slow reader").click()
    await expect(run).to_contain_text("700 chunks")
    await expect(run).to_contain_text("nothing missing")
    assert await run.get_by_label("Text of the run").text_content() == counter.text


async def test_a_cut_of_the_network_is_told_and_mended(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    gate = Gate()
    server = await serve_console(agent_of(gate.stream))
    async with cutting([server], seed=1) as front:
        front.is_calm = True
        console = await open_console(front)
        await console.run('["one ", "two"]')
        run = console.page.get_by_role("article")
        await expect(run.get_by_label("Text of the run")).to_have_text("one ")
        front.cut_all()
        await expect(run).to_contain_text("Reconnected after")
        gate.opened.set()
        await expect(run.get_by_label("Text of the run")).to_have_text("one two")
        console.forgive("ERR_")


async def test_a_server_that_returns_is_found_again(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    gate = Gate()
    server = await serve_console(agent_of(gate.stream))
    console = await open_console(server)
    await console.run('["one", "two"]')
    first = console.page.get_by_role("article", name="Run 1")
    await expect(first.get_by_label("Text of the run")).to_have_text("one")
    await server.server.drain()
    await expect(console.page.locator("#connection")).to_have_text("reconnecting")

    await serve_console(agent_of(each), server={"port": server.port})
    await expect(console.page.locator("#connection")).to_have_text("connected", timeout=10_000)
    await expect(console.page.locator("#down")).to_be_hidden()
    await console.run('["again"]')
    again = console.page.get_by_role("article", name="Run 2")
    await expect(again.get_by_label("Text of the run")).to_have_text("again")
    console.forgive("ERR_", "503")


async def test_a_server_that_goes_away_is_told(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    gate = Gate()
    server = await serve_console(agent_of(gate.stream))
    console = await open_console(server)
    await console.run('["one", "two"]')
    run = console.page.get_by_role("article")
    await expect(run.get_by_label("Text of the run")).to_have_text("one")
    await server.server.drain()

    await expect(console.page.locator("#down")).to_contain_text("The socket was lost")
    await expect(console.page.locator("#connection")).to_have_text("reconnecting")
    await expect(run).to_contain_text("shutting_down")
    await expect(console.region("Health")).to_contain_text(
        "No news from the daemon", timeout=15_000
    )
    console.forgive("ERR_", "503")
