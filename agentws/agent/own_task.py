"""The agent's code in tasks of its own, so that what it does to its task harms nobody else."""

import asyncio
from collections.abc import Awaitable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class SelfCancelled(Exception):
    """The agent's code was cancelled, and not by the daemon."""

    def __init__(self) -> None:
        super().__init__("The handler was cancelled, and not by the daemon")


async def run_apart(work: Awaitable[Result]) -> Result:
    """Run code of the agent's in a task of its own, and return or raise what it does.

    Whoever is cancelled here has that task cancelled, and goes on when it has ended. Raises
    `SelfCancelled` where the agent's code cancelled itself.
    """
    run = _Run(work)
    task = asyncio.create_task(run.step())
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    return run.result()


async def _cancel(task: "asyncio.Task[None]") -> None:
    """Cancel a task until it has ended; being cancelled meanwhile only cancels it once more."""
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue


class _Run(Generic[Result]):
    """How the code ended, kept apart from its task, which may be cancelled in its last step."""

    def __init__(self, work: Awaitable[Result]) -> None:
        self._work = work
        self._results: list[Result] = []
        self._error: BaseException | None = None

    async def step(self) -> None:
        """Await the code. `SystemExit` and its like must not leave the task: it ends the loop."""
        try:
            self._results.append(await self._work)
        except BaseException as error:
            if is_destroyed(error):
                raise
            self._error = error

    def result(self) -> Result:
        """Return what the code returned, or raise what it raised."""
        if self._results:
            return self._results[0]
        if self._error is None or isinstance(self._error, asyncio.CancelledError):
            raise SelfCancelled
        raise self._error


def is_destroyed(error: BaseException) -> bool:
    """Tell whether the coroutine is being destroyed with its event loop, which no code survives.

    A handler may raise `GeneratorExit` as well; then the loop runs.
    """
    return isinstance(error, GeneratorExit) and not _loop_runs()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
