"""Whether the agent takes itself for ready: asked of its own handler, whoever wants to know."""

import asyncio
import logging
from typing import Final

from agentws.agent.handlers import ReadinessHandler
from agentws.agent.own_task import is_destroyed, run_apart

_logger: Final = logging.getLogger("agentws.agent")

READY: Final = "ok"
"""What is said where all is well."""

RAISED: Final = "the readiness handler raised an exception"

TOO_SLOW: Final = "the readiness handler did not return in time"

PATIENCE: Final = 2.0
"""Seconds that the handler may take (§1)."""

_LONGEST: Final = 200
"""Characters: probes are answered to anybody, and have no room for more than a few words."""


class Readiness:
    """Asks the agent, one call at a time: who asks meanwhile is told the same."""

    def __init__(self, handler: ReadinessHandler, patience: float = PATIENCE) -> None:
        """Give `handler` so many seconds."""
        self._handler = handler
        self._patience = patience
        self._asking: asyncio.Task[str] | None = None
        self._call: asyncio.Task[str] | None = None
        self._logged: object = None
        self.last: str | None = None
        """What was said last, if anything was asked."""

    async def ask(self) -> str:
        """Return `READY`, or a few words on why not, when the patience is over at the latest."""
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.create_task(self._ask())
        await asyncio.wait({asking})
        self.last = RAISED if asking.cancelled() else asking.result()
        return self.last

    async def _ask(self) -> str:
        if self._call is not None and not self._call.done():
            return TOO_SLOW  # it swallowed its cancellation, and is not called again meanwhile
        self._call = asyncio.create_task(self._call_handler())
        await asyncio.wait({self._call}, timeout=self._patience)
        if not self._call.done():
            self._call.cancel()
            line = "The readiness handler did not return within %g s"
            self._log_once(TOO_SLOW, line, self._patience)
            return TOO_SLOW
        return RAISED if self._call.cancelled() else self._call.result()

    async def _call_handler(self) -> str:
        try:
            words = _words(await run_apart(self._handler()))
        except asyncio.CancelledError:  # ours; one of the agent's own is `SelfCancelled`
            raise
        except BaseException as error:  # SystemExit, too: no handler takes the daemon with it
            if is_destroyed(error):
                raise
            self._log_once(type(error), "The readiness handler raised", error=error)
            return RAISED
        self._logged = None
        return words

    def _log_once(
        self, trouble: object, message: str, *arguments: object, error: BaseException | None = None
    ) -> None:
        """Write a line, unless the last call had the same trouble."""
        if trouble != self._logged:
            _logger.error(message, *arguments, exc_info=error)
        self._logged = trouble


def _words(answer: object) -> str:
    """Return what the handler says, as it can be told. Raises `TypeError`."""
    if answer is None:
        return READY
    if not isinstance(answer, str):
        raise TypeError(f"The handler must return None or a str, not {type(answer).__name__}")
    return answer[:_LONGEST].encode("utf-8", "replace").decode()
