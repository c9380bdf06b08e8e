"""Runs stream, several at once, are stopped, and are copied as code that does the same."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from playwright.async_api import expect

from agentws import InvocationContext, InvocationError
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, each, echo, soon
from tests.support.browser import IN_A_BROWSER, Console, OpenConsole

pytestmark = IN_A_BROWSER


async def test_tokens_are_joined_as_they_stream(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    gate = Gate()
    console = await open_console(await serve_console(agent_of(gate.stream)))
    await console.run('[{"token": "Hel"}, {"token": "lo"}, {"delta": {"content": " there"}}]')
    run = console.page.get_by_role("article", name="Run 1")
    await expect(run.get_by_label("Text of the run")).to_have_text("Hel")
    await expect(run).to_contain_text("running")

    gate.opened.set()
    await expect(run.get_by_label("Text of the run")).to_have_text("Hello there")
    await expect(run).to_contain_text("completed")
    await expect(run).to_contain_text("3 chunks · first after")
    await expect(run).to_contain_text("nothing missing")
    await expect(run.get_by_role("button", name="Stop")).to_be_hidden()


async def test_chunks_without_text_are_shown_as_json(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(agent_of(each)))
    await console.run('[{"step": 1}, {"step": 2, "deep": [1, 2]}]')
    chunks = console.page.get_by_role("listbox", name="Chunks")
    await expect(chunks.get_by_role("option")).to_have_text(
        ['1{"step":1}', '2{"step":2,"deep":[1,2]}']
    )
    await chunks.get_by_role("option").nth(1).click()
    selected = console.page.get_by_label("The chunk that is selected")
    await expect(selected).to_contain_text('"step": 2')


async def test_markup_of_an_agent_is_text(serve_console: Serve, open_console: OpenConsole) -> None:
    console = await open_console(await serve_console(agent_of(each)))
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    await console.run(json.dumps([{"token": markup}]))
    await expect(console.page.get_by_label("Text of the run")).to_have_text(markup)
    assert await console.page.locator("img").count() == 0


async def test_runs_are_several_at_once_and_one_is_stopped(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    gate = Gate()
    console = await open_console(await serve_console(agent_of(gate.stream)))
    await console.run('["one"]')
    await console.run('["two"]')
    first = console.page.get_by_role("article", name="Run 1")
    second = console.page.get_by_role("article", name="Run 2")
    await expect(second.get_by_label("Text of the run")).to_have_text("two")

    await first.get_by_role("button", name="Stop").click()
    await soon(gate.cancelled)
    await expect(first).to_contain_text("cancelled")
    await expect(first).to_contain_text("reason: client")
    await expect(second).to_contain_text("running")

    gate.opened.set()
    await expect(second).to_contain_text("completed")


async def test_a_failure_is_told_with_its_code(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    async def fails(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "It begins"
        raise InvocationError("out_of_cheese", "There is no cheese left")

    console = await open_console(await serve_console(agent_of(fails)))
    await console.run("{}")
    run = console.page.get_by_role("article")
    await expect(run).to_contain_text("out_of_cheese: There is no cheese left")
    await expect(run.locator(".badge").first).to_have_text("failed")
    await expect(run.get_by_label("Text of the run")).to_have_text("It begins")


async def test_a_run_is_run_again_and_edited(
    serve_console: Serve, open_console: OpenConsole
) -> None:
    console = await open_console(await serve_console(agent_of(echo)))
    await console.run('{"n": 1}')
    run = console.page.get_by_role("article", name="Run 1")
    await run.get_by_role("button", name="Run again").click()
    await expect(console.page.get_by_role("article", name="Run 2")).to_contain_text("completed")
    await run.get_by_role("button", name="Edit and run").click()
    await expect(console.page.get_by_role("textbox", name="Payload")).to_be_focused()


async def copied(console: Console, name: str) -> str:
    """Copy the first run as something, and return what was copied."""
    await console.page.get_by_text("Copy as").first.click()
    await console.button(name).click()
    await expect(console.page.locator("#toast")).to_contain_text("Copied")
    text = await console.page.evaluate("navigator.clipboard.readText()")
    assert isinstance(text, str)
    return text


async def output_of(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_a_run_is_copied_as_what_does_the_same(
    serve_console: Serve, open_console: OpenConsole, tmp_path: Path
) -> None:
    async def told(payload: Any, context: InvocationContext) -> Any:
        return [payload, context.session_id]

    server = await serve_console(agent_of(told))
    console = await open_console(server, permissions=["clipboard-read", "clipboard-write"])
    await console.page.get_by_label("Session", exact=True).fill("s1")
    await console.run('{"text": "it\'s \\"quoted\\"", "yes": true, "no": null}')
    await expect(console.page.get_by_role("article")).to_contain_text("completed")
    expected = [{"text": 'it\'s "quoted"', "yes": True, "no": None}, "s1"]

    curl = await copied(console, "curl")
    if shutil.which("curl"):
        assert (
            json.loads(await output_of("sh", "-c", curl.replace("curl -N", "curl -sN"))) == expected
        )
    (tmp_path / "copied.py").write_text(await copied(console, "Python"))
    assert await output_of(sys.executable, str(tmp_path / "copied.py")) == f"{expected}\n"
    assert await copied(console, "agentws invoke") == (
        f"agentws invoke '{server.http}'"
        """ '{"text":"it'\\''s \\"quoted\\"","yes":true,"no":null}' --session 's1'"""
    )
    assert "client.invoke({" in await copied(console, "JavaScript")


async def test_a_run_is_exported(serve_console: Serve, open_console: OpenConsole) -> None:
    console = await open_console(await serve_console(agent_of(each)))
    await console.run('["a", "b"]')
    await expect(console.page.get_by_role("article")).to_contain_text("completed")
    await console.page.get_by_text("Copy as").click()
    async with console.page.expect_download() as download:
        await console.button("Export as JSON").click()
    saved = await (await download.value).path()
    exported = json.loads(await asyncio.to_thread(saved.read_text))
    assert exported["status"] == "completed"
    assert exported["payload"] == ["a", "b"]
    assert exported["chunks"] == [{"number": 1, "payload": "a"}, {"number": 2, "payload": "b"}]
