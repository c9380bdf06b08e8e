"""The client of an agent that no daemon serves."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Self

from agentws.agent.class_style import InvocationWebSocketHandler
from agentws.agent.handlers import Agent, InvokeHandler
from agentws.agent.loading import agent_of
from agentws.client.following import OnGap
from agentws.client.trace import current_trace
from agentws.config.settings import InvocationsSettings
from agentws.invocations.caller import Caller
from agentws.invocations.table import InvocationTable
from agentws.protocol.errors import InvocationError
from agentws.protocol.frames import (
    AttachInvocation,
    GetInvocation,
    IfSessionBusy,
    Invoke,
    ListInvocations,
    OnDisconnect,
)
from agentws.protocol.identifiers import new_id
from agentws.protocol.records import ShownStatus
from agentws.stores.memory import MemoryStore
from agentws.telemetry.operations import Telemetry
from agentws.telemetry.trace_context import read_trace
from agentws.testing.run import Run
from agentws.testing.verbs import said, seen_by_client, told

_CANCEL_TIME: Final = 1.0
"""Seconds for a handler that is cancelled at the end, unless `cancel_grace` is less (§8)."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class AgentClient:
    """Calls an agent as the daemon would, on its table, in memory, without sockets.

        async with AgentClient(agent) as client:
            assert await client.invoke({"message": "hi"}) == ...

    Entering runs the agent's startup handler; leaving ends what still runs, and runs the shutdown
    handler. What either raises is raised here.
    """

    def __init__(
        self,
        agent: Agent | InvokeHandler,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        send_timeout: float = 10.0,
        **settings: Any,
    ) -> None:
        """Test an `Agent`, or a bare async function or async generator function.

        `session_id` and `user_id` are those of calls that name none: without them, a session made
        for this client, and nobody. `send_timeout` is the setting of `[websocket]`, `settings` are
        those of `[invocations]`, such as `disconnect_grace=0.1`. Raises `TypeError` for an agent in
        class style, whose sockets are its own, and for a setting that is none; `ValueError` for
        one that may not have that value.
        """
        self._agent = _agent_of(agent)
        self._settings = _settings_of(settings)
        self._session_id = session_id or new_id()
        self._user_id = user_id
        self._send_timeout = send_timeout
        self._entered: InvocationTable | None = None
        self._store = MemoryStore(
            retention=self._settings.retention, max_retained=self._settings.max_retained
        )
        self._attaching: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._entered = InvocationTable(
            self._agent,
            self._store,
            self._settings,
            Telemetry(),
            send_timeout=self._send_timeout,
        )
        if self._agent.startup is not None:
            await self._agent.startup()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.drain(grace=0)
        finally:
            for task in self._attaching:
                task.cancel()
            await self._store.close()
        if self._agent.shutdown is not None:
            await self._agent.shutdown()

    def invoke(
        self,
        payload: Any,
        *,
        id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        background: bool = False,
        on_disconnect: OnDisconnect | None = None,
        if_session_busy: IfSessionBusy | None = None,
        on_gap: OnGap = "raise",
        client_headers: Mapping[str, str] = _NOTHING,
        query: Mapping[str, str] = _NOTHING,
        call_id: str | None = None,
    ) -> Run:
        """Invoke the agent, at once; whether it is refused, the run tells.

        `id`, `session_id`, `background`, `on_disconnect` and `if_session_busy` are the fields of
        the wire (§3). `user_id` is who calls; `client_headers` (`x-client-*`), `query` and
        `call_id` are what the handler finds in its context. `on_gap` says whether a run some of
        whose chunks are no longer held ends with `ReplayGap`, or skips them and tells so.

        Raises what encoding raises for a payload that JSON cannot hold.
        """
        session_id = session_id or self._session_id
        caller = self._caller(user_id, client_headers, query, call_id)
        run = Run(id or new_id(), self._table, caller, session_id=session_id, on_gap=on_gap)
        try:
            frame = said(
                Invoke,
                payload=payload,
                invocation_id=run.id,
                session_id=session_id,
                background=background,
                on_disconnect=on_disconnect,
                if_session_busy=if_session_busy,
            )
            self._start(run, frame, caller)
        except InvocationError as error:
            run.refuse(error)
        return run

    def attach(
        self,
        id: str,
        *,
        after: int = 0,
        user_id: str | None = None,
        on_gap: OnGap = "raise",
    ) -> Run:
        """Follow an invocation from what comes after a number; whether there is one, the run tells.

        `on_gap` is as in `invoke`.
        """
        caller = self._caller(user_id)
        run = Run(id, self._table, caller, session_id=self._session_id, after=after, on_gap=on_gap)
        task = asyncio.create_task(self._attach(run, caller))
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)
        return run

    async def get(self, id: str, *, user_id: str | None = None) -> Any:
        """Return the record of an invocation, or what the agent's own handler says of it.

        Raises `InvocationFailed`.
        """
        with seen_by_client():
            asked = said(GetInvocation, invocation_id=id)
            caller = self._caller(user_id)
            return told(await self._table.get(asked.invocation_id, self._session_id, caller))

    async def list(
        self,
        *,
        session_id: str | None = None,
        status: ShownStatus | None = None,
        user_id: str | None = None,
    ) -> AsyncIterator[Any]:
        """Iterate over the records of the caller's invocations, the newest first.

        Raises `InvocationFailed`.
        """
        caller, after = self._caller(user_id), None
        while True:
            with seen_by_client():
                asked = said(ListInvocations, session_id=session_id, status=status, after=after)
                page = await self._table.list(
                    caller, session_id=asked.session_id, status=asked.status, after=asked.after
                )
            for record in page.records:
                yield told(record)
            if (after := page.next) is None:
                return

    async def drain(self, grace: float) -> bool:
        """Do what SIGTERM does: refuse new invocations, and end those that run after `grace` s.

        Tell whether all have ended: a handler that does not end when it is cancelled is given up
        after a second, or `cancel_grace` where that is less.
        """
        return await self._table.drain(grace, min(self._settings.cancel_grace, _CANCEL_TIME))

    @property
    def _table(self) -> InvocationTable:
        if self._entered is None:
            raise RuntimeError("An AgentClient is to be used within `async with`")
        return self._entered

    def _start(self, run: Run, asked: Invoke, caller: Caller) -> None:
        log = self._table.invoke(
            asked.payload,
            caller,
            session_id=asked.session_id or self._session_id,
            invocation_id=asked.invocation_id,
            background=bool(asked.background),
            on_disconnect=asked.on_disconnect,
            if_session_busy=asked.if_session_busy,
        ).log
        if not asked.background:
            run.follow(log)
        elif log.refusal is not None:
            run.refuse(log.refusal)
        else:
            run.accept()

    async def _attach(self, run: Run, caller: Caller) -> None:
        try:
            asked = said(AttachInvocation, invocation_id=run.id, starting_after=run.cursor)
            run.follow(await self._table.attach(asked.invocation_id, caller))
        except InvocationError as error:
            run.refuse(error)

    def _caller(
        self,
        user_id: str | None,
        client_headers: Mapping[str, str] = _NOTHING,
        query: Mapping[str, str] = _NOTHING,
        call_id: str | None = None,
    ) -> Caller:
        return Caller(
            transport="websocket",
            request_id=new_id(),
            user_id=user_id or self._user_id,
            call_id=call_id,
            client_headers=MappingProxyType(_checked(client_headers)),
            query=MappingProxyType(dict(query)),
            trace=read_trace(current_trace()),
        )


def _agent_of(served: Any) -> Agent:
    if isinstance(served, Agent):
        return served
    is_class = isinstance(served, type) and issubclass(served, InvocationWebSocketHandler)
    if is_class or isinstance(served, InvocationWebSocketHandler):
        raise TypeError("An agent in class style owns its sockets: it is tested over a socket")
    return agent_of(served)


def _settings_of(given: Mapping[str, Any]) -> InvocationsSettings:
    unknown = given.keys() - InvocationsSettings.model_fields.keys()
    if unknown:
        raise TypeError(f"There is no setting {', '.join(sorted(unknown))} of invocations")
    return InvocationsSettings(**given)


def _checked(client_headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as a handler finds them. Raises `ValueError` for those it would not find."""
    headers = {name.lower(): value for name, value in client_headers.items()}
    for name in headers:
        if not name.startswith("x-client-"):
            raise ValueError(f"Of the caller's headers, a handler finds x-client-*, not {name}")
    return headers
