"""The page is for everybody: by keyboard, by ear, in the dark, and on a small screen."""

from importlib.resources import files
from typing import Any, Literal

import pytest
from playwright.async_api import expect

from tests.conftest import Serve
from tests.console.test_page_questions import asks
from tests.support.agents import Gate, agent_of, each
from tests.support.browser import IN_A_BROWSER, Console, OpenConsole

pytestmark = IN_A_BROWSER

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()


async def violations(console: Console) -> list[Any]:
    """Return what axe-core finds fault with: the rule and the elements."""
    await console.page.evaluate(AXE)
    found = await console.page.evaluate("axe.run()")
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_fault(
    serve_console: Serve, open_console: OpenConsole, scheme: Literal["light", "dark"]
) -> None:
    streams = await open_console(await serve_console(agent_of(each)), color_scheme=scheme)
    assert await violations(streams) == []
    await streams.run("[")
    await streams.run('["some ", "text"]')
    await streams.run('[{"n": 1}, {"n": 2}]')
    await streams.run('"not a list, which fails"')
    await expect(streams.rows("Invocations")).to_have_count(3)
    await streams.rows("Frames").first.click()
    await streams.rows("Invocations").first.click()
    await streams.page.get_by_text("Copy as").first.click()
    assert await violations(streams) == []
    await streams.page.keyboard.press("Escape")
    await streams.button("Keys").click()
    assert await violations(streams) == []

    questions = await open_console(await serve_console(agent_of(asks)), color_scheme=scheme)
    await questions.run("{}")
    await expect(questions.page.get_by_role("form", name="Question")).to_be_visible()
    await questions.page.get_by_role("button", name="Answer").click()
    await questions.button("Drop for 10 s").click()
    await expect(questions.page.locator("#down")).to_be_visible()
    assert await violations(questions) == []


async def test_all_is_done_by_keyboard(serve_console: Serve, open_console: OpenConsole) -> None:
    console = await open_console(await serve_console(agent_of(asks)))
    page, keyboard = console.page, console.page.keyboard
    await expect(page.locator("#connection")).to_have_text("connected")
    await keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)

    await keyboard.press("p")
    await expect(page.get_by_role("textbox", name="Payload")).to_be_focused()
    await keyboard.press("Control+Enter")
    question = page.get_by_role("form", name="Question")
    await expect(question).to_be_visible()
    await page.evaluate("document.activeElement.blur()")
    await keyboard.press("r")
    for _ in range(20):
        if await question.get_by_label("approve").evaluate("it => it === document.activeElement"):
            break
        await keyboard.press("Tab")
    await keyboard.press("Space")
    await keyboard.press("Tab")
    await keyboard.type("2")
    await keyboard.press("Enter")
    await expect(page.get_by_label("Result")).to_have_text("True 2")

    await page.evaluate("document.activeElement.blur()")
    await keyboard.press("f")
    await expect(console.region("Frames")).to_be_focused()
    await console.page.get_by_role("listbox", name="Frames").focus()
    await keyboard.press("Home")
    await keyboard.press("ArrowDown")
    await expect(console.rows("Frames").nth(1)).to_have_attribute("aria-selected", "true")
    await expect(page.locator("#frame-title")).to_contain_text("accepted, received")


async def test_single_letters_can_be_switched_off(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(agent_of(each)))
    await expect(console.page.locator("#connection")).to_have_text("connected")
    await console.button("Keys").click()
    await console.page.get_by_label("Single letters are keys").uncheck()
    await console.button("Close").click()
    await console.page.evaluate("document.activeElement.blur()")
    await console.page.keyboard.press("p")
    await expect(console.page.get_by_role("textbox", name="Payload")).not_to_be_focused()


@pytest.mark.parametrize("wish", ["reduce", "no-preference"])
async def test_nothing_moves_where_that_is_not_wanted(
    serve_console: Serve, open_console: OpenConsole, wish: Literal["reduce", "no-preference"]
) -> None:
    gate = Gate()
    console = await open_console(await serve_console(agent_of(gate.stream)), reduced_motion=wish)
    await console.run('["a"]')
    await expect(console.page.get_by_role("article")).to_contain_text("running")
    moving = await console.page.evaluate("document.getAnimations().length")
    assert moving == (0 if wish == "reduce" else 1)


@pytest.mark.parametrize("width", [360, 1000, 1600])
async def test_nothing_is_wider_than_the_screen(
    serve_console: Serve, open_console: OpenConsole, width: int
) -> None:
    console = await open_console(await serve_console(agent_of(each)), width=width)
    word = "x" * 3000
    await console.run(f'["{word}", {{"token": "{word}"}}]')
    await console.run(f'[{{"field": "{word}"}}]')
    await console.run(f'"{word}"')
    await expect(console.rows("Invocations")).to_have_count(3)
    await console.rows("Frames").last.click()
    await console.rows("Invocations").first.click()
    assert await console.page.evaluate("document.documentElement.scrollWidth") == width
