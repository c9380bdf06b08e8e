"""The picture of who imports whom holds; its contracts stand in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT


def lint_imports(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Check the package in `folder`, which comes before an installed one."""
    lint = str(Path(sys.executable).with_name("lint-imports"))
    command = [lint, "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "agentws", tmp_path / "agentws")
    return tmp_path


def test_imports_keep_to_the_picture() -> None:
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("protocol.errors", "config.settings"),
        ("config.sources", "agent.handlers"),
        ("agent.handlers", "framed_ws"),
        ("stores.memory", "invocations"),
        ("connections", "invocations"),
        ("invocations", "connections"),
        ("framed_ws", "http_api"),
        ("cli", "invocations"),
    ],
)
def test_an_import_against_the_picture_is_found(copy: Path, module: str, forbidden: str) -> None:
    path = copy / "agentws" / f"{module.replace('.', '/')}.py"
    path.write_text(f"{path.read_text()}\nimport agentws.{forbidden}\n")

    result = lint_imports(copy)

    assert result.returncode == 1
    assert f"agentws.{module} -> agentws.{forbidden}" in result.stdout


def test_a_module_that_has_no_place_in_the_picture_is_found(copy: Path) -> None:
    (copy / "agentws" / "newcomer.py").touch()

    result = lint_imports(copy)

    assert result.returncode == 1
    assert "- agentws.newcomer" in result.stdout
