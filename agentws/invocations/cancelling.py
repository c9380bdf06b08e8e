"""Cancelling an invocation, wherever it runs (§5)."""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine
from typing import Any, Final

from agentws.agent.context import InvocationContext
from agentws.agent.handlers import Agent, ContextHandler
from agentws.config.settings import InvocationsSettings
from agentws.invocations.agent_answers import ask_agent
from agentws.invocations.caller import Caller
from agentws.invocations.invocation import THE_END, Invocation
from agentws.invocations.live import LiveInvocations, runs
from agentws.invocations.lookup import Lookup
from agentws.invocations.ownership import existing
from agentws.protocol.encoding import encode
from agentws.protocol.errors import Cancelled, already_finished, cancelled
from agentws.protocol.records import Record
from agentws.stores.log import Log
from agentws.stores.log_reader import LogReader
from agentws.stores.store import Store

ASK_AGAIN: Final = 1.0
"""Seconds after which another replica is asked again to cancel; the request may have been lost."""


class Cancelling:
    """Cancels what it is asked to, and lets the agent's own handler decide where there is one."""

    def __init__(
        self,
        agent: Agent,
        live: LiveInvocations,
        lookup: Lookup,
        store: Store,
        settings: InvocationsSettings,
    ) -> None:
        self._agent = agent
        self._live = live
        self._lookup = lookup
        self._store = store
        self._grace = settings.cancel_grace
        self.seen_through: set[asyncio.Task[bytes]] = set()
        """Cancels that go on although the client that asked for them may have left."""

    def cancel(
        self, live: Invocation | None, context: InvocationContext, caller: Caller
    ) -> Coroutine[Any, Any, bytes]:
        """Return what cancels an invocation, and then answers in JSON (§5).

        `live` is as `Lookup` has it. Raises `InvocationError` (`not_found`, `already_finished`, or
        the handler's).
        """
        if (handler := self._agent.cancel) is None:
            return self._cancel(live, context, caller)
        return self._cancel_by_agent(handler, live, context, caller)

    def see_through(self, cancel: Coroutine[Any, Any, bytes]) -> Awaitable[bytes]:
        """Have a cancel done although its client may leave, where the agent has a handler for it.

        The handler has begun to undo something, perhaps elsewhere, and half of that is no state.
        """
        if self._agent.cancel is None:
            return cancel
        task = asyncio.get_running_loop().create_task(cancel)
        self.seen_through.add(task)
        task.add_done_callback(self.seen_through.discard)
        return asyncio.shield(task)

    async def _cancel(
        self, live: Invocation | None, context: InvocationContext, caller: Caller
    ) -> bytes:
        record = existing(await self._lookup.snapshot(live, context.invocation_id, caller)).record
        if not record.ended:
            # What this returns is the invocation's own record, or the copy of it that is kept here
            # of another replica's: it changes behind the variable, and tells how it ended.
            record = await self.stop(live, record, cancelled())
            if record.status in ("running", "cancelled"):
                return _answer(context, "cancelling" if record.status == "running" else "cancelled")
        raise already_finished(record.status)

    async def _cancel_by_agent(
        self,
        handler: ContextHandler,
        live: Invocation | None,
        context: InvocationContext,
        caller: Caller,
    ) -> bytes:
        found = await self._lookup.snapshot(live, context.invocation_id, caller)
        answer = await ask_agent(handler, context, found)
        found = await self._store.look_up(context.invocation_id)
        if found is not None and not found.record.ended:
            live = self._live.get(context.invocation_id)
            await self.stop(live, found.record, cancelled())
        return answer

    async def stop(self, live: Invocation | None, record: Record, reason: Cancelled) -> Record:
        """Cancel an invocation, wherever it runs; return its record after `cancel_grace`."""
        if live is not None and runs(live, record):
            await live.cancel(reason)
            return record
        log = existing(await self._store.find(record.invocation_id))
        await self._stop_elsewhere(log, reason)
        return log.record

    async def _stop_elsewhere(self, log: Log, reason: Cancelled) -> None:
        """Ask the replica that runs an invocation to cancel it, until it has, or `cancel_grace`."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._grace
        with LogReader(log, THE_END) as reader:
            while True:
                await self._store.cancel(log.record.invocation_id, reason)
                left = deadline - clock()
                with contextlib.suppress(TimeoutError):
                    await reader.read(max(0.0, min(left, ASK_AGAIN)))
                if reader.finished or left <= ASK_AGAIN:
                    return


def _answer(context: InvocationContext, status: str) -> bytes:
    return encode({"invocation_id": context.invocation_id, "status": status})
