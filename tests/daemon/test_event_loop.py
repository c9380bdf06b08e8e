"""Which event loop runs, and what it survives."""

import signal
from pathlib import Path

import pytest

from tests.support.processes import Start

TELLING = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        return type(asyncio.get_running_loop()).__module__
"""


@pytest.mark.parametrize(
    ("event_loop", "installed", "module"),
    [
        ("auto", True, "uvloop"),
        ("auto", False, "agentws.daemon"),
        ("uvloop", True, "uvloop"),
        ("asyncio", True, "agentws.daemon"),
    ],
)
async def test_the_event_loop_is_the_one_of_the_settings(
    launch: Start, tmp_path: Path, event_loop: str, installed: bool, module: str
) -> None:
    if not installed:
        (tmp_path / "uvloop.py").write_text("raise ImportError")
    daemon = await launch(TELLING, server__event_loop=event_loop)
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke"))["payload"].startswith(module)


async def test_an_event_loop_that_is_not_installed_is_one_sentence_and_exit_code_2(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "uvloop.py").write_text("raise ModuleNotFoundError('No module named uvloop')")
    daemon = await start(TELLING, server__event_loop="uvloop")
    assert await daemon.complaints() == (
        "agentws: server.event_loop is uvloop, which cannot be imported (No module named uvloop): "
        "install agentws[uvloop]\n"
    )
    assert await daemon.exit_code() == 2


LOOPS = pytest.mark.parametrize("event_loop", ["uvloop", "asyncio"])


@LOOPS
async def test_names_are_resolved_while_the_agent_keeps_all_threads_busy(
    launch: Start, event_loop: str
) -> None:
    source = """\
    from concurrent.futures import ThreadPoolExecutor

    @agent.invoke_handler
    async def invoke(payload, context):
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        agent.blocked = asyncio.create_task(asyncio.to_thread(time.sleep, 600))
        await asyncio.sleep(0)
        return len(await loop.getaddrinfo("localhost", 80))
    """
    daemon = await launch(source, server__event_loop=event_loop)
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke"))["payload"] > 0


@pytest.mark.parametrize("error", ["SystemExit(5)", "KeyboardInterrupt()"])
@pytest.mark.parametrize("place", ["task", "callback"])
@LOOPS
async def test_what_a_child_of_a_handler_raises_does_not_end_it(
    launch: Start, error: str, place: str, event_loop: str
) -> None:
    daemon = await launch(
        f"""\
        def fail():
            log.info("failing")
            raise {error}

        async def child():
            fail()

        @agent.invoke_handler
        async def invoke(payload, context):
            if payload == "task":
                agent.child = asyncio.create_task(child())
            elif payload == "callback":
                asyncio.get_running_loop().call_soon(fail)
            return payload
        """,
        server__event_loop=event_loop,
    )
    async with daemon.connect() as client:
        for _ in range(3):
            assert (await client.ask(action="invoke", payload=place))["payload"] == place
            await daemon.line(message="failing")
            assert (await client.ask(action="invoke", payload=1))["payload"] == 1
    await daemon.end_well()


@LOOPS
async def test_a_handler_that_stops_the_loop_does_not_end_it(
    launch: Start, event_loop: str
) -> None:
    daemon = await launch(
        """\
        @agent.invoke_handler
        async def invoke(payload, context):
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0.01)
            return payload
        """,
        server__event_loop=event_loop,
    )
    async with daemon.connect() as client:
        for number in range(3):
            assert (await client.ask(action="invoke", payload=number))["payload"] == number
        line = await daemon.line(logger="agentws.daemon")
        assert (line["level"], "stopped the event loop" in line["message"]) == ("ERROR", True)
        daemon.send(signal.SIGTERM)
        assert (await client.receive())["type"] == "going_away"
    assert await daemon.exit_code() == 0
    assert await daemon.complaints() == ""


async def test_a_handler_that_cancels_all_tasks_does_not_end_it(launch: Start) -> None:
    daemon = await launch(
        """\
        @agent.invoke_handler
        async def invoke(payload, context):
            for task in asyncio.all_tasks():
                task.cancel()
        """
    )
    async with daemon.connect() as client:
        await client.send(action="invoke")
        await client.connection.wait_closed()
    async with daemon.connect() as client:
        assert (await client.ask(action="ping"))["type"] == "pong"
    await daemon.end_well()
