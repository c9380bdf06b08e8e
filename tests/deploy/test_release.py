"""What a release does, as far as it can be told without releasing; the rest: make release-check."""

import re

import pytest
import yaml

from agentws import __version__
from deploy.release_notes import CHANGELOG, notes
from tests.deploy.test_compose import check_schema
from tests.support.processes import ROOT

WORKFLOW = ROOT / ".github/workflows/release.yml"

HISTORY = f"""\
# Changelog

## Unreleased

- what comes next

## {__version__} - 2026-01-01

- what is released

## 0.0.1 - 2025-01-01

- what was before
"""


def test_the_workflow_keeps_to_the_schema() -> None:
    result = check_schema(WORKFLOW, "vendor.github-workflows")
    assert result.returncode == 0, result.stdout


def test_the_workflow_runs_what_there_is() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    commands = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    for target in re.findall(r"make ([\w-]+)", commands):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text()
    for file in re.findall(r"\S+\.py|\.ci/run", commands):
        assert (ROOT / file.split("/python ")[-1]).exists()


def test_no_release_passes_while_the_newest_versions_fail() -> None:
    rule = re.search(r"^release-check:(.*)##", (ROOT / "Makefile").read_text(), re.M)
    assert rule is not None
    assert "test-newest" in rule[1].split()
    assert "make release-check" in (ROOT / ".ci/run").read_text()


def test_nothing_is_published_before_everything_is_checked() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    for job in ("publish", "image"):
        assert set(jobs[job]["needs"]) == {"package", "tests"}


def test_actions_are_named_by_commit_and_version() -> None:
    used = re.findall(r"uses: (.*)", WORKFLOW.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # (v\d+\.\d+\.\d+|release/v1)", action)


def test_the_image_is_for_both_platforms_signed_and_has_a_bill_of_materials() -> None:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["image"]["steps"]
    (push,) = (step["with"] for step in steps if "build-push" in step.get("uses", ""))
    assert push["platforms"] == "linux/amd64,linux/arm64"
    assert push["sbom"] is True
    assert steps[-1]["run"].startswith("cosign sign")
    assert "steps.push.outputs.digest" in steps[-1]["env"]["DIGEST"]


def test_the_notes_are_the_section_of_the_version() -> None:
    assert notes(HISTORY, f"v{__version__}") == "- what is released"
    assert notes(HISTORY) == "- what is released"


def test_a_dry_run_takes_what_is_unreleased() -> None:
    assert notes("## Unreleased\n\n- news\n") == "- news"
    assert notes(CHANGELOG.read_text())


@pytest.mark.parametrize(
    ("changelog", "tag", "complaint"),
    [
        (HISTORY, "v99.0.0", f"the tag is v99.0.0, but the package is of version {__version__}"),
        ("## Unreleased\n\n- news\n", f"v{__version__}", f"a section {__version__} with entries"),
        ("## Unreleased\n", "", f"a section {__version__} or Unreleased with entries"),
    ],
)
def test_a_release_without_its_section_is_refused(changelog: str, tag: str, complaint: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(complaint)):
        notes(changelog, tag)
