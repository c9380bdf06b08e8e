"""The documents tell of no setting, class or command as if it were there when it is not."""

import re
from pathlib import Path

import pytest

from agentws.config.options import OPTIONS, SECTIONS
from tests.docs.conftest import name_of, not_built
from tests.docs.test_snippets import DOCUMENTS
from tests.support.processes import ROOT
from tests.support.snippets import is_there, snippets

NO_SETTINGS = {"websocket.active_connections", "websocket.close_code"}
"""An instrument and an attribute, whose names look like settings."""

GUIDES = [*DOCUMENTS, ROOT / "SECURITY.md", ROOT / "deploy/azure/README.md"]

each_guide = pytest.mark.parametrize("document", GUIDES, ids=name_of)


@each_guide
def test_what_is_said_not_to_be_built_is_not(document: Path) -> None:
    built = sorted(filter(is_there, not_built(document.read_text())))
    assert not built, f"{', '.join(built)}: built by now, so the note can go"


@each_guide
def test_what_a_snippet_needs_is_there_or_said_not_to_be(document: Path) -> None:
    missing = {
        snippet.marks["needs"]
        for snippet in snippets(document)
        if "needs" in snippet.marks and not is_there(snippet.marks["needs"])
    }
    assert missing <= not_built(document.read_text())


@each_guide
def test_the_settings_that_it_names_are_there_or_said_not_to_be(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(rf"`((?:{'|'.join(SECTIONS)})\.\w+)`", text))
    assert named - OPTIONS.keys() - NO_SETTINGS <= not_built(text)
