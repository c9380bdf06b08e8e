"""Prints what the changelog says of a release: `release_notes.py [TAG]`.

With a tag, the changelog must have a section of that version, and the package must be of it.
Without one, what would be released is shown, which is the section "Unreleased" if need be.
"""

import re
import sys
from pathlib import Path

from agentws import __version__

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def notes(changelog: str, tag: str = "") -> str:
    """Return the section of a release; exits with a sentence when there is none."""
    if tag not in ("", f"v{__version__}"):
        sys.exit(f"release: the tag is {tag}, but the package is of version {__version__}")
    titles = [__version__] if tag else [__version__, "Unreleased"]
    for title in titles:
        section = re.search(
            rf"^## \[?{re.escape(title)}\b.*?\n(.*?)(?=^## |\Z)", changelog, re.M | re.S
        )
        if section and section[1].strip():
            return section[1].strip()
    sys.exit(f"release: CHANGELOG.md should have a section {' or '.join(titles)} with entries")


if __name__ == "__main__":
    print(notes(CHANGELOG.read_text(), *sys.argv[1:]))  # noqa: T201
