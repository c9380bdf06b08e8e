"""The pages build as a site."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed (make docs)"
)


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    command = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists()
    # What is linked to outside of docs/ has its page, too.
    assert (tmp_path / "repository" / "SECURITY" / "index.html").exists()
    # A picture is there as a picture.
    assert (tmp_path / "repository" / "bench" / "chart.svg").exists()
