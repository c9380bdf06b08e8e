"""Who blocks the event loop is told."""

import asyncio
import inspect
import json
import logging
import signal
import threading
import time
from collections.abc import Callable

import pytest

from agentws.daemon import stalls
from agentws.daemon.stalls import BEAT, LONGEST_PAUSE, StallWatch
from tests.conftest import LogLines
from tests.daemon.conftest import ECHO
from tests.support.processes import Start

LONG = LONGEST_PAUSE + 3 * BEAT


def nobody(_delay: float) -> None:
    """Listens to no delay."""


def sleep() -> None:
    time.sleep(LONG)  # the line that is told


def wait_in_the_library() -> None:
    json.loads("1", parse_int=lambda _: threading.Event().wait(LONG))  # the line that is told


def hold_the_interpreter() -> None:
    numbers = range(10_000_000)
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        sum(numbers)  # the line that is told


def line_of(function: Callable[[], None]) -> str:
    lines, first = inspect.getsourcelines(function)
    (offset,) = [number for number, line in enumerate(lines) if "that is told" in line]
    return f"{__file__}:{first + offset} in {function.__qualname__}"


@pytest.mark.parametrize("block", [sleep, wait_in_the_library, hold_the_interpreter])
async def test_what_blocks_the_event_loop_is_told_with_its_line(
    log_lines: LogLines, block: Callable[[], None]
) -> None:
    with StallWatch(nobody):
        while not log_lines.records:  # where others take the CPU, it is nobody's fault: not told
            await asyncio.sleep(0)
            block()
        line = await log_lines.next("agentws.stalls")
    assert line.levelno == logging.WARNING
    where = line_of(block)
    assert where in line.getMessage()
    assert line.__dict__["blocked_by"].startswith(where)
    assert any(where in place for place in line.__dict__["stack"])


async def test_it_is_told_once_a_minute(log_lines: LogLines) -> None:
    with StallWatch(nobody) as watch:
        for _ in range(2):
            sleep()
            await asyncio.sleep(0)
        assert [record.name for record in log_lines.records] == ["agentws.stalls"]
        watch._reported_at -= stalls.REPORT_PAUSE  # noqa: SLF001 - a minute later
        sleep()
        assert len(log_lines.records) == 2


async def test_work_that_lets_others_have_their_turn_is_not_told(log_lines: LogLines) -> None:
    with StallWatch(nobody):
        until = time.monotonic() + 2 * LONG
        while time.monotonic() < until:
            time.sleep(BEAT / 5)  # noqa: ASYNC251
            await asyncio.sleep(0)
    assert not log_lines.records


async def test_how_late_the_loop_is_is_told_with_each_beat() -> None:
    told: asyncio.Queue[float] = asyncio.Queue()
    with StallWatch(told.put_nowait):
        assert await told.get() < LONGEST_PAUSE
        sleep()
        assert LONG - 2 * BEAT < await told.get() < LONG + BEAT


async def test_it_leaves_nothing_behind(log_lines: LogLines) -> None:
    before = set(threading.enumerate())
    with StallWatch(nobody):
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon
    sleep()
    await asyncio.to_thread(thread.join)
    assert not log_lines.records


# --- in a process -----------------------------------------------------------------------------


async def test_a_handler_that_blocks_the_loop_is_told(launch: Start) -> None:
    source = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        time.sleep(1.5)
        return payload
    """
    daemon = await launch(source)
    async with daemon.connect() as client:
        await client.send(action="invoke")
        line = await daemon.line(logger="agentws.stalls")
        assert line["level"] == "WARNING"
        assert line["blocked_by"].endswith("agent.py:9 in invoke")
        assert line["stack"][0] == line["blocked_by"]
        assert (await client.receive())["type"] == "result"


async def test_a_process_that_was_stopped_blames_nobody(launch: Start) -> None:
    daemon = await launch(ECHO)
    async with daemon.connect() as client:
        assert (await client.ask(action="ping"))["type"] == "pong"
        daemon.send(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        daemon.send(signal.SIGCONT)
        assert (await client.ask(action="ping"))["type"] == "pong"
    daemon.send(signal.SIGTERM)
    assert "agentws.stalls" not in {line["logger"] for line in await daemon.rest()}
