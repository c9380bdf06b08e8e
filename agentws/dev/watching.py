"""The folder of an agent, and what changes in it."""

import asyncio
import contextlib
import importlib.util
import os
import re
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Final

from watchfiles import Change, awatch

_QUIET: Final = 50
"""Milliseconds without a change after which those before are told: a save takes several steps."""

_LONGEST: Final = 400
"""Milliseconds after which they are told in any case."""

_ABSENT: Final = 0.2
"""Seconds after which a folder that is not there is looked for again."""

_FOLDERS: Final = {
    "__pycache__",
    "build",
    "dist",
    "htmlcov",
    "node_modules",
    "site-packages",
    "venv",
}
"""Folders that hold what tools have made. So do those that begin with a dot."""

_OTHERS: Final = re.compile(
    r"\.py[cod]$|~$|^#.*#$|^\.#|\.sw[a-z]$|^4913$|\.tmp$|\.___jb_\w+___$|^flycheck_|\.log$"
    r"|\.(db|sqlite3?)(-journal|-wal|-shm)?$|^\.(?!env)"
)
"""Files that no agent is made of: compiled ones, those of editors, logs and databases."""


def agent_folder(target: str) -> Path | None:
    """Return the folder whose files an agent is made of; None for the built-in echo.

    For a file, that is its folder. For a module, it is the current folder if the module is found
    there, else that of the package it belongs to.
    """
    if not target:
        return None
    place = target.rpartition(":")[0] or target
    if os.sep in place or place.endswith(".py"):
        return Path(os.path.abspath(place)).parent
    name, here = place.partition(".")[0], Path.cwd()
    if not ((here / name).is_dir() or (here / f"{name}.py").is_file()):
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    return here


async def changes(folder: Path) -> AsyncIterator[Collection[Path]]:
    """Yield the files that have changed, those of one save together.

    The folder is named without links, as its files will be. Where it is removed, it is waited for,
    as tools remove and make folders.
    """
    while True:
        async for paths in _changes_until_removed(folder):
            yield paths
        while not _is_there(folder):  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(_ABSENT)
        yield [folder]


async def _changes_until_removed(folder: Path) -> AsyncIterator[Collection[Path]]:
    def matters(_change: Change, path: str) -> bool:
        return is_part(Path(path).relative_to(folder)) and not _is_own_output(path)

    watching = awatch(
        folder,
        watch_filter=matters,
        step=_QUIET,
        debounce=_LONGEST,
        ignore_permission_denied=True,
    )
    async for found in watching:
        yield sorted({Path(path) for _, path in found})
        if not _is_there(folder):
            return


def _is_own_output(path: str) -> bool:
    """Tell whether it is what our own lines are written to, each of which would be a change."""
    with contextlib.suppress(OSError):
        file = os.stat(path)
        return any(os.path.samestat(file, os.fstat(stream)) for stream in (1, 2))
    return False


def _is_there(folder: Path) -> bool:
    return folder.is_dir()


def in_words(paths: Collection[Path], folder: Path) -> str:
    """Name what has changed, for somebody who has just saved it."""
    first, *others = (os.path.relpath(path, folder) for path in paths)
    return f"{first} and {len(others)} more" if others else first


def is_part(path: Path) -> bool:
    """Tell whether a file, by its path in the folder, may be what an agent is made of."""
    if path == Path():
        return True  # the folder itself, which was removed
    *folders, name = path.parts
    if any(folder in _FOLDERS or folder.startswith(".") for folder in folders):
        return False
    return name not in _FOLDERS and not _OTHERS.search(name)


def forget_compiled(paths: Collection[Path]) -> None:
    """Remove what Python has compiled of files, which it may take for what they are now."""
    for path in paths:
        if path.suffix == ".py":
            with contextlib.suppress(OSError, NotImplementedError):  # there is none, then
                Path(importlib.util.cache_from_source(str(path))).unlink()
