"""One run of the invoke handler: from the claim of its id to the end of its log."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Final, cast

from msgspec import Struct
from opentelemetry.context import attach

from agentws.agent.context import InvocationContext
from agentws.agent.conversation import Answer, Ask, Input
from agentws.agent.handlers import Agent
from agentws.agent.own_task import is_destroyed
from agentws.config.settings import InvocationsSettings
from agentws.invocations.agent_errors import error_for_client
from agentws.invocations.caller import Caller
from agentws.invocations.dialogue import Dialogue
from agentws.invocations.end_line import log_end
from agentws.invocations.pace import LoopQueue, Pace
from agentws.protocol.encoding import encode
from agentws.protocol.errors import Cancelled, InvocationError, already_finished, deserted
from agentws.protocol.inputs import Delivery
from agentws.stores.log import Log, Outcome
from agentws.stores.log_reader import LogReader
from agentws.telemetry.operations import Operation

THE_END: Final = sys.maxsize
"""The place in a log of a follower that only waits for its end."""


class Shared(Struct, frozen=True):
    """What all invocations of a daemon have in common."""

    agent: Agent
    settings: InvocationsSettings
    send_timeout: float
    """Seconds for which a stream waits for its fastest follower at most."""
    logs_ends: bool
    """Whether each end has a line in the log."""
    loop: asyncio.AbstractEventLoop
    """Theirs: asking for it takes a system call on Python 3.11."""
    loop_queue: LoopQueue
    finish: Callable[[Log, Outcome], None]
    """Called with how the handler ended, unless the log has ended before."""
    withdraw: Callable[[Log, InvocationError], None]
    """Called where it cannot run after all, with the reason."""
    take_turn: Callable[["Invocation", Sequence[str]], None]
    """Called where others of its session must end first, with their ids."""
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
        "_dialogue",
        "_is_over",
        "_may_attach",
        "_operation",
        "_payload",
        "_runs",
        "_shared",
        "_stop_reason",
        "_stopped_at",
        "_task",
        "_timeout",
        "_timeout_left",
        "_turn_waiters",
        "_unattended",
        "_waits_for_turn",
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
        shared: Shared,
        *,
        may_attach: bool = False,
    ) -> None:
        """Make a run that writes to `log`; it begins when the store has taken the id.

        `may_attach` is as in `InvocationTable.invoke`.
        """
        self.log = log
        log.on_end = self._on_log_end
        self.caller = caller
        self.outcome: Outcome | None = None
        """How the handler ended, where it has."""
        self._payload = payload
        self._context = context
        self._operation = operation
        self._shared = shared
        self._may_attach = may_attach
        self._claimed = False
        self._claim_waiters: asyncio.Event | None = None
        self._waits_for_turn = False
        self._turn_waiters: asyncio.Event | None = None
        self._dialogue: Dialogue | None = None  # most have none
        self._task: asyncio.Task[None] | None = None
        self._runs = False
        self._is_over = False
        self._stop_reason: InvocationError | None = None
        self._stopped_at = 0.0
        self._timeout: asyncio.TimerHandle | None = None  # for `invocations.timeout`
        self._timeout_left = 0.0  # seconds, while it stands still
        self._unattended: asyncio.TimerHandle | None = None  # until a follower comes back

    # --- beginning ---

    def on_claimed(self, refusal: InvocationError | None, rivals: Sequence[str]) -> None:
        """Call the handler now that the id is claimed, or end if the store refused it.

        Where there are `rivals`, it waits for its turn.
        """
        self._claimed = True
        if self._claim_waiters is not None:
            self._claim_waiters.set()
        if refusal is not None:
            self.log.refuse(refusal)
            self._operation.refuse(refusal, is_expected=self._may_attach)
        elif rivals and self._stop_reason is None:
            self._waits_for_turn = True
            self._shared.take_turn(self, rivals)
        else:
            self._begin()

    def on_turn(self, refusal: InvocationError | None) -> None:
        """Call the handler now that it is its turn, or end if others of its session have not."""
        if not self._waits_for_turn:  # it was stopped while it waited
            return
        self._end_wait()
        if refusal is None:
            self._begin()
        else:
            self._operation.refuse(refusal)
            self._shared.withdraw(self.log, refusal)

    def _begin(self) -> None:
        self.caller.started += 1
        self._task = self._shared.loop.create_task(self._run())
        self._task.add_done_callback(self._on_done)  # should it be cancelled before it begins

    def _end_wait(self) -> None:
        self._waits_for_turn = False
        if self._turn_waiters is not None:
            self._turn_waiters.set()

    async def claim_settled(self) -> None:
        """Wait until the store has taken the id, or refused it."""
        if not self._claimed:
            if self._claim_waiters is None:
                self._claim_waiters = asyncio.Event()
            await self._claim_waiters.wait()

    @property
    def is_claimed(self) -> bool:
        """Whether the id is claimed, or refused."""
        return self._claimed

    async def accepted(self) -> None:
        """Wait until the id is claimed. Raises the `InvocationError` that refused it."""
        await self.claim_settled()
        if self.log.refusal is not None:
            raise self.log.refusal

    async def admitted(self) -> None:
        """Wait until it is its turn. Raises the `InvocationError` for which it will not run."""
        await self.accepted()
        if self._waits_for_turn:
            if self._turn_waiters is None:
                self._turn_waiters = asyncio.Event()
            await self._turn_waiters.wait()
        if self.log.refusal is not None:
            raise self.log.refusal

    # --- running ---

    async def _run(self) -> None:
        """Call the handler and tell how it ended. Raises nothing, whatever it does."""
        assert self._task is not None
        self._task.remove_done_callback(self._on_done)
        self._runs = True
        attach(self._operation.trace)  # in a task of the invocation's own, which needs no detaching
        if self._shared.settings.timeout:
            self._timeout = self._arm_timeout(self._shared.settings.timeout)
        agent = self._shared.agent
        try:
            result = None
            if self._stop_reason is None:
                assert agent.invoke is not None
                answer = agent.invoke(self._payload, self._context)
                if agent.streams:
                    await self._write_stream(cast(AsyncGenerator[Any, None], answer))
                else:
                    result = encode(await cast(Awaitable[Any], answer))
        except BaseException as error:  # SystemExit, too: no handler takes the daemon with it
            if is_destroyed(error):
                raise
            self.outcome = self._end(error_for_client(error, self._stop_reason), raised=error)
        else:
            self.outcome = self._end(self._stop_reason, result)
        finally:
            self._runs = False
        self._on_done(self._task)

    async def _write_stream(self, generator: AsyncGenerator[Any, None]) -> None:
        """Append what the generator yields, at the pace of its fastest follower (§5)."""
        log, pace = self.log, Pace(self._shared.loop_queue)
        async with contextlib.aclosing(generator):
            async for value in generator:
                if self._stop_reason is not None:  # it swallowed its cancellation
                    return
                log.append(encode(value))
                must_wait = log.is_over_high_water
                # A generator that awaits nothing never leaves the event loop to others: followers
                # would not be sent its chunks, nor anybody's cancel read, until it ends.
                if not must_wait and monotonic() < pace.until:
                    continue
                if log.last == 1:  # at which it always yields, as it never has
                    self._operation.first_chunk()
                if must_wait:
                    await log.wait_for_followers(self._shared.send_timeout)
                await pace.let_others()

    # --- ending ---

    def _end(
        self,
        error: InvocationError | None,
        result: bytes | None = None,
        raised: BaseException | None = None,
    ) -> Outcome:
        """Tell telemetry how the handler ended, and return it.

        `error` is what the client sees, `raised` what left the handler.
        """
        if error is None:
            self._operation.succeed()
            return Outcome("completed", result)
        # Only our own reason counts as a cancellation: an agent may raise an error of that code.
        if error is self._stop_reason and error.code == "cancelled":
            self._operation.cancel()
            return Outcome("cancelled", error=error)
        # The exception behind it is worth telling where the client sees something else instead. A
        # stop's reason is no such thing, nor is what the agent raised for the client to see.
        is_hidden = error is not self._stop_reason and error is not raised
        self._operation.fail(error, raised if is_hidden else None)
        return Outcome("failed", error=error)

    def _on_done(self, _task: "asyncio.Task[None]") -> None:
        """Have the log end, now that the handler has."""
        self._is_over = True
        if self._dialogue is not None:
            self._dialogue.close()
            self.log.record.seen_inputs = self._dialogue.seen
        if self._timeout is not None:
            self._timeout.cancel()
        if self._unattended is not None:
            self._unattended.cancel()
        if self.outcome is None:  # the task was cancelled before it began
            error = error_for_client(asyncio.CancelledError(), self._stop_reason)
            self.outcome = self._end(error)
        if self.log.ended:  # it was lost, or given up
            self._shared.forget(self)
        else:
            self._shared.finish(self.log, self.outcome)

    def _on_log_end(self) -> None:
        """Tell of the end, and be forgotten, unless the handler goes on: lost, or given up."""
        if self._shared.logs_ends and self.log.refusal is None:
            log_end(self.log, self._context.transport, self._stop_reason)
        if self._task is None or self._is_over:
            self._shared.forget(self)

    def give_up(self, reason: InvocationError) -> Outcome:
        """Return how it ended, although the handler has not."""
        self._operation.fail(reason)
        return Outcome("failed", error=reason)

    async def wait_for_end(self) -> None:
        """Wait until the log has ended."""
        with LogReader(self.log, THE_END) as reader:
            while not reader.finished:
                await reader.read()

    # --- talking ---

    def holds(self, context: InvocationContext) -> bool:
        """Tell whether its handler was called with a context, and talks still."""
        return context is self._context and not self._is_over and not self.log.ended

    def report(self, progress: bytes) -> None:
        """Put progress into the record; see `Conversation`."""
        self.log.report(progress)

    async def receive(self) -> Input:
        """Return the next input; see `Conversation`."""
        return await self._talk().receive()

    async def ask(self, question: Ask) -> Answer:
        """Ask the clients; see `Conversation`."""
        if self._stop_reason is not None:
            raise RuntimeError("The invocation is about to end: there is nobody to ask")
        return await self._talk().ask(question)

    def deliver(self, delivery: Delivery) -> None:
        """Take an input.

        Raises `InvocationError`: `already_finished`, and those of `Dialogue.deliver`.
        """
        if self.outcome is None and not self.log.ended:
            self._talk().deliver(delivery)
        elif self._dialogue is None or delivery.input_id not in self._dialogue.seen:
            outcome = self.outcome
            raise already_finished(self.log.record.status if outcome is None else outcome.status)

    def _talk(self) -> Dialogue:
        if self._dialogue is None:
            self._dialogue = Dialogue(self.log, self._shared.settings, self._on_asking)
        return self._dialogue

    def _on_asking(self, is_asking: bool) -> None:
        """Let no time count while a question is open: people take theirs (§5)."""
        if is_asking:
            self._hold_timeout()
            if self._unattended is not None:
                self._unattended.cancel()
                self._unattended = None
        elif not self._is_over:
            if self._timeout_left:
                self._timeout = self._arm_timeout(self._timeout_left)
                self._timeout_left = 0.0
            if self.log.on_attendance is not None and not self.log.attended:
                self._on_attendance(False)

    def _hold_timeout(self) -> None:
        if self._timeout is not None and not self._timeout.cancelled():
            self._timeout.cancel()
            self._timeout_left = max(self._timeout.when() - self._shared.loop.time(), 0.001)
            self._timeout = None

    # --- stopping ---

    def stop(self, reason: InvocationError) -> None:
        """Cancel the handler; what it still says is dropped, and the record says `reason`.

        Asking again within `cancel_grace` changes nothing, so that its clean-up is left alone;
        asking later interrupts it once more. The first reason stays.
        """
        now = self._shared.loop.time()
        if self._stop_reason is None:
            self._stop_reason = reason
        elif now < self._stopped_at + self._shared.settings.cancel_grace:
            return
        self._stopped_at = now
        if self._dialogue is not None:
            self._dialogue.stop()
        if self._waits_for_turn:
            self._end_wait()
            self._begin()  # which ends it, as the handler of what is stopped is not called
        if self._runs and self._task is not None:  # before that it would never be called
            self._task.cancel()

    async def cancel(self, reason: Cancelled) -> None:
        """Stop at somebody's wish, and wait for the end, `cancel_grace` at most."""
        self.stop(reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._shared.settings.cancel_grace):
                await self.wait_for_end()

    def cancel_when_unattended(self) -> None:
        """From now on, stop when nobody has followed for `disconnect_grace` seconds (§5).

        The time runs from the leaving of the last follower, so somebody must follow by now or at
        once.
        """
        self.log.on_attendance = self._on_attendance

    def _on_attendance(self, attended: bool) -> None:
        if self._unattended is not None:
            self._unattended.cancel()
            self._unattended = None
        if not attended and not self.log.ended and not self.log.record.awaiting:
            grace = self._shared.settings.disconnect_grace
            self._unattended = self._shared.loop.call_later(grace, self._stop_unattended)

    def _stop_unattended(self) -> None:
        self.stop(deserted())

    def _arm_timeout(self, seconds: float) -> asyncio.TimerHandle:
        limit = self._shared.settings.timeout
        reason = InvocationError("timeout", f"The invocation did not end within {limit:g} seconds")
        return self._shared.loop.call_later(seconds, self.stop, reason)
