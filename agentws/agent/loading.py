"""From `module:attribute`, or a path, to an agent that can be served."""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent

_OURS: Final = str(Path(__file__).parents[1]) + os.sep
"""The folder of this package."""

_loading: Final[ContextVar[bool]] = ContextVar("loading", default=False)


def is_loading() -> bool:
    """Tell whether the daemon is importing the agent's module at this moment."""
    return _loading.get()


class ImportFailure(Struct, frozen=True):
    """Why an agent cannot be served: what, and in which line of which file, where that is known."""

    message: str
    file: str | None = None
    line: int | None = None


class LoadError(Exception):
    """The handler cannot be loaded; the text is one sentence that says why."""

    def __init__(self, target: str, failure: ImportFailure | str) -> None:
        if isinstance(failure, str):
            failure = ImportFailure(failure)
        place = f"{failure.file}, line {failure.line}: " if failure.line is not None else ""
        super().__init__(f"handler.target {target!r}: {place}{failure.message}")
        self.failure = failure
        """The same in its parts."""


class TargetError(LoadError):
    """The target names no module that there is."""


async def _echo(payload: Any, _context: InvocationContext) -> Any:
    return payload


Served = Agent | InvocationWebSocketHandler
"""What a daemon can serve."""


def load(target: str | None) -> Served:
    """Import `module:attribute` and return what it serves; the built-in echo without a target.

    The module is named, and then the folder that the daemon was started in is importable; or it is
    the path of its file, whose folder is. The attribute is an `Agent`, an instance or a subclass of
    `InvocationWebSocketHandler`, or a bare async function or async generator function. Raises
    `LoadError`.
    """
    if not target:
        return agent_of(_echo)
    place, _, attribute = target.rpartition(":")
    if not place or not attribute:
        raise TargetError(
            target, "must look like package.module:attribute or path/to/module.py:attribute"
        )
    is_path = os.sep in place or place.endswith(".py")
    found: object = _import_file(place, target) if is_path else _import(place, target)
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        file = getattr(found, "__file__", None)
        raise LoadError(target, ImportFailure(f"{place} has no {attribute!r}", file)) from error
    except Exception as error:
        raise LoadError(target, _where_and_what(error)) from error
    return _as_agent(found, target)


def _import_file(place: str, target: str) -> object:
    """Import a module by its path, under the name that others in its folder know it by."""
    path = Path(os.path.abspath(place))  # a link's own name counts, wherever it leads
    if not path.is_file():
        raise TargetError(target, f"there is no file {path}")
    if path.suffix != ".py" or "." in path.stem:
        raise TargetError(target, f"{path.name} should be named like module.py")
    module = _import(path.stem, target, str(path.parent))
    file = getattr(module, "__file__", None)
    if file is None or not path.samefile(file):
        raise TargetError(
            target,
            f"the name {path.stem!r} belongs to another module ({file or 'built-in'}); "
            "rename the file",
        )
    return module


def _import(module_name: str, target: str, folder: str | None = None) -> object:
    folder = folder or os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    token = _loading.set(True)
    try:
        return importlib.import_module(module_name)
    except KeyboardInterrupt:  # somebody's signal
        raise
    except BaseException as error:  # whatever a module does, its import has failed
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module_name):
            problem = f"there is no module {error.name!r} in {folder} or among the packages"
            raise TargetError(target, problem) from error
        raise LoadError(target, _where_and_what(error)) from error
    finally:
        _loading.reset(token)


def _is_part(missing: str | None, module_name: str) -> bool:
    """Tell whether the missing module is the target itself or a package above it."""
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _where_and_what(error: BaseException) -> ImportFailure:
    """Return the file, the line and the exception of an import that failed."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
    ]
    while len(frames) > 1 and frames[-1].filename.startswith(_OURS):
        frames.pop()  # what is refused here, is wrong there
    file, line = (frames[-1].filename, frames[-1].lineno) if frames else ("?", None)
    if isinstance(error, SyntaxError) and error.filename is not None:
        file, line = error.filename, error.lineno
    return ImportFailure(_one_line(error), file, line)


def _as_agent(found: object, target: str) -> Served:
    if isinstance(found, Served):
        return found
    try:
        if inspect.isclass(found) and issubclass(found, InvocationWebSocketHandler):
            return found()
        if callable(found) and not inspect.isclass(found):
            return agent_of(found)
    except KeyboardInterrupt:  # somebody's signal
        raise
    except BaseException as error:
        raise LoadError(target, _defined_at(found, _one_line(error))) from error
    kind = "a class" if inspect.isclass(found) else f"a value of type {type(found).__name__}"
    raise LoadError(
        target,
        f"must be an Agent, an InvocationWebSocketHandler or an async function, not {kind}",
    )


def _defined_at(found: object, message: str) -> ImportFailure:
    """Return a failure in the line that the handler is defined in."""
    code = getattr(found, "__code__", None)
    if code is None:
        return ImportFailure(message)
    return ImportFailure(message, code.co_filename, code.co_firstlineno)


def _one_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(it cannot be told)"
    return f"{type(error).__name__}: {' '.join(text.split())}"


def agent_of(function: Callable[..., Any]) -> Agent:
    """Return an agent that has this invoke handler. Raises `TypeError` where it cannot be one."""
    agent = Agent()
    agent.invoke_handler(function)
    return agent
