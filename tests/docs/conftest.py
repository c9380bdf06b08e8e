"""The documents that the project is told by, and how their tables are read."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.processes import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))


def name_of(document: Path) -> str:
    """Return how a document is named among tests."""
    return str(document.relative_to(ROOT))


def page(name: str) -> str:
    """Return the text of a page."""
    return (ROOT / "docs" / name).read_text()


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, its subsections included and its snippets left out."""
    level = re.match("#+", heading)
    assert level is not None
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    _, found, rest = f"{text}\n".partition(f"\n{heading}\n")
    assert found, heading
    return re.split(rf"^#{{1,{len(level[0])}}} ", rest, maxsplit=1, flags=re.M)[0]


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables in a text."""
    for line in re.findall(r"^\| (.*) \|$", text, re.M):
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]


def names(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def not_built(text: str) -> set[str]:
    """Return what a document says is not built yet."""
    notes = re.findall(r"^> \*\*Not built yet:\*\* (.*(?:\n> .*)*)", text, re.M)
    return {name for note in notes for name in names(note)}
