"""The README makes somebody try it; what it shows is run by `tests/docs/test_snippets.py`."""

import subprocess

from docs.links import links
from tests.docs.conftest import PAGES, name_of
from tests.support.processes import ROOT
from tests.support.snippets import snippets

README = ROOT / "README.md"


def shell_lines(command: str) -> list[str]:
    lines = [line for each in snippets(README) for line in each.text.splitlines()]
    return [line for line in lines if line.startswith(command)]


def test_it_is_short_and_begins_with_what_to_type() -> None:
    assert len(README.read_text().splitlines()) < 150
    first, second = [each for each in snippets(README) if each.language == "sh"][:2]
    assert first.text == "pip install agentws\n"
    assert [line.split("#")[0].strip() for line in second.text.splitlines()] == [
        "make run",
        "make test",
    ]


def test_the_make_targets_exist() -> None:
    for line in shell_lines("make"):
        target = line.split()[1]
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_the_agent_is_served_as_it_is_said_to() -> None:
    (agent,) = [each.marks["agent"] for each in snippets(README) if "agent" in each.marks]
    assert shell_lines("agentws serve") == [f"agentws serve --handler {agent}"]


def test_it_leads_to_every_page() -> None:
    pages = {name_of(page) for page in PAGES} - {"docs/index.md"}
    assert pages <= {link.target for link in links("README.md")}
