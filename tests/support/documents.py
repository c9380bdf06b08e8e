"""Documents in JSON whose parts refer to each other."""

from collections.abc import Iterator
from functools import reduce
from typing import Any


def references(part: object) -> Iterator[str]:
    """Yield all that a document, or a part of one, refers to."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolve(document: Any, reference: str) -> Any:
    """Return the part of a document that a reference leads to."""
    root, *path = reference.split("/")
    assert root == "#"
    return reduce(lambda found, name: found[name], path, document)
