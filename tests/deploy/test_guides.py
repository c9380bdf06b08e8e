"""The guides speak of what there is."""

import re
from pathlib import Path

import pytest

from agentws.settings import OPTIONS, SECTIONS
from tests.processes import ROOT

GUIDES = [ROOT / "deploy/operations.md", ROOT / "deploy/azure/README.md"]

each_guide = pytest.mark.parametrize("guide", GUIDES, ids=lambda it: it.parent.name)


@each_guide
def test_its_links_lead_somewhere(guide: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", guide.read_text()):
        assert link.startswith("https://") or (guide.parent / link).exists(), link


@each_guide
def test_the_settings_that_it_names_are_there(guide: Path) -> None:
    sections = "|".join(SECTIONS)
    for key in re.findall(rf"`((?:{sections})\.\w+)`", guide.read_text()):
        assert key in OPTIONS, key


def test_every_alert_that_is_deployed_is_explained() -> None:
    deployed = (ROOT / "deploy/azure/monitoring.bicep").read_text()
    alerts, _, _ = deployed.partition("resource workspace")
    names = re.findall(r"name: '([\w-]+)'", alerts)
    assert names
    for name in names:
        assert f"*{name}*" in GUIDES[0].read_text()
