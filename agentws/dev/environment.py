"""What `.env` files add to the environment of an agent."""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values


class EnvironmentFileError(Exception):
    """A `.env` file cannot be read; the text is one sentence that says why."""


def with_env_files(folder: Path | None) -> Mapping[str, str]:
    """Return the environment, and what it lacks and the `.env` files have.

    That of the agent's folder ranks above that of the current one. Raises `EnvironmentFileError`.
    """
    try:
        folders = [Path.cwd(), *([folder] if folder else [])]
    except FileNotFoundError as error:
        raise EnvironmentFileError("the current folder is gone; start again in another") from error
    found: dict[str, str] = {}
    for path in dict.fromkeys(each / ".env" for each in folders):
        found |= _read(path)
    return {**found, **os.environ}


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        values = dotenv_values(path, encoding="utf-8-sig")
    except OSError as error:
        raise EnvironmentFileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EnvironmentFileError(f"{path}: should be UTF-8") from error
    return {name: value for name, value in values.items() if value is not None}
