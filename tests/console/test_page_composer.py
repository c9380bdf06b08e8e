"""Payloads are written as JSON, or in a form where the agent has declared types."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from playwright.async_api import expect

from agentws import Agent, InvocationContext
from tests.conftest import Serve
from tests.support.agents import agent_of, echo
from tests.support.browser import IN_A_BROWSER, OpenConsole

pytestmark = IN_A_BROWSER


async def test_json_errors_are_told_in_their_place(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(agent_of(echo)))
    await console.run('{"message": "hi"\n "n": 1}')

    alert = console.page.get_by_role("alert")
    await expect(alert).to_contain_text("Line 2, column 2: Expected ',' or '}'")
    payload = console.page.get_by_role("textbox", name="Payload")
    await expect(payload).to_be_focused()
    await expect(payload).to_have_attribute("aria-invalid", "true")
    await expect(console.page.get_by_role("article")).to_have_count(0)

    await payload.fill('{"message": "hi", "n": 1}')
    await expect(alert).to_be_hidden()


async def test_json_errors_are_told_when_somebody_has_stopped_typing(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(agent_of(echo)))
    await console.page.get_by_role("textbox", name="Payload").fill("{")
    await expect(console.page.get_by_role("alert")).to_contain_text("Line 1, column 2")


async def test_a_text_that_is_no_json_can_be_made_a_message(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(agent_of(echo)))
    await console.run("hello there")
    await console.button("Make it a message").click()
    await console.button("Run").click()
    run = console.page.get_by_role("article")
    await expect(run.get_by_label("Result")).to_have_text("hello there")


async def test_options_go_with_an_invoke(serve_console: Serve, open_console: OpenConsole) -> None:
    async def session(payload: Any, context: InvocationContext) -> str:
        return context.session_id

    console = await open_console(await serve_console(agent_of(session)))
    page = console.page
    await page.get_by_label("Session", exact=True).fill("of-mine")
    await page.get_by_label("On disconnect").select_option("continue")
    await page.get_by_label("If session busy").select_option("reject")
    await console.run("{}")
    await expect(page.get_by_label("Result")).to_have_text("of-mine")
    await console.rows("Frames").filter(has_text="invoke").first.click()
    text = await page.locator("#frame-text").inner_text()
    assert '"on_disconnect": "continue"' in text
    assert '"if_session_busy": "reject"' in text

    await console.button("New session").click()
    session_id = await page.get_by_label("Session", exact=True).input_value()
    assert session_id.startswith("console-")
    await page.get_by_label("Background").check()
    await console.button("Run").click()
    await expect(page.get_by_role("article").first).to_contain_text("background")


async def test_payloads_are_kept_until_they_are_cleared(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(agent_of(echo)))
    page = console.page
    await console.run('{"n": 1}')
    await console.run('{"n": 2}')
    await page.reload()
    await page.get_by_text("History 2").wait_for()
    await page.get_by_role("button", name='Run again: {"n":1}').click()
    await expect(page.get_by_label("Result")).to_contain_text('"n": 1')

    await page.get_by_role("button", name='Edit and run: {"n":2}').click()
    payload = page.get_by_role("textbox", name="Payload")
    await expect(payload).to_be_focused()
    await expect(payload).to_have_value('{\n  "n": 2\n}')

    await console.button("Clear history").click()
    await page.reload()
    await expect(console.button("Run")).to_be_visible()
    await expect(page.get_by_text("History", exact=True)).to_be_hidden()


class Place(Struct):
    """Where it is."""

    city: str


class Question(Struct):
    """What is asked."""

    message: str
    temperature: Annotated[float, Meta(ge=0, le=2, description="How wild")] = 1.0
    style: Literal["short", "long"] = "short"
    loud: bool = False
    place: Place | None = None
    tags: list[str] = []


def typed_agent() -> Agent:
    """Return an agent that streams what it was given, in words of its type."""
    agent = Agent()

    @agent.invoke_handler
    async def invoke(payload: Question, context: InvocationContext) -> AsyncIterator[str]:
        yield repr(payload)

    return agent


async def test_a_form_is_drawn_from_the_types_of_the_agent(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(typed_agent()))
    page = console.page
    await page.get_by_label("message").fill("hi")
    await page.get_by_label("temperature").fill("3")
    await console.button("Run").click()
    await expect(page.get_by_role("alert")).to_contain_text("temperature: ")
    await expect(page.get_by_label("temperature")).to_be_focused()

    await page.get_by_label("temperature").fill("0.5")
    await page.get_by_label("style").select_option("long")
    await page.get_by_label("loud").check()
    await page.get_by_label("tags").fill('["a", "b"]')
    await console.button("Run").click()
    await expect(page.get_by_label("Text of the run")).to_have_text(
        "Question(message='hi', temperature=0.5, style='long', loud=True,"
        " place=None, tags=['a', 'b'])"
    )


async def test_form_and_json_are_two_views_of_a_payload(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(typed_agent()))
    page = console.page
    await page.get_by_label("message").fill("hi")
    await page.get_by_label("city").fill("Rome")
    await console.button("JSON").click()
    payload = page.get_by_role("textbox", name="Payload")
    await expect(payload).to_have_value(
        '{\n  "message": "hi",\n  "style": "short",\n  "place": {\n    "city": "Rome"\n  }\n}'
    )
    await payload.fill('{"message": "ho", "temperature": 2}')
    await console.button("Form").click()
    await expect(page.get_by_label("message")).to_have_value("ho")
    await expect(page.get_by_label("temperature")).to_have_value("2")
    await expect(page.get_by_label("city")).to_have_value("")

    await console.button("JSON").click()
    await payload.fill('{"message": "ho", "unheard_of": 1}')
    await console.button("Form").click()
    await expect(page.get_by_role("alert")).to_contain_text("The form has no place for this")
    await expect(payload).to_be_visible()
