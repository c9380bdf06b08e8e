"""Nothing is left of it, however it ends."""

import asyncio
import os
import signal

import pytest

from tests.support.development import ANSWERS, Develop, ended, until
from tests.support.processes import PATIENCE

STUBBORN = """
import asyncio, subprocess

async def invoke(payload, context):
    while True:
        try:
            print("runs", flush=True)
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
"""
BLOCKING = """
import time

async def invoke(payload, context):
    print("runs", flush=True)
    time.sleep(3600)
"""


async def test_ctrl_c_while_nothing_runs(develop: Develop) -> None:
    dev = await develop(ANSWERS.format(answer=1))
    await dev.end_well()
    assert await dev.process.stderr.read() == b""  # type: ignore[union-attr]


async def test_ctrl_c_at_once(begin: Develop) -> None:
    dev = await begin(ANSWERS.format(answer=1))
    await until(lambda: dev.children)
    dev.interrupt()
    assert await dev.exit_code() == 0
    assert await dev.process.stderr.read() == b""  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("how", "source"),
    [
        ("Ctrl-C", STUBBORN),
        ("Ctrl-C twice", STUBBORN),
        ("SIGTERM", BLOCKING),
        ("SIGKILL", BLOCKING),
    ],
)
async def test_while_a_handler_will_not_end(develop: Develop, how: str, source: str) -> None:
    dev = await develop(source)
    async with asyncio.timeout(PATIENCE), dev.connect(close_timeout=0.1) as client:
        await client.send(action="invoke", payload={})
        await dev.says("runs")
        children = dev.children
        match how:
            case "Ctrl-C":
                dev.interrupt()
            case "Ctrl-C twice":
                dev.interrupt()
                await asyncio.sleep(0.1)
                dev.interrupt()
            case _:
                os.kill(dev.process.pid, getattr(signal, how))
        code = await dev.process.wait()
        await ended(children)
    expected = {"Ctrl-C twice": 128 + signal.SIGINT, "SIGKILL": -signal.SIGKILL}
    assert code == expected.get(how, 0)
