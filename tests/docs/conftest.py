"""The documents that the project is told by."""

from pathlib import Path

from tests.support.processes import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))


def name_of(document: Path) -> str:
    """Return how a document is named among tests."""
    return str(document.relative_to(ROOT))
