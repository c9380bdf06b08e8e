"""An agent that cannot be served is stood in for, until it can."""

import shutil
from pathlib import Path

from tests.support.development import ANSWERS, Develop

GOOD = ANSWERS.format(answer="good")
BROKEN = "async def invoke(payload, context):\n    return (\n"


async def test_an_import_that_fails_is_told_and_a_save_mends_it(develop: Develop) -> None:
    dev = await develop(GOOD)
    dev.save(BROKEN)
    what = "SyntaxError: '(' was never closed (agent.py, line 2)"
    place = f"{dev.folder}/agent.py, line 2: {what}"
    told = await dev.complains("^agentws: (.*)$")
    assert told[1] == f"handler.target 'agent.py:invoke': {place}"
    await dev.answers("import_failed")
    state = await dev.state()
    assert state["import_error"] == {
        "message": what,
        "file": f"{dev.folder}/agent.py",
        "line": 2,
    }
    async with dev.connect() as client:
        await client.send(action="invoke", payload={})
        error = (await client.until(type="error"))["error"]
        assert error["code"] == "import_failed"
        assert (error["message"], error["retryable"]) == (place, True)
    dev.save(GOOD)
    await dev.answers("good")
    assert (await dev.state())["import_error"] is None
    await dev.end_well()


async def test_it_begins_with_one_that_fails(develop: Develop) -> None:
    dev = await develop("import nowhere")
    told = await dev.complains("^agentws: (.*)$")
    assert told[1].endswith("agent.py, line 1: ModuleNotFoundError: No module named 'nowhere'")
    assert await dev.ask() == "import_failed"
    dev.save(GOOD)
    await dev.answers("good")
    await dev.end_well()


async def test_a_handler_that_is_missing(develop: Develop) -> None:
    dev = await develop("answer = 1")
    await dev.complains("agent.py has no 'invoke'")
    state = await dev.state()
    assert state["import_error"]["file"] == f"{dev.folder}/agent.py"
    assert state["import_error"]["line"] is None
    await dev.end_well()


async def test_a_file_that_is_gone_for_a_while(develop: Develop) -> None:
    dev = await develop(GOOD)
    (dev.folder / "agent.py").unlink()
    await dev.complains("there is no file")
    await dev.answers("import_failed")
    dev.save(GOOD)
    await dev.answers("good")
    await dev.end_well()


async def test_a_folder_that_is_gone_for_a_while(develop: Develop, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "agent.py").write_text(GOOD)
    dev = await develop(None, target="parts/agent.py:invoke")
    shutil.rmtree(dev.folder / "parts")
    await dev.complains("there is no file")
    await dev.answers("import_failed")
    (dev.folder / "parts").mkdir()
    dev.save(ANSWERS.format(answer="back"), "parts/agent.py")
    await dev.answers("back")
    dev.save(GOOD, "parts/agent.py")
    await dev.answers("good")
    await dev.end_well()


async def test_a_current_folder_that_is_gone(develop: Develop) -> None:
    dev = await develop(GOOD)
    shutil.rmtree(dev.folder)
    told = await dev.complains("^agentws: (.*)$")
    assert told[1] == "the current folder is gone; start again in another"
    await dev.answers("import_failed")
    await dev.end_well()


async def test_an_import_that_raises_what_nobody_else_may(develop: Develop) -> None:
    dev = await develop(GOOD)
    for raised in ("SystemExit(3)", "KeyboardInterrupt"):
        dev.save(f"raise {raised}")
        told = await dev.complains("(.*)")
        assert told[0].startswith("agentws: handler.target 'agent.py:invoke': ")
        assert raised.partition("(")[0] in told[0]
        await dev.answers("import_failed")
    dev.save(GOOD)
    await dev.answers("good")
    await dev.end_well()


async def test_an_import_that_blocks_is_ended_by_the_next_save(develop: Develop) -> None:
    dev = await develop(GOOD)
    dev.save("import time\nprint('blocks', flush=True)\ntime.sleep(3600)")
    await dev.says("blocks")
    told = await dev.complains("^agentws: (.*)$")
    assert told[1] == "the agent is still starting after 2 s; whoever connects waits"
    dev.save(ANSWERS.format(answer="mended"))
    await dev.answers("mended")
    await dev.end_well()


async def test_a_process_that_ends_by_itself(develop: Develop) -> None:
    dev = await develop("""
import os

async def invoke(payload, context):
    os._exit(7)
""")
    async with dev.connect() as client:
        await client.send(action="invoke", payload={})
        await dev.complains("the agent's process ended with exit code 7; it is started again when")
    await dev.answers("import_failed")
    assert "exit code 7" in (await dev.state())["import_error"]["message"]
    dev.save(GOOD)
    await dev.answers("good")
    await dev.end_well()


async def test_a_startup_handler_that_raises(develop: Develop) -> None:
    dev = await develop(
        """
from agentws import Agent

agent = Agent()

@agent.invoke_handler
async def invoke(payload, context): ...

@agent.startup_handler
async def startup():
    1 / 0
""",
        target="agent.py:agent",
    )
    await dev.complains("the agent's process ended with exit code 1")
    await dev.answers("import_failed")
    await dev.end_well()


async def test_a_setting_that_goes_wrong(develop: Develop) -> None:
    dev = await develop(GOOD)
    dev.save("AGENTWS_STORE__LEASE=soon", ".env")
    await dev.complains("environment AGENTWS_STORE__LEASE: store.lease should be a valid number")
    await dev.answers("import_failed")
    dev.save("", ".env")
    await dev.answers("good")
    await dev.end_well()
