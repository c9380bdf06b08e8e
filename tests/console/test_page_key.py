"""Where the daemon wants a key, the page asks for one, and keeps it to itself."""

from playwright.async_api import expect

from tests.conftest import Running, Serve
from tests.support.agents import agent_of, echo
from tests.support.browser import IN_A_BROWSER, OpenConsole

pytestmark = IN_A_BROWSER


async def serve_locked(serve: Serve) -> Running:
    """Serve an echo to who has the key."""
    auth = {"api_keys": ["top-secret"], "query_parameter": "access_token"}
    return await serve(agent_of(echo), auth=auth)


async def test_a_key_is_asked_for_and_a_wrong_one_is_refused(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_locked(serve_console))
    key = console.page.get_by_label("API key")
    await expect(key).to_be_focused()
    await expect(console.page.locator("#connection")).to_have_text("needs a key")
    await expect(console.button("Run")).to_be_disabled()

    await key.fill("wrong")
    await console.button("Connect").click()
    await expect(console.page.locator("#key-trouble")).to_contain_text("refuses this key")
    console.forgive("401", "HTTP Authentication failed")

    await key.fill("top-secret")
    await console.button("Connect").click()
    await expect(key).to_be_hidden()
    await console.run('"hi"')
    await expect(console.page.get_by_label("Result")).to_have_text("hi")
    await expect(console.rows("Invocations")).to_contain_text("completed")
    await expect(console.region("Health").get_by_role("img", name="Sockets: now 1")).to_be_visible()


async def test_a_key_is_kept_in_memory_only(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_locked(serve_console))
    page = console.page
    await page.get_by_label("API key").fill("top-secret")
    await page.keyboard.press("Enter")
    await console.run('"hi"')
    await expect(page.get_by_label("Result")).to_have_text("hi")
    kept = await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert "hi" in kept
    assert "top-secret" not in kept
    assert "top-secret" not in await page.content()
    await page.reload()
    await expect(page.get_by_label("API key")).to_be_visible()
    await expect(page.get_by_label("API key")).to_have_value("")
