"""The invocation table: each invocation is a task of its own, known by its id."""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from opentelemetry.context import Context, attach

from agentws.agent.context import InvocationContext, end_reports
from agentws.agent.handlers import Agent, ContextHandler
from agentws.agent.own_task import is_destroyed, run_apart
from agentws.caller import Caller
from agentws.config.settings import InvocationsSettings
from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, PlatformError, internal_error, shutting_down
from agentws.protocol.frames import OnDisconnect
from agentws.protocol.identifiers import IdSource
from agentws.protocol.records import Record
from agentws.stores.log import Log, Outcome, Snapshot
from agentws.stores.log_reader import LogReader
from agentws.stores.store import Store, already_exists
from agentws.telemetry.operations import Operation, OperationName, Telemetry

_logger: Final = logging.getLogger("agentws.invocations")

BREATH: Final = 0.00025
"""Seconds for which a generator that awaits nothing may keep others from the event loop."""

ASK_AGAIN: Final = 1.0
"""Seconds after which another replica is asked again to cancel; the request may have been lost."""

STORE_PATIENCE: Final = 0.5
"""Seconds for which the store may delay the last ends of all."""

_THE_END: Final = sys.maxsize
"""The place in a log of a listener that only waits for its end."""

_NULL: Final = encode(None)

Found = TypeVar("Found", Log, Snapshot)


class Terms(Struct, frozen=True):
    """What all invocations of a daemon have in common."""

    agent: Agent
    settings: InvocationsSettings
    send_timeout: float
    """Seconds for which a stream waits for its listener at most."""
    logs_ends: bool
    """Whether each end has a line in the log."""
    loop: asyncio.AbstractEventLoop
    """Theirs: asking for it takes a system call on Python 3.11."""
    finish: Callable[[Log, Outcome], None]
    """Called with how the handler ended, unless the log has ended before."""
    forget: Callable[["Invocation"], None]
    """Called when log and handler have ended."""


class Invocation:
    """One run of the invoke handler, writing its log.

    The handler has a task of its own, in which nothing else is awaited: whatever the agent does to
    that task, before, while or after the handler returns, the end is told in one step.
    """

    __slots__ = (
        "_claim_waiters",
        "_claimed",
        "_context",
        "_deadline",
        "_is_over",
        "_operation",
        "_payload",
        "_runs",
        "_stop",
        "_stopped_at",
        "_task",
        "_terms",
        "_timer",
        "caller",
        "log",
        "outcome",
    )

    def __init__(
        self,
        log: Log,
        payload: Any,
        caller: Caller,
        context: InvocationContext,
        operation: Operation,
        terms: Terms,
    ) -> None:
        """Make a run that writes to `log`; it begins when the store has taken the id."""
        self.log = log
        log.on_end = self._on_log_end
        self.caller = caller
        self.outcome: Outcome | None = None
        """How the handler ended, where it has."""
        self._payload = payload
        self._context = context
        self._operation = operation
        self._terms = terms
        self._claimed = False
        self._claim_waiters: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._runs = False
        self._is_over = False
        self._stop: InvocationError | None = None
        self._stopped_at = 0.0
        self._timer: asyncio.TimerHandle | None = None  # for `invocations.timeout`
        self._deadline: asyncio.TimerHandle | None = None  # for the first listener to come back

    def on_claimed(self, refusal: InvocationError | None) -> None:
        """Call the handler now that the id is claimed, or end if the store refused it."""
        self._claimed = True
        if self._claim_waiters is not None:
            self._claim_waiters.set()
        if refusal is not None:
            self.log.refuse(refusal)
            self._operation.refuse(refusal)
            return
        self.caller.started += 1
        self._task = self._terms.loop.create_task(self._run())
        self._task.add_done_callback(self._on_done)  # should it be cancelled before it begins

    async def _run(self) -> None:
        """Call the handler and tell how it ended. Raises nothing, whatever it does."""
        assert self._task is not None
        self._task.remove_done_callback(self._on_done)
        self._runs = True
        attach(self._operation.trace)  # in a task of the invocation's own, which needs no detaching
        if self._terms.settings.timeout:
            self._timer = self._arm_timeout()
        agent = self._terms.agent
        try:
            result = None
            if self._stop is None:
                assert agent.invoke is not None
                answer = agent.invoke(self._payload, self._context)
                if agent.streams:
                    await self._write_stream(cast(AsyncGenerator[Any, None], answer))
                else:
                    result = encode(await cast(Awaitable[Any], answer))
        except BaseException as error:  # SystemExit, too: no handler takes the daemon with it
            if is_destroyed(error):
                raise
            self.outcome = self._end(self._translate(error), cause=error)
        else:
            self.outcome = self._end(self._stop, result)
        finally:
            self._runs = False
        self._on_done(self._task)

    def _on_done(self, _task: "asyncio.Task[None]") -> None:
        """Have the log end, now that the handler has."""
        self._is_over = True
        end_reports(self._context)
        if self._timer is not None:
            self._timer.cancel()
        if self._deadline is not None:
            self._deadline.cancel()
        if self.outcome is None:  # the task was cancelled before it began
            self.outcome = self._end(self._translate(asyncio.CancelledError()))
        if self.log.ended:  # it was lost, or given up
            self._terms.forget(self)
        else:
            self._terms.finish(self.log, self.outcome)

    def _on_log_end(self) -> None:
        """Tell of the end, and be forgotten, unless the handler goes on: lost, or given up."""
        if self._terms.logs_ends and self.log.refusal is None:
            self._log_end()
        if self._task is None or self._is_over:
            self._terms.forget(self)

    async def claim_settled(self) -> None:
        """Wait until the store has taken the id, or refused it."""
        if not self._claimed:
            if self._claim_waiters is None:
                self._claim_waiters = asyncio.Event()
            await self._claim_waiters.wait()

    def _log_end(self) -> None:
        """Write the one line that each invocation leaves behind."""
        record = self.log.record
        fields: dict[str, object] = {
            "invocation_id": record.invocation_id,
            "session_id": record.session_id,
            "transport": self._context.transport,
            "status": record.status,
            "duration_ms": round(((record.finished_at or 0.0) - record.created_at) * 1000),
            "chunks": self.log.last,
        }
        if record.failure is not None:
            fields["error_code"] = record.failure.code
        if self._stop is not None:
            fields["reason"] = self._stop.message
        _logger.info("Invocation %s", record.status, extra=fields)

    def give_up(self, reason: InvocationError) -> Outcome:
        """Return how it ended, although the handler has not."""
        self._operation.fail(reason)
        return Outcome("failed", error=reason)

    async def accepted(self) -> None:
        """Wait until the id is claimed. Raises the `InvocationError` that refused it."""
        await self.claim_settled()
        if self.log.refusal is not None:
            raise self.log.refusal

    def stop(self, reason: InvocationError) -> None:
        """Cancel the handler; what it still says is dropped, and the record says `reason`.

        Asking again within `cancel_grace` changes nothing, so that its clean-up is left alone;
        asking later interrupts it once more. The first reason stays.
        """
        now = self._terms.loop.time()
        if self._stop is None:
            self._stop = reason
        elif now < self._stopped_at + self._terms.settings.cancel_grace:
            return
        self._stopped_at = now
        if self._runs and self._task is not None:  # before that it would never be called
            self._task.cancel()

    async def cancel(self) -> bool:
        """Stop at the client's wish; tell whether the handler ended within `cancel_grace`."""
        self.stop(InvocationError("cancelled", "The invocation was cancelled"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._terms.settings.cancel_grace):
                await self.ended()
        return self.log.ended

    async def ended(self) -> None:
        """Wait until the log has ended."""
        with LogReader(self.log, _THE_END) as reader:
            while not reader.finished:
                await reader.read()

    def cancel_when_deserted(self) -> None:
        """From now on, stop when nobody has listened for `disconnect_grace` seconds (§5).

        The time runs from the leaving of the last listener, so somebody must listen by now or at
        once.
        """
        self.log.on_attendance = self._on_attendance

    def _on_attendance(self, attended: bool) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not attended and not self.log.ended:
            grace = self._terms.settings.disconnect_grace
            self._deadline = self._terms.loop.call_later(grace, self._stop_deserted)

    def _stop_deserted(self) -> None:
        self.stop(InvocationError("cancelled", "Nobody listened to the invocation any more"))

    def _arm_timeout(self) -> asyncio.TimerHandle:
        seconds = self._terms.settings.timeout
        reason = InvocationError(
            "timeout", f"The invocation did not end within {seconds:g} seconds"
        )
        return self._terms.loop.call_later(seconds, self.stop, reason)

    async def _write_stream(self, generator: AsyncGenerator[Any, None]) -> None:
        """Append what the generator yields, at the pace of its fastest listener (§5)."""
        log, clock = self.log, self._terms.loop.time
        breathed = float("-inf")
        async with contextlib.aclosing(generator):
            async for value in generator:
                if self._stop is not None:  # it swallowed its cancellation
                    return
                log.append(encode(value))
                is_over_high_water = log.is_over_high_water
                if not is_over_high_water and clock() <= breathed + BREATH:
                    continue
                if log.last == 1:  # after which a breath is always due
                    self._operation.first_chunk()
                await (
                    log.wait_for_followers(self._terms.send_timeout)
                    if is_over_high_water
                    else asyncio.sleep(0)
                )
                breathed = clock()

    def _translate(self, error: BaseException) -> InvocationError:
        """Return what the client sees of an exception; its text goes to the log only (§7)."""
        if isinstance(error, asyncio.CancelledError) and self._stop is not None:
            return self._stop
        if isinstance(error, InvocationError):
            return self._stop or error
        _logger.error("The invoke handler raised", exc_info=error)
        return self._stop or internal_error()

    def _end(
        self,
        error: InvocationError | None,
        result: bytes | None = None,
        cause: BaseException | None = None,
    ) -> Outcome:
        if error is None:
            self._operation.succeed()
            return Outcome("completed", result)
        if error is self._stop and error.code == "cancelled":
            self._operation.cancel()
            return Outcome("cancelled", error=error)
        is_foreign = error is not self._stop and error is not cause
        self._operation.fail(error, cause if is_foreign else None)
        return Outcome("failed", error=error)


class Ends(NamedTuple):
    """How many invocations ended during a drain, and how."""

    ended: int = 0
    cancelled: int = 0
    given_up: int = 0


class InvocationTable:
    """All invocations of this daemon, by id: invoke, get, cancel, attach; and drain."""

    def __init__(
        self,
        agent: Agent,
        store: Store,
        settings: InvocationsSettings,
        telemetry: Telemetry,
        *,
        send_timeout: float,
        logs_ends: bool = False,
    ) -> None:
        """Make an empty table; a stream waits for its listener `send_timeout` seconds at most.

        `logs_ends` tells whether each invocation's end has a line in the log.
        """
        self._agent = agent
        self._store = store
        self._telemetry = telemetry
        telemetry.metrics.watch_invocations(lambda: self.running)
        self._settings = settings
        self._live: dict[str, Invocation] = {}
        self._errands: set[asyncio.Task[bytes]] = set()
        self.ends = Ends()
        """What has become of those that ran when the drain began."""
        self._emptied: asyncio.Future[None] | None = None
        self._draining = False
        self._new_id = IdSource()
        self._loop = asyncio.get_running_loop()
        self._terms = Terms(
            agent=agent,
            settings=settings,
            send_timeout=send_timeout,
            logs_ends=logs_ends,
            loop=self._loop,
            finish=store.finish,
            forget=self._forget,
        )

    @property
    def running(self) -> int:
        """How many invocations have not ended."""
        return len(self._live)

    def invoke(
        self,
        payload: Any,
        caller: Caller,
        *,
        session_id: str,
        invocation_id: str | None = None,
        background: bool = False,
        on_disconnect: OnDisconnect | None = None,
        trace: Context | None = None,
    ) -> Invocation:
        """Start an invocation and return it at once; its id is claimed by its own task.

        `on_disconnect` None stands for the setting; `background` wins over it. `trace` is where
        the invoke stands in its caller's trace, None for where the caller itself does. Raises
        `InvocationError` (`not_implemented`, `shutting_down`, `already_exists`,
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
        context = caller.context(record.invocation_id, session_id, log)
        operation = self._telemetry.begin(
            "invoke_agent", context, caller.trace if trace is None else trace
        )
        try:
            self._admit(invocation_id, caller)
        except InvocationError as refusal:
            operation.refuse(refusal)
            raise
        invocation = Invocation(log, payload, caller, context, operation, self._terms)
        self._live[record.invocation_id] = invocation
        caller.running += 1
        if not background and (on_disconnect or self._settings.on_disconnect) == "cancel":
            invocation.cancel_when_deserted()
        self._store.claim(log, invocation.stop, invocation.on_claimed)
        return invocation

    def _forget(self, invocation: Invocation) -> None:
        """Count an invocation no longer among those that run."""
        del self._live[invocation.log.record.invocation_id]
        invocation.caller.running -= 1
        if not self._live and self._emptied is not None:
            self._emptied.set_result(None)
            self._emptied = None

    # The verbs look for the invocation when they are called, not when they are awaited: what is
    # asked of a socket takes effect in its order, however long the store takes (§3).

    def get(
        self, invocation_id: str, session_id: str, caller: Caller, trace: Context | None = None
    ) -> Awaitable[bytes]:
        """Return the record as JSON, or what the agent's own handler returns unless that is None.

        `trace` is as in `invoke`. Raises `InvocationError` (`not_found`, or the handler's).
        """
        context = caller.context(invocation_id, session_id)
        work = self._get(self._live.get(invocation_id), context, caller)
        return self._observe("get_invocation", context, caller, trace, work)

    def cancel(
        self, invocation_id: str, session_id: str, caller: Caller, trace: Context | None = None
    ) -> Awaitable[bytes]:
        """Cancel an invocation and return the answer as JSON (§5).

        The agent's own handler decides first, for any id, and is seen through although the client
        that asked for it may leave. `trace` is as in `invoke`. Raises `InvocationError`
        (`not_found`, `already_finished`, or the handler's).
        """
        context = caller.context(invocation_id, session_id)
        work = self._cancel(self._live.get(invocation_id), context, caller)
        observed = self._observe("cancel_invocation", context, caller, trace, work)
        return observed if self._agent.cancel is None else self._run_errand(observed)

    def attach(self, invocation_id: str, caller: Caller) -> Awaitable[Log]:
        """Return the log of an invocation, to be followed.

        Raises `InvocationError` (`not_found`).
        """
        return self._attach(self._live.get(invocation_id), invocation_id, caller)

    async def _observe(
        self,
        action: OperationName,
        context: InvocationContext,
        caller: Caller,
        trace: Context | None,
        work: Coroutine[Any, Any, bytes],
    ) -> bytes:
        with self._telemetry.begin(action, context, caller.trace if trace is None else trace):
            return await work

    async def _get(
        self, live: Invocation | None, context: InvocationContext, caller: Caller
    ) -> bytes:
        found = await self._look_up(live, context.invocation_id, caller)
        if self._agent.get is not None:
            answer = await _ask(self._agent.get, context, found)
            if answer != _NULL:
                return answer
            # The handler may have waited for just that which the record tells by now.
            found = await self._look_up(live, context.invocation_id, caller)
        return _existing(found).describe()

    async def _cancel(
        self, live: Invocation | None, context: InvocationContext, caller: Caller
    ) -> bytes:
        found = await self._look_up(live, context.invocation_id, caller)
        if self._agent.cancel is not None:
            return await self._cancel_by_agent(self._agent.cancel, context, found)
        record = _existing(found).record
        if record.status == "running":
            record = await self._stop(live, record)
            if record.status == "running":
                return _cancel_answer(context, "cancelling")
            if record.status == "cancelled":
                return _cancel_answer(context, "cancelled")
        raise InvocationError(
            "already_finished", f"The invocation has already ended: {record.status}"
        )

    async def _attach(self, live: Invocation | None, invocation_id: str, caller: Caller) -> Log:
        _existing(await self._look_up(live, invocation_id, caller))
        return _existing(await self._store.find(invocation_id))

    async def _look_up(
        self, live: Invocation | None, invocation_id: str, caller: Caller
    ) -> Snapshot | None:
        """Return what is known of an invocation. Raises `not_found` for another owner's (§5).

        `live` is the invocation of that id that ran here when the caller asked.
        """
        if live is not None:
            await live.claim_settled()
        found = await self._store.look_up(invocation_id)
        if found is None:
            return None
        if live is None and _is_run_by(self._live.get(invocation_id), found.record):
            return None  # it was started after the caller had asked
        if found.record.owner != caller.owner:
            raise not_found()
        return found

    async def _stop(self, live: Invocation | None, record: Record) -> Record:
        """Cancel an invocation, wherever it runs; return its record after `cancel_grace`."""
        if live is not None and _is_run_by(live, record):
            await live.cancel()
            return record
        log = _existing(await self._store.find(record.invocation_id))
        await self._stop_elsewhere(log)
        return log.record

    async def _stop_elsewhere(self, log: Log) -> None:
        """Ask the replica that runs an invocation to cancel it, until it has, or `cancel_grace`."""
        deadline = self._loop.time() + self._settings.cancel_grace
        with LogReader(log, _THE_END) as reader:
            while True:
                await self._store.cancel(log.record.invocation_id)
                left = deadline - self._loop.time()
                with contextlib.suppress(TimeoutError):
                    await reader.read(max(0.0, min(left, ASK_AGAIN)))
                if reader.finished or left <= ASK_AGAIN:
                    return

    async def drain(self, grace: float, patience: float) -> bool:
        """Admit no more, wait `grace` seconds for what runs, then cancel it (§8).

        Tell whether everything has ended: a handler that swallows its cancellation is given up
        after `patience` seconds, and its task goes on.
        """
        self._draining = True
        running = len(self._live)
        await self._settle(grace)
        late = len(self._live)
        reason = shutting_down()
        for invocation in list(self._live.values()):
            invocation.stop(reason)
        for errand in self._errands:
            errand.cancel()
        await self._settle(patience)
        stuck = list(self._live.values())
        self.ends = Ends(running - late, late - len(stuck), len(stuck))
        for invocation in stuck:
            self._give_up(invocation, reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STORE_PATIENCE):
                await asyncio.gather(*(invocation.ended() for invocation in stuck))
        return not stuck and not self._errands

    def _give_up(self, invocation: Invocation, reason: InvocationError) -> None:
        if invocation.outcome is None:
            _logger.warning(
                "Gave up on a handler that did not end when it was cancelled",
                extra={"invocation_id": invocation.log.record.invocation_id},
            )
        self._store.finish(invocation.log, invocation.outcome or invocation.give_up(reason))

    async def _settle(self, patience: float) -> None:
        """Wait until nothing runs, `patience` seconds at most."""
        waiting: set[asyncio.Future[Any]] = set(self._errands)
        if self._live:
            self._emptied = self._loop.create_future()
            waiting.add(self._emptied)
        if waiting:
            await asyncio.wait(waiting, timeout=patience)

    async def _run_errand(self, errand: Coroutine[Any, Any, bytes]) -> bytes:
        """Do something in a task of its own, which goes on although the client may leave."""
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return await asyncio.shield(task)

    async def _cancel_by_agent(
        self, handler: ContextHandler, context: InvocationContext, found: Snapshot | None
    ) -> bytes:
        answer = await _ask(handler, context, found)
        found = await self._store.look_up(context.invocation_id)
        if found is not None and found.record.status == "running":
            await self._stop(self._live.get(context.invocation_id), found.record)
        return answer

    def _admit(self, invocation_id: str | None, caller: Caller) -> None:
        if self._agent.invoke is None:
            raise InvocationError("not_implemented", "The agent has no invoke handler")
        if self._draining:
            raise shutting_down()
        if invocation_id in self._live:
            raise already_exists()
        if len(self._live) >= self._settings.max_running:
            raise PlatformError(
                "too_many_invocations",
                f"The server runs its limit of {self._settings.max_running} invocations",
            )
        if caller.max_running is not None and caller.running >= caller.max_running:
            raise PlatformError(
                "too_many_invocations",
                f"This connection runs its limit of {caller.max_running} invocations",
            )


def not_found() -> InvocationError:
    """Return the answer for an invocation that does not exist, or is another's."""
    return InvocationError("not_found", "There is no such invocation")


def _cancel_answer(context: InvocationContext, status: str) -> bytes:
    return encode({"invocation_id": context.invocation_id, "status": status})


def _is_run_by(invocation: Invocation | None, record: Record) -> bool:
    return invocation is not None and invocation.log.record is record


def _existing(found: Found | None) -> Found:
    if found is None:
        raise not_found()
    return found


def _about(context: InvocationContext, found: Snapshot | None) -> InvocationContext:
    """Return the context for a handler that is asked about an invocation: its record is in it."""
    if found is None:
        return context
    return replace(context, record=msgspec.json.decode(found.describe()))


async def _ask(
    handler: ContextHandler, context: InvocationContext, found: Snapshot | None
) -> bytes:
    """Call a get or cancel handler of the agent on what was found, and encode its answer.

    Raises `InvocationError`: the handler's own, or `internal_error`.
    """
    try:
        return encode(await run_apart(handler(_about(context, found))))
    except (InvocationError, asyncio.CancelledError):  # whoever asked has left
        raise
    except BaseException as error:
        if is_destroyed(error):
            raise
        _logger.error("The agent's handler raised", exc_info=error)
        raise internal_error() from error
