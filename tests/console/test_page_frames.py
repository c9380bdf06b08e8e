"""Frames are shown both ways, without credentials."""

from collections.abc import AsyncGenerator
from typing import Any

from playwright.async_api import expect

from agentws import InvocationContext
from tests.conftest import Serve
from tests.support.agents import agent_of, each
from tests.support.browser import IN_A_BROWSER, OpenConsole

pytestmark = IN_A_BROWSER


async def test_frames_are_shown_both_ways_and_filtered(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    server = await serve_console(agent_of(each))
    console = await open_console(server, permissions=["clipboard-read", "clipboard-write"])
    page, frames = console.page, console.region("Frames")
    await console.run('["a", "b"]')
    rows = console.rows("Frames")
    await expect(rows).to_have_count(5)
    await expect(rows.nth(0)).to_contain_text("sentinvoke")
    await expect(rows.nth(4)).to_contain_text("receivedstream_end")

    await page.get_by_label("Type of frame").select_option("stream_chunk")
    await expect(rows).to_have_count(2)
    await rows.nth(1).click()
    await expect(frames).to_contain_text("stream_chunk, received")
    await expect(page.locator("#frame-text")).to_contain_text('"payload": "b"')
    await console.button("Copy frame").click()
    assert '"payload":"b"' in await page.evaluate("navigator.clipboard.readText()")
    await page.get_by_label("Type of frame").select_option("")

    await console.run('["c"]')
    await expect(rows).to_have_count(9)
    title = await page.get_by_role("article", name="Run 1").locator(".id").get_attribute("title")
    await page.get_by_label("Invocation of frame").fill(title or "?")
    await expect(rows).to_have_count(5)
    await page.get_by_label("Invocation of frame").fill("nobody's")
    await expect(frames).to_contain_text("No frame passes the filter.")


async def test_frames_are_paused_copied_and_cleared(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    server = await serve_console(agent_of(each))
    console = await open_console(server, permissions=["clipboard-read", "clipboard-write"])
    frames = console.region("Frames")
    rows = console.rows("Frames")
    await console.run('["a"]')
    await expect(rows).to_have_count(4)
    await console.button("Pause").click()
    await console.run('["b"]')
    await expect(console.page.get_by_role("article", name="Run 2")).to_contain_text("completed")
    await expect(rows).to_have_count(4)
    await console.button("Pause").click()
    await expect(rows).to_have_count(8)

    await frames.get_by_role("button", name="Copy", exact=True).click()
    copied = await console.page.evaluate("navigator.clipboard.readText()")
    assert copied.count("\n") == 7
    await frames.get_by_role("button", name="Clear").click()
    await expect(rows).to_have_count(0)


async def test_the_key_is_in_no_frame(serve_console: Serve, open_console: OpenConsole) -> None:
    async def tells(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield dict(context.query)

    server = await serve_console(
        agent_of(tells),
        auth={"api_keys": ["top-secret"], "query_parameter": "access_token"},
    )
    console = await open_console(server, permissions=["clipboard-read", "clipboard-write"])
    await console.page.get_by_label("API key").fill("top-secret")
    await console.page.keyboard.press("Enter")
    await expect(console.page.locator("#connection")).to_have_text("connected")
    await console.run("{}")
    await expect(console.page.get_by_role("article")).to_contain_text("completed")
    await console.page.get_by_label("Type of frame").select_option("stream_chunk")
    frames = console.region("Frames")
    await console.rows("Frames").click()
    await frames.get_by_role("button", name="Copy", exact=True).click()
    assert "top-secret" not in await frames.inner_text()
    assert "top-secret" not in await console.page.evaluate("navigator.clipboard.readText()")


async def test_a_frame_from_the_future_is_passed_over_and_shown(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(agent_of(each)))

    def tell(socket: Any) -> None:
        upstream = socket.connect_to_server()
        upstream.on_message(socket.send)
        socket.on_message(upstream.send)
        socket.send('{"type": "telepathy", "invocation_id": "i", "thought": 1}')

    await console.page.route_web_socket("**/invocations_ws/ws*", tell)
    await console.page.reload()
    await console.run('["a"]')
    await expect(console.page.get_by_role("article")).to_contain_text("completed")
    await expect(console.rows("Frames").first).to_contain_text("telepathy")
