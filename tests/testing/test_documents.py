"""The tests that the documents show pass."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT

FILE = re.compile(r"^```python\n(# (\w+\.py)\n.*?)^```$", re.M | re.S)


def test_the_tests_that_are_shown_pass(tmp_path: Path) -> None:
    text = (ROOT / "docs/testing.md").read_text()
    shown = {name: text for text, name in FILE.findall(text)}
    for name, text in shown.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    count = sum(text.count("async def test_") for text in shown.values())
    assert f"{count} passed" in result.stdout, result.stdout + result.stderr
    assert count
