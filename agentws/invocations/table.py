"""The invocation table: the verbs that every transport calls."""

import asyncio
import time
from collections.abc import Awaitable, Coroutine
from typing import Any

from opentelemetry.context import Context as TraceContext

from agentws.agent.context import InvocationContext
from agentws.agent.conversation import Draining
from agentws.agent.handlers import Agent
from agentws.config.settings import InvocationsSettings
from agentws.invocations.agent_answers import NO_ANSWER, ask_agent
from agentws.invocations.busy_sessions import BusySessions
from agentws.invocations.caller import Caller
from agentws.invocations.cancelling import Cancelling
from agentws.invocations.drain import Drain, Ends
from agentws.invocations.inputs import Inputs
from agentws.invocations.invocation import Invocation, Shared
from agentws.invocations.limits import check_limits
from agentws.invocations.listing import Listed, list_own
from agentws.invocations.live import LiveInvocations
from agentws.invocations.lookup import Lookup
from agentws.invocations.ownership import existing
from agentws.invocations.pace import LoopQueue
from agentws.protocol.errors import InvocationError, already_exists, shutting_down
from agentws.protocol.frames import IfSessionBusy, OnDisconnect
from agentws.protocol.identifiers import IdSource
from agentws.protocol.inputs import Delivery
from agentws.protocol.records import Record, ShownStatus
from agentws.stores.log import Log
from agentws.stores.store import Store
from agentws.telemetry.operations import OperationName, Telemetry


def may_exist(refusal: InvocationError) -> bool:
    """Tell whether an invoke was refused though, or because, there may be one of its id.

    Then a client that will have that one as well can be attached to it: no limit counts there.
    """
    return refusal.code in ("already_exists", "too_many_invocations", "shutting_down")


class InvocationTable:
    """All invocations, by id: invoke, get, cancel, attach, send_input, list; and drain.

    Each verb but `invoke` returns what is to be awaited, and none of them is an `async def`: what
    it is about is looked for when it is called, so that what a socket asks takes effect in the
    order of its messages (§3), and not in the order in which the tasks that await begin.
    """

    def __init__(
        self,
        agent: Agent,
        store: Store,
        settings: InvocationsSettings,
        telemetry: Telemetry,
        *,
        send_timeout: float,
        logs_ends: bool = False,
        draining: Draining | None = None,
    ) -> None:
        """Make an empty table; a stream waits for its follower `send_timeout` seconds at most.

        `logs_ends` tells whether each invocation's end has a line in the log; handlers are told of
        `draining`, which is begun elsewhere.
        """
        self._agent = agent
        self._store = store
        self._settings = settings
        self._telemetry = telemetry
        self._draining = draining or Draining()
        self._live = LiveInvocations(count_owners=settings.max_running_per_owner > 0)
        self._lookup = Lookup(self._live, store)
        self._inputs = Inputs(self._lookup, store)
        self._cancelling = Cancelling(agent, self._live, self._lookup, store, settings)
        self._sessions = BusySessions(self._live, self._cancelling, store)
        tasks = self._cancelling.seen_through, self._sessions.waiting
        self._drain = Drain(self._live, tasks, store)
        self._new_id = IdSource()
        self._shared = Shared(
            agent=agent,
            settings=settings,
            send_timeout=send_timeout,
            logs_ends=logs_ends,
            loop=asyncio.get_running_loop(),
            loop_queue=LoopQueue(),
            finish=store.finish,
            withdraw=store.withdraw,
            take_turn=self._sessions.take_turn,
            forget=self._live.forget,
        )
        telemetry.metrics.watch_invocations(lambda: self.running)

    @property
    def running(self) -> int:
        """How many invocations have not ended."""
        return len(self._live)

    @property
    def asking(self) -> int:
        """How many of them wait for somebody's answer."""
        return self._live.asking

    @property
    def chunks(self) -> int:
        """How many chunks have been written since the start."""
        return self._live.chunks

    @property
    def ends(self) -> Ends:
        """What has become of those that ran when the drain began."""
        return self._drain.ends

    def invoke(
        self,
        payload: Any,
        caller: Caller,
        *,
        session_id: str,
        invocation_id: str | None = None,
        background: bool = False,
        on_disconnect: OnDisconnect | None = None,
        if_session_busy: IfSessionBusy | None = None,
        may_attach: bool = False,
        trace: TraceContext | None = None,
    ) -> Invocation:
        """Start an invocation and return it at once; whether its id was free is told later.

        `on_disconnect` and `if_session_busy` None stand for the setting; `background` wins over the
        former. `may_attach` tells that `attach_instead` follows where the id exists, so that this
        is no failure. `trace` is where the invoke stands in its caller's trace, None for where the
        caller itself does. Raises `InvocationError` (`invalid_request` for a payload
        that is not of the agent's type, `not_implemented`, `shutting_down`, `already_exists`,
        `too_many_invocations`).
        """
        record = Record(
            invocation_id=invocation_id or self._new_id(),
            session_id=session_id,
            created_at=time.time(),
            owner=caller.owner,
            streams=self._agent.streams,
        )
        log = Log(record, self._settings.replay_bytes)
        context = caller.context(record.invocation_id, session_id, self._draining, self._live)
        operation = self._telemetry.begin(
            "invoke_agent", context, caller.trace if trace is None else trace
        )
        try:
            payload = self._agent.convert(payload)
            self._admit(invocation_id, caller)
        except InvocationError as refusal:
            operation.refuse(refusal, is_expected=may_attach)
            raise
        invocation = Invocation(
            log, payload, caller, context, operation, self._shared, may_attach=may_attach
        )
        self._live.add(invocation)
        if not background and (on_disconnect or self._settings.on_disconnect) == "cancel":
            invocation.cancel_when_unattended()
        busy = if_session_busy or self._settings.if_session_busy
        self._store.claim(log, invocation, invocation.on_claimed, busy)
        return invocation

    def get(
        self, invocation_id: str, session_id: str, caller: Caller, trace: TraceContext | None = None
    ) -> Awaitable[bytes]:
        """Return the record as JSON, or what the agent's own handler returns unless that is None.

        `trace` is as in `invoke`. Raises `InvocationError` (`not_found`, or the handler's).
        """
        context = caller.context(invocation_id, session_id, self._draining)
        work = self._get(self._live.get(invocation_id), context, caller)
        return self._observe("get_invocation", context, caller, trace, work)

    def cancel(
        self, invocation_id: str, session_id: str, caller: Caller, trace: TraceContext | None = None
    ) -> Awaitable[bytes]:
        """Cancel an invocation and return the answer as JSON (§5).

        The agent's own handler decides first, for any id, and is seen through although the client
        that asked for it may leave. `trace` is as in `invoke`. Raises `InvocationError`
        (`not_found`, `already_finished`, or the handler's).
        """
        context = caller.context(invocation_id, session_id, self._draining)
        work = self._cancelling.cancel(self._live.get(invocation_id), context, caller)
        observed = self._observe("cancel_invocation", context, caller, trace, work)
        return self._cancelling.see_through(observed)

    def attach(self, invocation_id: str, caller: Caller) -> Awaitable[Log]:
        """Return the log of an invocation, to be followed.

        Raises `InvocationError` (`not_found`).
        """
        return self._lookup.log(self._live.get(invocation_id), invocation_id, caller)

    def attach_instead(
        self, invocation_id: str, caller: Caller, refusal: InvocationError
    ) -> Awaitable[Log]:
        """Return the log of the caller's own invocation in place of an invoke that was refused.

        Raises the refusal where there is none.
        """
        return self._attach_instead(self.attach(invocation_id, caller), refusal)

    def send_input(
        self, invocation_id: str, caller: Caller, delivery: Delivery
    ) -> Awaitable[bytes]:
        """Say something to a running invocation, and return the answer as JSON (§5).

        Raises `InvocationError` (`not_found`, `already_finished`, `too_many_inputs`,
        `input_not_expected`, `invalid_request`, `store_unavailable`).
        """
        return self._inputs.send(self._live.get(invocation_id), invocation_id, caller, delivery)

    def list(
        self,
        caller: Caller,
        *,
        session_id: str | None = None,
        status: ShownStatus | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Awaitable[Listed]:
        """Return a page of the caller's invocations; see `list_own`."""
        return list_own(
            self._store, caller, session_id=session_id, status=status, limit=limit, after=after
        )

    async def drain(self, grace: float, patience: float) -> bool:
        """Admit no more, and have all end (§8); see `Drain.run`."""
        self._draining.begin()
        return await self._drain.run(grace, patience)

    def _admit(self, invocation_id: str | None, caller: Caller) -> None:
        if self._agent.invoke is None:
            raise InvocationError("not_implemented", "The agent has no invoke handler")
        if self._draining.begun:
            raise shutting_down()
        if invocation_id in self._live:
            raise already_exists()
        check_limits(self._live, self._settings, caller)

    async def _observe(
        self,
        name: OperationName,
        context: InvocationContext,
        caller: Caller,
        trace: TraceContext | None,
        work: Coroutine[Any, Any, bytes],
    ) -> bytes:
        with self._telemetry.begin(name, context, caller.trace if trace is None else trace):
            return await work

    async def _get(
        self, live: Invocation | None, context: InvocationContext, caller: Caller
    ) -> bytes:
        found = await self._lookup.snapshot(live, context.invocation_id, caller)
        if self._agent.get is not None:
            answer = await ask_agent(self._agent.get, context, found)
            if answer != NO_ANSWER:
                return answer
            # The handler may have waited for just that which the record tells by now.
            found = await self._lookup.snapshot(live, context.invocation_id, caller)
        return existing(found).describe()

    async def _attach_instead(self, attached: Awaitable[Log], refusal: InvocationError) -> Log:
        try:
            return await attached
        except InvocationError as error:
            raise refusal if error.code == "not_found" else error from None
