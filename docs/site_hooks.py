"""What mkdocs calls while it builds the site: pages for what docs/ links to outside of itself.

On the forge, such a link leads to the file. The site gets a page for each: Markdown as it is,
pictures as they are, anything else as a listing. Folders get none, and links to them are left as
text.
"""

import posixpath
from collections.abc import Iterator
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from docs.links import ROOT, Link, links, relinked

_PAGES: Final = "docs/"
_OTHERS: Final = "repository/"
"""Where, in the site, the pages of what is not in docs/ are."""

_AS_THEY_ARE: Final = (".md", ".svg")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of what is linked to."""
    pages = [_PAGES + file.src_uri for file in files.documentation_pages()]
    for document in _linked_from(pages):
        page = File.generated(
            config, _place(document), content=_text(document), inclusion=InclusionLevel.NOT_IN_NAV
        )
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - the signature is given
    """Lead the links of a page to the pages of the site."""
    here = page.file.src_uri
    document = here.removeprefix(_OTHERS) if here.startswith(_OTHERS) else _PAGES + here

    def place(link: Link) -> str | None:
        if not (ROOT / link.target).is_file():
            return None
        path = posixpath.relpath(_place(link.target), posixpath.dirname(here))
        return f"{path}#{link.anchor}" if link.anchor else path

    return relinked(markdown, document, place)


def _linked_from(documents: list[str]) -> Iterator[str]:
    """Yield the files outside docs/ that documents link to, and those that these link to."""
    known = set(documents)
    while documents:
        document = documents.pop()
        if not document.startswith(_PAGES):
            yield document
        if document.endswith(".md"):
            targets = {link.target for link in links(document) if (ROOT / link.target).is_file()}
            documents += sorted(targets - known)
            known |= targets


def _place(document: str) -> str:
    """Return the place of a file among the sources of the site."""
    if document.startswith(_PAGES):
        return document.removeprefix(_PAGES)
    return _OTHERS + (document if document.endswith(_AS_THEY_ARE) else f"{document}.md")


def _text(document: str) -> str:
    text = (ROOT / document).read_text()
    if document.endswith(_AS_THEY_ARE):
        return text
    language = posixpath.splitext(document)[1].lstrip(".") or "text"
    return f"# {document}\n\n```{language}\n{text.rstrip()}\n```\n"
