"""Under `agentws dev` the page tells of each restart, and of what cannot be imported."""

import re
from pathlib import Path

from playwright.async_api import expect

from tests.support.browser import IN_A_BROWSER, OpenConsole
from tests.support.development import ANSWERS, developing

pytestmark = IN_A_BROWSER

TYPED = """
from msgspec import Struct


class Question(Struct):
    topic: str


async def invoke(payload: Question, context):
    return {answer}
"""
"""An agent that has a form, to be told its answer."""


async def test_what_was_typed_outlives_a_save(open_console: OpenConsole, tmp_path: Path) -> None:
    async with developing(tmp_path) as begin:
        dev = await (await begin(TYPED.format(answer="payload.topic"))).serving()
        console = await open_console(dev)
        console.forgive("ERR_", "503", "WebSocket")
        page = console.page
        topic = page.get_by_role("textbox", name="topic")
        await topic.fill("cats")
        dev.save("raise ValueError('too early')\n")
        failure = page.locator("#import-error")
        await expect(failure).to_be_visible(timeout=15_000)
        dev.save(TYPED.format(answer="payload.topic.upper()"))
        await expect(failure).to_be_hidden(timeout=15_000)
        await expect(topic).to_have_value("cats", timeout=15_000)
        await console.button("Run").click()
        await expect(page.get_by_label("Result")).to_have_text("CATS", timeout=15_000)


async def test_a_save_is_told_and_so_is_what_cannot_be_imported(
    open_console: OpenConsole, tmp_path: Path
) -> None:
    async with developing(tmp_path) as begin:
        dev = await (await begin(ANSWERS.format(answer="first"))).serving()
        console = await open_console(dev)
        console.forgive("ERR_", "503", "WebSocket")
        page = console.page
        await console.run("{}")
        await expect(page.get_by_label("Result")).to_have_text("first")

        dev.save("import asyncio\n\nraise ValueError('too early')\n")
        failure = page.locator("#import-error")
        await expect(failure).to_contain_text("agent.py, line 3", timeout=15_000)
        await expect(failure).to_contain_text("too early")
        await console.button("Run").click()
        refused = page.get_by_role("article", name="Run 2")
        await expect(refused).to_contain_text("import_failed", timeout=15_000)

        dev.save(ANSWERS.format(answer="second"))
        await expect(failure).to_be_hidden(timeout=15_000)
        told = page.get_by_text(re.compile(r"^restarted, \d\d:\d\d:\d\d$"))
        await expect(told.first).to_be_visible()
        await console.button("Run").click()
        run = page.get_by_role("article", name="Run 3")
        await expect(run.get_by_label("Result")).to_have_text("second", timeout=15_000)
