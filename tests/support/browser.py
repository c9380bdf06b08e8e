"""Headless Chromium, one for all tests, and pages of it that may not complain."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    ViewportSize,
    async_playwright,
)

from tests.conftest import Address, Serve, serving
from tests.deploy.programs import need

_ARGUMENTS = [
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


IN_A_BROWSER = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
"""What tests that share the browser are marked with: it lives in one event loop."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Run one Chromium for all tests."""
    need("chromium")
    async with async_playwright() as playwright:
        yield await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_ARGUMENTS)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tabs(chromium: Browser) -> BrowserContext:
    """Return what the tabs of most tests share.

    What pages keep is apart by the server's port, and an own one costs half a second.
    """
    return await chromium.new_context()


class Console:
    """A tab that shows the console of a server."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._heard: list[str] = []
        self._forgiven: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self._heard.append(str(error)))
        page.on("request", lambda request: self._note_host(request.url))
        page.on("websocket", lambda socket: self._note_host(socket.url))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._heard.append(message.text)

    def _note_host(self, url: str) -> None:
        """Complain of what is asked of another host than the page's; files of its own have none."""
        host = urlsplit(url).hostname
        if host not in (None, "127.0.0.1"):
            self._heard.append(f"A foreign host: {url}")

    def forgive(self, *parts: str) -> None:
        """Let complaints pass that have one of these parts: browsers tell of what is lost."""
        self._forgiven += parts

    @property
    def complaints(self) -> list[str]:
        """What the browser has complained of: errors, breaches of its policy, foreign hosts."""
        return [text for text in self._heard if not any(part in text for part in self._forgiven)]

    async def run(self, payload: str) -> None:
        """Write a payload, as JSON, and run it."""
        await self.page.get_by_role("textbox", name="Payload").fill(payload)
        await self.page.get_by_role("button", name="Run", exact=True).click()

    def button(self, name: str) -> Any:
        """Return the button of exactly this name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def region(self, name: str) -> Any:
        """Return the part of the page of this name."""
        return self.page.get_by_role("region", name=name, exact=True)

    def rows(self, region: str) -> Any:
        """Return the rows of the list in a part of the page."""
        return self.region(region).get_by_role("listbox").get_by_role("option")


OpenConsole = Callable[..., Awaitable[Console]]
"""Opens the console of a server; `width` is the window's. With options it has a browser's profile
of its own."""


@pytest_asyncio.fixture(loop_scope="session")
async def open_console(chromium: Browser, tabs: BrowserContext) -> AsyncIterator[OpenConsole]:
    """Open consoles, none of which may complain in the end."""
    consoles: list[Console] = []
    async with AsyncExitStack() as stack:

        async def open_(server: Address, *, width: int = 1280, **options: Any) -> Console:
            viewport: ViewportSize = {"width": width, "height": 800}
            context = tabs
            if options:
                context = await chromium.new_context(**options)
                stack.push_async_callback(context.close)
            page = await context.new_page()
            stack.push_async_callback(page.close)
            await page.set_viewport_size(viewport)
            console = Console(page)
            console.page.set_default_timeout(5_000)
            consoles.append(console)
            await console.page.goto(f"{server.http}/console/")
            return console

        yield open_
    assert [console.complaints for console in consoles] == [[] for _ in consoles]


@pytest_asyncio.fixture(loop_scope="session")
async def serve_console() -> AsyncIterator[Serve]:
    """Start servers as `serve` does, with the console."""
    async with serving() as serve:
        yield partial(serve, console={"enabled": True})
