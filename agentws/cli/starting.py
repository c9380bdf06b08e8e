"""What a start needs, loaded; what is wrong with it, in a sentence."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agentws.cli.ending import Complaint

if TYPE_CHECKING:
    from agentws.agent.loading import Served
    from agentws.config.settings import Settings
    from agentws.config.sources import Loaded


class StartError(Complaint):
    """The daemon cannot start as told."""


@contextmanager
def needed_packages() -> Iterator[None]:
    """Raise `StartError` where an import inside `with` fails."""
    from agentws.config.requirements import PackageError, needed

    try:
        with needed():
            yield
    except PackageError as error:
        raise StartError(str(error)) from error


def load_config(
    file: Path | None, flags: Mapping[str, object], program: Mapping[str, object] | None = None
) -> "Loaded":
    """Return the configuration. Raises `StartError`.

    `program` is what the agent wants of it, which all else ranks above.
    """
    with needed_packages():
        from agentws.config.sources import ConfigError, load
    try:
        return load(file, flags=flags, program=program or {})
    except ConfigError as error:
        raise StartError(str(error)) from error


def load_handler(settings: "Settings") -> "Served":
    """Import the agent. Raises `StartError`."""
    from agentws.agent.loading import LoadError, load

    try:
        return load(settings.handler.target or None)
    except LoadError as error:
        if error.__cause__ and settings.server.log_level == "debug":
            traceback.print_exception(error.__cause__)
        raise StartError(str(error)) from error
