"""Which folder is an agent's, and which of its files are."""

from pathlib import Path

import pytest

from agentws.dev.environment import with_env_files
from agentws.dev.watching import agent_folder, is_part


@pytest.mark.parametrize(
    "path",
    [
        "agent.py",
        "parts/tools.py",
        "prompt.txt",
        "data/prices.json",
        ".env",
        ".env.local",
        "a b.md",
    ],
)
def test_files_of_an_agent(path: str) -> None:
    assert is_part(Path(path))


@pytest.mark.parametrize(
    "path",
    [
        "__pycache__",
        "__pycache__/agent.cpython-311.pyc",
        "parts/__pycache__/tools.cpython-311.pyc.140213",
        ".venv/lib/python3.11/site-packages/aiohttp/web.py",
        "venv/bin/python",
        ".git/index.lock",
        "node_modules/left-pad/index.js",
        "agent.py~",
        ".agent.py.swp",
        "4913",
        ".#agent.py",
        "#agent.py#",
        ".agent.py.tmp",
        "agent.py.tmp",
        "agent.log",
        "history.sqlite3-wal",
    ],
)
def test_files_of_tools(path: str) -> None:
    assert not is_part(Path(path))


def test_the_folder_of_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for package in (here / "mine", elsewhere / "theirs"):
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(elsewhere)
    assert agent_folder("") is None
    assert agent_folder("mine.agent:invoke") == here
    assert agent_folder("theirs.agent:invoke") == elsewhere / "theirs"
    assert agent_folder("nowhere:invoke") == here
    assert agent_folder("../elsewhere/agent.py:invoke") == elsewhere
    assert agent_folder("agent.py:invoke") == here


def test_the_environment_ranks_above_the_folder_above_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, folder = tmp_path / "here", tmp_path / "agent"
    for path, text in ((here, "A=here\nB=here\nC=here"), (folder, "A=agent\nB='agent #1'\nD")):
        path.mkdir()
        (path / ".env").write_text(text)
    monkeypatch.chdir(here)
    monkeypatch.setenv("A", "environment")
    found = with_env_files(folder)
    assert [found.get(name) for name in "ABCD"] == ["environment", "agent #1", "here", None]
