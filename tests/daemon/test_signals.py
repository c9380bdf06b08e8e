"""Signals at odd times: a second one, and those that come before the daemon serves."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.daemon.conftest import SIGNALS, SOON
from tests.deploy.programs import need
from tests.support.processes import PATIENCE, Daemon, Start

FOREVER = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        log.info("entered")
        await asyncio.Event().wait()
"""


@SIGNALS
async def test_a_second_signal_ends_it_at_once(launch: Start, number: signal.Signals) -> None:
    daemon = await launch(FOREVER, server__shutdown_grace=600)
    async with daemon.connect() as client:
        await client.send(action="invoke")
        await daemon.line(message="entered")
        daemon.send(number)
        await client.until(type="going_away")
        async with asyncio.timeout(SOON):
            await daemon.insist(number)
    assert await daemon.exit_code() == 128 + number


@SIGNALS
@pytest.mark.parametrize("blocking", ["time.sleep(600)", "while True: pass"])
async def test_a_second_signal_ends_it_while_a_handler_blocks_the_loop(
    launch: Start, number: signal.Signals, blocking: str
) -> None:
    daemon = await launch(
        f"""\
        @agent.invoke_handler
        async def invoke(payload, context):
            log.info("entered")
            {blocking}
        """
    )
    async with daemon.connect() as client:
        await client.send(action="invoke")
        await daemon.line(message="entered")
        async with asyncio.timeout(SOON):
            await daemon.insist(number)
    assert await daemon.exit_code() == 128 + number


# --- before it serves -------------------------------------------------------------------------


@SIGNALS
async def test_a_signal_during_a_slow_start_ends_it_with_0(
    start: Start, number: signal.Signals
) -> None:
    daemon = await start(
        """\
        @agent.startup_handler
        async def begin():
            log.info("starting")
            await asyncio.sleep(600)
        """
    )
    await daemon.line(message="starting")
    started = time.monotonic()
    daemon.send(number)
    assert await daemon.exit_code() == 0
    assert time.monotonic() - started < SOON
    assert await daemon.complaints() == ""


async def test_a_second_signal_during_a_start_that_blocks_ends_it(start: Start) -> None:
    daemon = await start(
        """\
        @agent.startup_handler
        async def begin():
            log.info("starting")
            time.sleep(600)
        """
    )
    await daemon.line(message="starting")
    async with asyncio.timeout(SOON):
        await daemon.insist(signal.SIGTERM)
    assert await daemon.exit_code() == 143


SLOW_IMPORTS = {
    "blocking": "time.sleep(600)",
    "computing": """\
while True:
    pass
""",
    "swallowing what is raised": """\
try:
    time.sleep(600)
except BaseException:
    pass
""",
    "with a thread of its own": """\
threading.Thread(target=time.sleep, args=[600]).start()
time.sleep(600)
""",
}


IMPORTING = 'print(\'{"message": "importing"}\', flush=True)\n'


@SIGNALS
@pytest.mark.parametrize("source", SLOW_IMPORTS.values(), ids=SLOW_IMPORTS)
async def test_a_signal_while_the_agent_is_imported_ends_it_with_0(
    start: Start, number: signal.Signals, source: str
) -> None:
    daemon = await start(IMPORTING + source)
    await daemon.line(message="importing")
    daemon.send(number)
    async with asyncio.timeout(PATIENCE):
        assert await daemon.exit_code() == 0
    assert await daemon.complaints() == ""


async def test_a_second_signal_ends_an_import_that_ignores_the_first(start: Start) -> None:
    source = """\
while True:
    try:
        print('{"message": "importing"}', flush=True)
        time.sleep(600)
    except BaseException:
        pass
"""
    daemon = await start(source)
    await daemon.line(message="importing")
    await daemon.insist(signal.SIGTERM)
    assert await daemon.exit_code() == 143


PROCESS_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""What runs a command as process number 1 among its own, whose unhandled signals are dropped."""


def child_of(daemon: Daemon) -> int:
    pid = daemon.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


async def test_a_signal_while_process_1_imports_the_agent_ends_it_with_0(start: Start) -> None:
    need("unshare", as_root=True)
    daemon = await start(IMPORTING + "time.sleep(600)", prefix=PROCESS_1)
    await daemon.line(message="importing")
    os.kill(child_of(daemon), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await daemon.exit_code() == 0
