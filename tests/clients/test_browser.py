"""The client in JavaScript in a page of another origin: headless Chromium and a real daemon."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Page, async_playwright, expect

from agentws import Agent, InvocationContext
from tests.conftest import Running, Serve
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
    queryParameter: told.get("parameter") ?? undefined,
    connectTimeout: Number(told.get("patience")),
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
      at("end").value = `${error.name} ${error.status ?? error.code ?? ""}`
      at("end").title = error.message
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


async def open_page(
    tab: Page,
    site: str,
    url: str,
    *,
    token: str = "secret",
    parameter: str | None = "access_token",
    patience: float = 10,
) -> None:
    """Open the page, which connects to `url` with a token, and waits so many seconds for that."""
    told = {"url": url, "token": token, "parameter": parameter, "patience": patience}
    given = {name: value for name, value in told.items() if value is not None}
    await tab.goto(f"{site}/?{urlencode(given)}")


async def why_it_fails(tab: Page) -> str:
    """Run, and return the message of the failure of the connection."""
    await tab.get_by_role("button", name="Run").click()
    await expect(tab.locator("#end")).to_have_text("ConnectionFailed")
    return await tab.locator("#end").get_attribute("title") or ""


async def test_a_page_loses_its_socket_and_is_asked_and_answers(
    tab: Page, site: str, serve: Serve, cautious: Cautious
) -> None:
    server = await serve_to(site, serve, cautious.agent)
    async with leading_to(server) as front:
        await open_page(tab, site, front.http)
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
    await open_page(tab, site, server.http)
    await tab.get_by_role("button", name="Run").click()
    await expect(tab.get_by_role("listitem")).to_have_text(["one"])
    await tab.get_by_role("button", name="Stop").click()
    await expect(tab.locator("#end")).to_have_text("Cancelled cancelled")


async def test_a_page_is_told_that_its_credentials_are_refused(
    tab: Page, site: str, serve: Serve, cautious: Cautious
) -> None:
    server = await serve_to(site, serve, cautious.agent)
    await open_page(tab, site, server.http, token="wrong")
    await expect(tab.locator("#state")).to_have_text("connecting closed")
    await tab.get_by_role("button", name="Run").click()
    await expect(tab.locator("#end")).to_have_text("ConnectionFailed 401")
    assert cautious.runs == 0


async def test_a_page_that_names_no_query_parameter_is_told_of_it(
    tab: Page, site: str, serve: Serve, cautious: Cautious
) -> None:
    server = await serve_to(site, serve, cautious.agent)
    await open_page(tab, site, server.http, parameter=None)
    why = await why_it_fails(tab)
    assert "sends no headers (authorization). Give connect() queryParameter, " in why


async def test_a_page_that_names_another_query_parameter_is_told_what_to_look_at(
    tab: Page, site: str, serve: Serve, cautious: Cautious
) -> None:
    server = await serve_to(site, serve, cautious.agent)
    await open_page(tab, site, server.http, parameter="token", patience=2)
    why = await why_it_fails(tab)
    assert f"The handshake with {server.ws}/invocations_ws/ws failed, and yet HTTP takes " in why
    assert "queryParameter is the server's auth.query_parameter" in why


async def test_a_page_of_an_origin_that_is_not_allowed_is_told_what_to_look_at(
    tab: Page, site: str, serve: Serve, cautious: Cautious
) -> None:
    server = await serve(cautious.agent)
    await open_page(tab, site, server.http, patience=2)
    why = await why_it_fails(tab)
    assert f"The handshake with {server.ws}/invocations_ws/ws failed, " in why
    assert f"the server runs, that its auth.allowed_origins has {site}, and the URL." in why


async def test_a_page_at_a_wrong_path_is_told_so(
    tab: Page, site: str, serve: Serve, cautious: Cautious
) -> None:
    server = await serve_to(site, serve, cautious.agent)
    await open_page(tab, site, f"{server.http}/agents", patience=2)
    why = await why_it_fails(tab)
    assert f"The handshake with {server.ws}/agents/invocations_ws/ws failed, " in why
