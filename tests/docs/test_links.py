"""Every link within the repository leads to something, and every anchor to a heading."""

import subprocess
from pathlib import Path

import pytest

from docs.links import Link, anchors, links, relinked
from tests.support.processes import ROOT


def documents() -> list[str]:
    """Return the Markdown documents of the repository, those that are not committed included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


@pytest.mark.parametrize("document", documents())
def test_links_lead_somewhere(document: str) -> None:
    for link in links(document):
        assert (ROOT / link.target).exists(), link
        if link.anchor:
            assert link.anchor in anchors(link.target), link


def test_links_are_resolved_and_rewritten(tmp_path: Path) -> None:
    text = "[a](../x.md#b) [c](https://d) [e](#f)\n```text\n[g](h)\n```\n[`i`](j/)\n"
    places = {Link("x.md", "b"): "new", Link("docs/p.md", "f"): "#f"}
    assert relinked(text, "docs/p.md", places.get) == (
        "[a](new) [c](https://d) [e](#f)\n```text\n[g](h)\n```\n`i`\n"
    )
