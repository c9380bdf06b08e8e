"""Every attack in SECURITY.md has a test."""

import re

from tests.support.processes import ROOT


def test_the_tests_that_it_names_are_there() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition("| attack |")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    assert len(rows) > 15
    for row in rows:
        names = re.findall(r"`([a-z_]+\.py::)?(test_\w+)`", row)
        assert names or "`make soak`" in row, row
        for file, name in names:
            file = file.removesuffix("::") or "test_hostile.py"
            sources = [path.read_text() for path in (ROOT / "tests").rglob(file)]
            assert any(f"def {name}(" in source for source in sources), f"{file}::{name}"
