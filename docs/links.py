"""The links of Markdown documents, and the anchors that they may lead to."""

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]

_FENCED: Final = re.compile(r"(^ *```.*?^ *```$)", re.M | re.S)
_LINK: Final = re.compile(
    r"\[(?P<text>[^\]]*)\]\((?![a-z]+:)(?P<path>[^)\s#]*)(#(?P<anchor>[^)\s]*))?\)"
)
_HEADING: Final = re.compile(r"^#{1,6} (.*)$", re.M)


class Link(NamedTuple):
    """A link from a document to something in the repository."""

    target: str
    """The path of what it leads to, from the repository's root."""
    anchor: str
    """That of a heading, or empty."""


def links(document: str) -> Iterator[Link]:
    """Yield the links to the repository of a document, which is named by its path from the root."""
    for match in _LINK.finditer(_FENCED.sub("", (ROOT / document).read_text())):
        yield _resolved(match, document)


def relinked(text: str, document: str, place: Callable[[Link], str | None]) -> str:
    """Return the text of a document with its links as `place` has them; None leaves their text."""

    def written(match: "re.Match[str]") -> str:
        new = place(_resolved(match, document))
        return match["text"] if new is None else f"[{match['text']}]({new})"

    parts = _FENCED.split(text)
    parts[::2] = [_LINK.sub(written, part) for part in parts[::2]]
    return "".join(parts)


def anchors(document: str) -> set[str]:
    """Return the anchors of a document's headings, as forges make them."""
    text = _FENCED.sub("", (ROOT / document).read_text())
    return {_anchor(heading) for heading in _HEADING.findall(text)}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _resolved(match: "re.Match[str]", document: str) -> Link:
    path = posixpath.join(posixpath.dirname(document), match["path"]) if match["path"] else document
    return Link(posixpath.normpath(path), match["anchor"] or "")
