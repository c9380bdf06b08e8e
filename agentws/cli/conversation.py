"""An invocation at the terminal: it is printed, its questions answered, and Ctrl-C cancels it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from agentws.cli import terminal
from agentws.cli.connecting import Reach, connection_advice, failure_advice
from agentws.cli.ending import Complaint, Failure, Interrupts
from agentws.cli.forms import question_text
from agentws.cli.status_line import StatusLine
from agentws.client.errors import Cancelled, Closed, ConnectionFailed, InvocationFailed
from agentws.client.events import Answered, Chunk, Event, Question, Reconnected

if TYPE_CHECKING:
    from agentws.cli.asking import Asker
    from agentws.cli.screens import Screen
    from agentws.client import Client, Run
    from agentws.client.connection import State


class Conversation:
    """One run of a client, from its beginning to its end or to the second Ctrl-C."""

    def __init__(
        self, client: Client, run: Run, screen: Screen, reach: Reach, *, attached: bool
    ) -> None:
        """`attached` tells whether what comes may be a replay."""
        self._client = client
        self._run = run
        self._screen = screen
        self._reach = reach
        self._is_attached = attached
        self._chunks = 0
        self._began_at = time.monotonic()
        self._was_open = False
        self._is_asking = False
        self._cancelling: asyncio.Task[None] | None = None
        self._course: asyncio.Future[Any] | None = None
        self._stop: Complaint | None = None
        """Why it is not followed to its end."""
        self._asker = self._new_asker() if terminal.has_person() else None
        self._status_line = StatusLine(self._state, self._may_show_state)
        client.on_state(self._note_state)

    def _new_asker(self) -> Asker:
        from agentws.cli.asking import Asker

        return Asker(self)

    # --- its course ---

    async def follow(self, answer: tuple[str, Any] | None = None) -> int:
        """Print it to its end; return the exit code. `answer` is to a question, by its id.

        Raises `Complaint` where it did not end well, and `BrokenPipeError`.
        """
        return await self._interruptible(self._follow(answer))

    async def start(self) -> int:
        """Wait until it is accepted, to run in the background. Raises as `follow`."""
        return await self._interruptible(self._start())

    async def _interruptible(self, work: Coroutine[Any, Any, int]) -> int:
        self._course = course = asyncio.create_task(work)
        status_line = asyncio.create_task(self._status_line.run())
        Interrupts(self._cancel, self._leave)
        try:
            return await course
        except asyncio.CancelledError:
            raise self._stop or Failure("interrupted") from None
        except InvocationFailed as failure:
            raise Failure(failure_advice(failure, self._run.id)) from failure
        except ConnectionFailed as failure:
            raise self._lost(failure) from failure
        finally:
            status_line.cancel()
            await asyncio.wait({status_line})
            if self._asker is not None:
                self._asker.end()

    async def _start(self) -> int:
        await self._run
        await self._screen.accepted(self._run.id)
        self.notice(f"it runs; follow it with: {self._attach_again()}")
        return 0

    async def _follow(self, answer: tuple[str, Any] | None) -> int:
        try:
            if answer is not None:
                await self._run.answer(*answer)
            async with self._run:
                async for event in self._run.events():
                    await self._take(event, answer)
            value = await self._run
        except InvocationFailed as failure:
            return await self._fail(failure)
        await self._finish("completed", value, None)
        return 0

    async def _take(self, event: Event, answer: tuple[str, Any] | None) -> None:
        match event:
            case Chunk(number, payload):
                self._chunks += 1
                self._status_line.hide()
                await self._screen.chunk(number, payload)
            case Question():
                if answer is None or event.request_id != answer[0]:
                    await self._ask(event)
            case Answered(request_id, withdrawn):
                if self._asker is not None:
                    await self._asker.answered(request_id, withdrawn=withdrawn)
            case Reconnected(attempts, seconds):
                tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
                self.notice(f"reconnected after {seconds:.1f} s and {tries}; resuming")

    async def _fail(self, failure: InvocationFailed) -> int:
        status = "failed" if self._run.status in ("pending", "running") else self._run.status
        await self._finish(status, None, failure.error)
        if self._cancelling is not None and isinstance(failure, Cancelled):
            return 1
        raise failure

    async def _finish(self, status: str, value: Any, error: Any) -> None:
        if self._asker is not None:
            self._asker.end()
            await self.resume()
        self._status_line.hide()
        await self._screen.end(self._run.cursor, self._run.id, status, value, error)
        if sys.stderr.isatty():
            self.notice(self._told(status))

    def _lost(self, failure: ConnectionFailed) -> Complaint:
        if not self._was_open:
            return Complaint(connection_advice(failure))
        return Failure(f"{connection_advice(failure)} Attach with: {self._attach_again()}")

    # --- Ctrl-C ---

    def _cancel(self) -> None:
        """Take the first one: cancel."""
        if not self._was_open:
            self._give_up(Failure("interrupted before there was a connection; nothing ran"))
            return
        if self._asker is not None:
            self._asker.end()
        self.notice("cancelling; Ctrl-C again leaves it running")
        self._cancelling = asyncio.create_task(self._cancel_run())

    async def _cancel_run(self) -> None:
        await self.resume()
        try:
            answer = await self._run.cancel()
        except InvocationFailed as failure:
            if failure.code != "already_finished":
                self.notice(failure_advice(failure, self._run.id))
        except (ConnectionFailed, Closed):
            pass  # which whoever follows it is told, too
        else:
            if isinstance(answer, dict) and answer.get("status") == "cancelling":
                self.notice("the agent has not ended yet")

    def _leave(self) -> None:
        """Take the second one: leave it running."""
        self._give_up(Failure(f"left running; attach with: {self._attach_again()}"))

    def _give_up(self, why: Complaint) -> None:
        self._stop = why
        self._screen.break_line()
        if self._course is not None:
            self._course.cancel()

    def _attach_again(self, *arguments: str) -> str:
        words = ["--attach", self._run.id, *arguments]
        if self._run.cursor:
            words += ["--starting-after", str(self._run.cursor)]
        return self._reach.again(*words)

    # --- questions ---

    async def _ask(self, question: Question) -> None:
        if self._cancelling is not None:
            return
        self._status_line.hide()
        await self._screen.question(
            question.number, question.request_id, question.payload, question.schema
        )
        if self._is_attached and not await self._is_open(question):
            return
        if self._asker is None:
            self._screen.break_line()
            raise self._unanswered(question)
        self._asker.ask(question)

    async def _is_open(self, question: Question) -> bool:
        """Tell whether a question that may have been replayed is still open, as far as is known."""
        try:
            record = await self._client.get(self._run.id)
        except InvocationFailed:
            return True
        match record:  # which may be the agent's own
            case {"invocation_id": self._run.id, "status": str(), **fields}:
                awaited: Any = fields.get("awaiting", ())
                return any(question.request_id == each["request_id"] for each in awaited)
        return True

    def _unanswered(self, question: Question) -> Complaint:
        command = self._attach_again("--answer", question.request_id)
        asked = " ".join(question_text(question.payload).split())
        return Failure(f"the agent asks: {asked}\nanswer with: {command} PAYLOAD")

    def unanswered(self, question: Question) -> None:
        """See `Stage`."""
        self._give_up(self._unanswered(question))

    # --- what is printed around it ---

    async def clear(self) -> None:
        """See `Stage`."""
        self._is_asking = True
        self._status_line.hide()
        self._screen.break_line()
        await self._screen.hold()

    async def resume(self) -> None:
        """See `Stage`."""
        self._is_asking = False
        await self._screen.release()

    def notice(self, text: str) -> None:
        """See `Stage`."""
        self._status_line.hide()
        self._screen.break_line()
        terminal.notice(text)

    def _note_state(self, state: State) -> None:
        self._was_open |= state == "open"
        if state == "reconnecting":
            self.notice("the connection was lost; reconnecting")

    def _may_show_state(self) -> bool:
        return self._screen.is_at_line_start and not self._is_asking

    def _state(self) -> str:
        is_open = self._client.state == "open"
        return self._told(self._run.status if is_open else self._client.state)

    def _told(self, state: str) -> str:
        chunks = "1 chunk" if self._chunks == 1 else f"{self._chunks} chunks"
        return f"{state}, {chunks}, {time.monotonic() - self._began_at:.1f} s"
