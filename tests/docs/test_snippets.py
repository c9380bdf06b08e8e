"""What the documents show works as it stands."""

import os
import shutil
from pathlib import Path

import pytest

from agentws.protocol.decoding import BadFrame
from tests.docs.conftest import PAGES, name_of
from tests.support.processes import ROOT
from tests.support.snippets import (
    PROGRAMS,
    Snippet,
    check,
    is_there,
    snippets,
    try_snippets,
)

DOCUMENTS = [ROOT / "README.md", *PAGES]

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def programs(document: Path) -> set[str]:
    """Return the programs that a document's snippets are run by."""
    run = [snippet for snippet in snippets(document) if "run" in snippet.marks]
    curl = {"curl"} if any("curl" in snippet.text for snippet in run) else set()
    return curl | {PROGRAMS[snippet.language][0] for snippet in run}


@each_document
async def test_snippets_do_what_they_are_said_to(document: Path, tmp_path: Path) -> None:
    missing = [name for name in programs(document) if shutil.which(name) is None]
    if missing and "CI" not in os.environ:
        pytest.skip(f"not installed: {', '.join(missing)}")
    await try_snippets(document, tmp_path)


@pytest.mark.parametrize(
    ("language", "marks", "text"),
    [
        ("python", {}, "def f(:"),
        ("json", {}, '{"action": '),
        ("json", {"client": ""}, '{"action": "invoke", "invocationId": "a"}'),
        ("json", {"server": ""}, '{"type": "pong", "extra": 1}'),
    ],
)
def test_a_snippet_that_is_wrong_is_found(language: str, marks: dict[str, str], text: str) -> None:
    with pytest.raises((SyntaxError, ValueError, AssertionError, BadFrame)):
        check(Snippet(1, language, text, marks))


async def test_what_is_printed_otherwise_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- run -->\n```python\nprint(1)\n```\n\n<!-- prints -->\n```text\n2\n```\n")
    with pytest.raises(AssertionError):
        await try_snippets(page, tmp_path)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("agentws.compat", True),
        ("agentws:Agent.invoke_handler", True),
        ("agentws.nothing", False),
        ("agentws:Agent.nothing", False),
        ("server.port", True),
        ("server.nothing", False),
        ("agentws serve", True),
        ("agentws serve --port --handler", True),
        ("agentws serve --nothing", False),
        ("agentws nothing", False),
        ("examples/echo.py", True),
        ("examples/nothing.py", False),
    ],
)
def test_it_is_known_what_is_built(name: str, there: bool) -> None:
    assert is_there(name) is there
