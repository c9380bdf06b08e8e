"""The end of all invocations at shutdown (§8)."""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from agentws.invocations.invocation import Invocation
from agentws.invocations.live import LiveInvocations
from agentws.protocol.errors import InvocationError, shutting_down
from agentws.stores.store import Store

_logger: Final = logging.getLogger("agentws.invocations")

STORE_PATIENCE: Final = 0.5
"""Seconds for which the store may delay the last ends of all."""


class Ends(NamedTuple):
    """How many invocations ended during a drain, and how."""

    ended: int = 0
    cancelled: int = 0
    given_up: int = 0


class Drain:
    """Waits for what runs, cancels the rest, and gives up on what does not end even so."""

    def __init__(
        self,
        live: LiveInvocations,
        others: Sequence[Collection["asyncio.Task[Any]"]],
        store: Store,
    ) -> None:
        """Have `live` end, and the tasks in each of `others`, which may change meanwhile."""
        self._live = live
        self._others = others
        self._store = store
        self.ends = Ends()
        """What has become of those that ran when the drain began."""

    async def run(self, grace: float, patience: float) -> bool:
        """Wait `grace` seconds for what runs, then cancel it.

        Tell whether everything has ended: a handler that swallows its cancellation is given up
        after `patience` seconds, and its task goes on.
        """
        running = len(self._live)
        await self._settle(grace)
        late = len(self._live)
        reason = shutting_down()
        for invocation in list(self._live.values()):
            invocation.stop(reason)
        for other in chain.from_iterable(self._others):
            other.cancel()
        await self._settle(patience)
        stuck = list(self._live.values())
        self.ends = Ends(running - late, late - len(stuck), len(stuck))
        for invocation in stuck:
            self._give_up(invocation, reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STORE_PATIENCE):
                await asyncio.gather(*(invocation.wait_for_end() for invocation in stuck))
        return not stuck and not any(self._others)

    async def _settle(self, patience: float) -> None:
        """Wait until nothing runs, `patience` seconds at most."""
        waiting: set[asyncio.Future[Any]] = {
            *chain.from_iterable(self._others),
            self._live.emptied(),
        }
        await asyncio.wait(waiting, timeout=patience)

    def _give_up(self, invocation: Invocation, reason: InvocationError) -> None:
        if invocation.outcome is None:
            _logger.warning(
                "Gave up on a handler that did not end when it was cancelled",
                extra={"invocation_id": invocation.log.record.invocation_id},
            )
        self._store.finish(invocation.log, invocation.outcome or invocation.give_up(reason))
