"""Packages that are missing, or of versions that do not do: told in a sentence, not by a traceback.

An environment that holds other packages, too, may hold other versions than were asked for.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[.*?\])?>=(?P<version>[\d.]+)(?P<marker>.*)")


class PackageError(Exception):
    """A package cannot be imported; the text is one sentence that names those that do not fit."""


@contextmanager
def needed() -> Iterator[None]:
    """Raise `PackageError` where an import inside `with` fails."""
    try:
        yield
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise PackageError("; ".join([f"packages do not fit: {text}", *unmet()])) from error


def unmet(package: str = "agentws") -> Iterator[str]:
    """Yield a few words for each requirement of a package that is not met, if it is installed."""
    try:
        requirements = metadata.requires(package) or []
    except metadata.PackageNotFoundError:  # it runs from its sources
        return
    for match in filter(None, map(_REQUIREMENT.match, requirements)):
        found = _installed(match["name"])
        if found is None and "extra" in match["marker"]:
            continue
        if found is None or _numbers(found) < _numbers(match["version"]):
            is_there = f"is {found}" if found else "is missing"
            yield f"{match['name']} {is_there}, {match['version']} or newer is needed"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)][:3]
