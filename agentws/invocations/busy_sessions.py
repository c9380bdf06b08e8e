"""One session, one turn: interrupting what runs in a session, so that another may (§5)."""

import asyncio
from collections.abc import Sequence
from typing import Any

from agentws.invocations.cancelling import Cancelling
from agentws.invocations.invocation import Invocation
from agentws.invocations.live import LiveInvocations
from agentws.protocol.errors import Cancelled, InvocationError, SessionBusy, superseded
from agentws.stores.store import Store


class BusySessions:
    """Has invocations wait for their turn while those before them are cancelled.

    Which of several comes first is the store's to say: each one that claims its id is told of those
    that did before, and takes over from all of them, from such as wait for their turn, too.
    """

    def __init__(self, live: LiveInvocations, cancelling: Cancelling, store: Store) -> None:
        self._live = live
        self._cancelling = cancelling
        self._store = store
        self.waiting: set[asyncio.Task[Any]] = set()
        """What interrupts others at the moment."""

    def take_turn(self, invocation: Invocation, rivals: Sequence[str]) -> None:
        """Cancel `rivals`, the newest first, and let `invocation` begin when they have ended."""
        task = asyncio.get_running_loop().create_task(self._take_turn(invocation, rivals))
        self.waiting.add(task)
        task.add_done_callback(self.waiting.discard)

    async def _take_turn(self, invocation: Invocation, rivals: Sequence[str]) -> None:
        refusal: InvocationError | None = None
        try:
            reason = superseded(invocation.log.record.invocation_id)
            ended = await asyncio.gather(*(self._interrupt(rival, reason) for rival in rivals))
            refusal = next(
                (SessionBusy(rival) for rival, end in zip(rivals, ended, strict=True) if not end),
                None,
            )
        except InvocationError as error:  # the store is away
            refusal = error
        except asyncio.CancelledError:
            refusal = SessionBusy(rivals[0])
            raise
        finally:
            invocation.on_turn(refusal)

    async def _interrupt(self, rival: str, reason: Cancelled) -> bool:
        """Cancel an invocation, and tell whether it has ended within `cancel_grace`."""
        found = await self._store.look_up(rival)
        if found is None or found.record.ended:
            return True
        record = await self._cancelling.stop(self._live.get(rival), found.record, reason)
        return record is None or record.ended
