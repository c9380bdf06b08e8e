"""What is saved is served, by another process, at once; nobody is refused meanwhile."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from tests.support.development import ANSWERS, Develop, ended
from tests.support.waiting import eventually

SOON = 1.0
"""Seconds after which a save is served."""


def answering(answer: object) -> str:
    return ANSWERS.format(answer=answer)


async def test_saves_are_served_within_a_second(develop: Develop) -> None:
    dev = await develop(answering("first"))
    assert await dev.ask() == "first"
    took = []
    for number in range(10):  # of one size, and soon: what is compiled is old
        saved_at = time.monotonic()
        dev.save(answering(f"save{number}"))
        others = await dev.answers(f"save{number}")
        took.append(time.monotonic() - saved_at)
        assert set(others) <= {f"save{number - 1}" if number else "first"}
        await dev.says(r"^\d\d:\d\d:\d\d restarted in \d+\.\d\d s: agent.py has changed$")
        if number > 1 and min(took) < SOON:
            break  # else others keep the machine busy
    assert min(took) < SOON
    await dev.end_well()


async def test_another_process_serves_and_the_old_one_has_a_second(develop: Develop) -> None:
    dev = await develop("""
import asyncio, os

async def invoke(payload, context):
    print("pid", os.getpid(), flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            print("stubborn", flush=True)
""")
    asking = asyncio.create_task(dev.ask())
    pid = int((await dev.says(r"pid (\d+)"))[1])
    (old,) = (child for child in dev.children if child.pid == pid)
    saved_at = time.monotonic()
    dev.save(answering("new"))
    await dev.says("restarted")
    await dev.answers("new")
    await ended([old])
    assert time.monotonic() - saved_at < 4 * SOON
    with pytest.raises(aiohttp.ClientError):
        await asking
    await dev.end_well()


async def test_a_handler_that_blocks_holds_up_nothing(develop: Develop) -> None:
    dev = await develop("""
import time
from pathlib import Path

async def invoke(payload, context):
    print("blocks", flush=True)
    time.sleep(3600)
""")
    asking = asyncio.create_task(dev.ask())
    await dev.says("blocks")
    dev.save(answering("new"))
    await dev.says("restarted")
    await dev.answers("new")
    asking.cancel()
    await asyncio.wait({asking})
    await dev.end_well()


async def test_clients_are_told_of_the_restart_and_come_back(develop: Develop) -> None:
    dev = await develop("""
import asyncio

async def invoke(payload, context):
    yield 1
    await asyncio.sleep(3600)
""")
    async with dev.connect() as client:
        await client.send(action="invoke", payload={}, invocation_id="i")
        await client.until(type="stream_chunk")
        dev.save(answering("new"))
        assert (await client.until(type="going_away"))["reason"] == "shutdown"
        assert await client.closed() == 1001
    async with dev.connect() as client:
        await client.send(action="attach_invocation", invocation_id="i")
        assert (await client.until(type="error"))["error"]["code"] == "not_found"
        await client.send(action="invoke", payload={})
        assert (await client.until(type="result"))["payload"] == "new"
    await dev.end_well()


async def test_several_files_at_once_are_one_restart(develop: Develop) -> None:
    dev = await develop(answering("old"), target="agent:invoke")
    dev.save("ANSWER = 'new'", "parts.py")
    dev.save("from parts import ANSWER\n\nasync def invoke(payload, context):\n    return ANSWER")
    assert (await dev.says("restarted.*"))[0].endswith("agent.py and 1 more has changed")
    await dev.answers("new")
    await dev.end_well()


async def test_saves_in_quick_succession_end_with_the_last(develop: Develop) -> None:
    dev = await develop(answering(0))
    for number in range(1, 11):
        dev.save(answering(number))
        await asyncio.sleep(0.05)  # as somebody's hand, or a formatter's, might
    await dev.answers(10)
    await dev.end_well()
    assert dev.process.stderr is not None
    assert b"Traceback" not in await dev.process.stderr.read()


READS_A_PROMPT = """
from pathlib import Path

PROMPT = Path(__file__).with_name("prompt.txt")

async def invoke(payload, context):
    return PROMPT.read_text() if PROMPT.exists() else "none"
"""


async def test_other_files_count_but_not_those_of_tools(develop: Develop) -> None:
    dev = await develop(READS_A_PROMPT)
    for folder in ("__pycache__", ".venv", ".git", "node_modules"):
        (dev.folder / folder).mkdir(exist_ok=True)
        (dev.folder / folder / "made.py").write_text("1")
    (dev.folder / "agent.log").write_text("1")
    dev.save("one", "prompt.txt")
    assert (await dev.says("restarted.*"))[0].endswith(" prompt.txt has changed")
    await dev.answers("one")
    await dev.end_well()


async def test_env_files_are_read_anew_and_rank_below_the_environment(develop: Develop) -> None:
    source = """
import os

async def invoke(payload, context):
    return [os.environ.get(name) for name in ("FIRST", "SECOND")]
"""
    dev = await develop(source, FIRST="the environment's")
    assert await dev.ask() == ["the environment's", None]
    dev.save("FIRST=the file's\nSECOND=2", ".env")
    await dev.answers(["the environment's", "2"])
    dev.save("", ".env")
    await dev.answers(["the environment's", None])
    await dev.end_well()


async def test_what_it_says_into_a_file_of_the_folder_is_no_save(
    begin: Develop, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    with said.open("w") as file:
        await begin(answering("first"), stdout=file.fileno())
    await eventually(lambda: "Console  http" in said.read_text())
    (tmp_path / "agent.py").write_text(answering("second"))
    await eventually(lambda: "agent.py has changed" in said.read_text())
    (tmp_path / "agent.py").write_text(answering("third"))
    await eventually(lambda: said.read_text().count("agent.py has changed") == 2)
    assert said.read_text().count("restarted") == 2
