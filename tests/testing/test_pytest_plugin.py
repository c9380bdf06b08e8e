"""The fixture `agent_client`, in projects of others, with the plugins that they have."""

import subprocess
import sys
from pathlib import Path

import pytest

AGENT = """
async def shout(payload, context):
    return payload.upper()
"""

ASYNC = """
from my_agent import shout

async def test_it(agent_client):
    async with agent_client(shout) as client:
        assert await client.invoke("hi") == "HI"
"""

ANYIO = f"""
import pytest

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"
{ASYNC}"""

SYNC = """
import asyncio
from my_agent import shout

def test_it(agent_client):
    async def main():
        async with agent_client(shout) as client:
            assert await client.invoke("hi") == "HI"

    asyncio.run(main())
"""

WITHOUT = {name: ("-p", f"no:{name}") for name in ("asyncio", "aiohttp", "anyio")}
AUTO = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")


@pytest.mark.parametrize(
    ("test", "options"),
    [
        pytest.param(ASYNC, (*AUTO, *WITHOUT["aiohttp"], *WITHOUT["anyio"]), id="pytest-asyncio"),
        pytest.param(ASYNC, (*AUTO, *WITHOUT["anyio"]), id="pytest-aiohttp"),
        pytest.param(ANYIO, (*WITHOUT["aiohttp"], *WITHOUT["asyncio"]), id="anyio"),
        pytest.param(SYNC, [word for words in WITHOUT.values() for word in words], id="none"),
    ],
)
def test_it_is_found_whatever_else_is_there(
    tmp_path: Path, test: str, options: tuple[str, ...]
) -> None:
    (tmp_path / "my_agent.py").write_text(AGENT)
    (tmp_path / "test_my_agent.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *options]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout


def test_projects_that_do_not_use_it_pay_little() -> None:
    script = "import sys, agentws.pytest_plugin; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {name.split(".")[0] for name in loaded}.isdisjoint(
        {"aiohttp", "opentelemetry", "pydantic"}
    )
    assert "agentws.testing" not in loaded
