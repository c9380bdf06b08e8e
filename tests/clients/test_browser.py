"""The client in JavaScript in a page of another origin: headless Chromium and a real daemon."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Page, async_playwright, expect

from agentws import Agent, InvocationContext
from tests.conftest import Address, Running, Serve
from tests.deploy.programs import need
from tests.support.cutting import Cutter, cutting
from tests.support.node import JAVASCRIPT

pytestmark = pytest.mark.browser

PAGE = """\
<!doctype html>
<title>A page</title>
<button id="run">Run</button> <button id="stop">Stop</button>
<output id="state"></output>
<ol id="chunks"></ol>
<form id="question" hidden><p></p><button>Yes</button></form>
<output id="end"></output>
<script type="module">
  import { connect } from "./agentws.js"

  const at = (id) => document.getElementById(id)
  const told = new URLSearchParams(location.search)
  const client = connect(told.get("url"), {
    token: async () => told.get("token"),
    queryParameter: "access_token",
    maxRetryDelay: 0.05,
  })
  at("state").value = client.state
  client.addEventListener("state", ({ detail }) => (at("state").value += " " + detail.state))

  function ask({ payload, answer }) {
    at("question").hidden = false
    at("question").firstChild.textContent = payload
    at("question").onsubmit = (event) => {
      event.preventDefault()
      answer(true)
    }
  }

  at("run").onclick = async () => {
    const controller = new AbortController()
    const run = client.invoke({ message: "hi" }, { signal: controller.signal })
    at("stop").onclick = () => controller.abort()
    try {
      for await (const event of run.events()) {
        if (event.type === "chunk") at("chunks").append(Object.assign(
          document.createElement("li"), { textContent: event.payload }))
        if (event.type === "question") ask(event)
        if (event.type === "answered") at("question").hidden = true
      }
      at("end").value = run.status
    } catch (error) {
      at("end").value = `${error.name} ${error.status ?? error.code}`
    }
  }
</script>
"""


class Cautious:
    """An agent that goes on when the test lets it, and asks before it does what is dangerous."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)
        self.go_on = asyncio.Event()
        self.runs = 0

    async def invoke(self, payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        self.runs += 1
        yield "one"
        await self.go_on.wait()
        yield "two"
        yield "done" if await context.ask("May I?") else "not done"


@pytest.fixture
def cautious() -> Cautious:
    return Cautious()


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """Serve the page and the client; return the origin, which is not the daemon's."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def client(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(JAVASCRIPT / "agentws.js")

    async def icon(_request: web.Request) -> web.Response:
        return web.Response(status=204)

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/agentws.js", client)
    app.router.add_get("/favicon.ico", icon)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
async def tab(site: str) -> AsyncIterator[Page]:
    """Open a tab, and see in the end that nothing was thrown in it."""
    need("chromium")
    arguments = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", chromium_sandbox=False, args=arguments
        )
        page = await browser.new_page()
        thrown: list[str] = []
        page.on("pageerror", lambda error: thrown.append(str(error)))
        yield page
        await browser.close()
        assert thrown == []


async def serve_to(site: str, serve: Serve, agent: Agent) -> Running:
    """Serve an agent to pages of the site that know the key."""
    return await serve(
        agent,
        auth={"api_keys": ["secret"], "query_parameter": "access_token"},
        http={"cors_origins": [site]},
    )


@asynccontextmanager
async def leading_to(server: Running) -> AsyncIterator[Cutter]:
    """Lead to a server, until the test cuts all connections there are."""
    async with cutting([server], seed=1) as cutter:
        cutter.is_calm = True
        yield cutter


async def open_page(tab: Page, site: str, server: Address, token: str = "secret") -> None:
    await tab.goto(f"{site}/?url={server.http}&token={token}")


async def test_a_page_loses_its_socket_and_is_asked_and_answers(
    tab: Page, site: str, serve: Serve, cautious: Cautious
) -> None:
    server = await serve_to(site, serve, cautious.agent)
    async with leading_to(server) as front:
        await open_page(tab, site, front)
        await tab.get_by_role("button", name="Run").click()
        await expect(tab.get_by_role("listitem")).to_have_text(["one"])

        front.cut_all()
        await expect(tab.locator("#state")).to_have_text("connecting open reconnecting open")
        cautious.go_on.set()
        await expect(tab.get_by_role("listitem")).to_have_text(["one", "two"])
        front.cut_all()  # while it is asked

        await tab.get_by_role("button", name="Yes").click()
        await expect(tab.get_by_role("listitem")).to_have_text(["one", "two", "done"])
        await expect(tab.locator("#question")).to_be_hidden()
        await expect(tab.locator("#end")).to_have_text("completed")
    assert cautious.runs == 1


async def test_a_page_cancels_by_a_signal(
    tab: Page, site: str, serve: Serve, cautious: Cautious
) -> None:
    server = await serve_to(site, serve, cautious.agent)
    await open_page(tab, site, server)
    await tab.get_by_role("button", name="Run").click()
    await expect(tab.get_by_role("listitem")).to_have_text(["one"])
    await tab.get_by_role("button", name="Stop").click()
    await expect(tab.locator("#end")).to_have_text("Cancelled cancelled")


async def test_a_page_is_told_that_its_credentials_are_refused(
    tab: Page, site: str, serve: Serve, cautious: Cautious
) -> None:
    server = await serve_to(site, serve, cautious.agent)
    await open_page(tab, site, server, token="wrong")
    await expect(tab.locator("#state")).to_have_text("connecting closed")
    await tab.get_by_role("button", name="Run").click()
    await expect(tab.locator("#end")).to_have_text("ConnectionFailed 401")
    assert cautious.runs == 0
