"""One's own invocations are listed, live, and can be opened, attached to and cancelled."""

from playwright.async_api import expect

from tests.conftest import Serve
from tests.support.agents import Gate, agent_of
from tests.support.browser import IN_A_BROWSER, OpenConsole
from tests.support.redis_server import RedisServer

pytestmark = IN_A_BROWSER


async def test_invocations_are_listed_live_and_filtered(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    gate = Gate()
    server = await serve_console(agent_of(gate.stream))
    console = await open_console(server)
    page, rows = console.page, console.rows("Invocations")
    async with server.connect() as other:
        await other.send(action="invoke", invocation_id="i1", session_id="s1", payload=["a", "b"])
        await other.until(type="stream_chunk")
        await console.run('["mine"]')
        await expect(rows).to_have_count(2)
        await expect(rows.nth(1)).to_contain_text("runningi1")
        await expect(rows.nth(1)).to_contain_text("s1")

        await page.get_by_label("Session of invocation").fill("s1")
        await expect(rows).to_have_count(1)
        gate.opened.set()
        await expect(rows).to_contain_text("completed")
        await expect(rows).to_contain_text("2 chunks")
        await page.get_by_label("Status of invocation").select_option("running")
        await expect(rows).to_have_count(0)
        await expect(console.region("Invocations")).to_contain_text("No invocation passes")


async def test_an_invocation_is_opened_attached_to_and_cancelled(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    gate = Gate()
    server = await serve_console(agent_of(gate.stream))
    console = await open_console(server)
    page = console.page
    async with server.connect() as other:
        await other.send(action="invoke", invocation_id="i1", payload=["a", "b"])
        await other.until(type="stream_chunk")
        await console.rows("Invocations").click()
        await console.button("Open").click()
        dialog = page.get_by_role("dialog", name="Invocation i1")
        await expect(dialog).to_contain_text('"status": "running"')
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()

        await console.region("Invocations").get_by_role("button", name="Attach").click()
        run = page.get_by_role("article", name="Run 1")
        await expect(run).to_contain_text("attached after 0")
        await expect(run.get_by_label("Text of the run")).to_have_text("a")

        await console.button("Cancel invocation").click()
        await expect(run).to_contain_text("cancelled")
        await expect(console.rows("Invocations")).to_contain_text("cancelled")


async def test_invocations_of_other_replicas_are_listed_and_followed(
    serve_console: Serve, open_console: OpenConsole, redis: RedisServer
) -> None:
    gate = Gate()
    store = {"url": redis.url}
    other, mine = [await serve_console(agent_of(gate.stream), store=store) for _ in range(2)]
    console = await open_console(mine)
    async with other.connect() as client:
        await client.send(action="invoke", invocation_id="i1", payload=["a", "b"])
        await client.until(type="stream_chunk")
        await console.rows("Invocations").click()
        await console.region("Invocations").get_by_role("button", name="Attach").click()
        run = console.page.get_by_role("article", name="Run 1")
        await expect(run.get_by_label("Text of the run")).to_have_text("a")
        gate.opened.set()
        await expect(run.get_by_label("Text of the run")).to_have_text("ab")
        await expect(console.rows("Invocations")).to_contain_text("completed")


async def test_an_invocation_is_attached_to_after_a_chunk(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    gate = Gate()
    gate.opened.set()
    server = await serve_console(agent_of(gate.stream))
    console = await open_console(server)
    async with server.connect() as other:
        await other.send(action="invoke", invocation_id="i1", payload=["a", "b", "c"])
        await other.until(type="stream_end")
    await console.rows("Invocations").click()
    await console.page.get_by_label("after").fill("2")
    await console.region("Invocations").get_by_role("button", name="Attach").click()
    run = console.page.get_by_role("article", name="Run 1")
    await expect(run.get_by_label("Text of the run")).to_have_text("c")
    await expect(run).to_contain_text("1 chunk · first after")
    await expect(run).to_contain_text("nothing missing")
