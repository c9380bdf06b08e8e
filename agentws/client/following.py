"""What the client knows of one run, and what it makes of each frame of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from agentws.client.backoff import Backoff, Patience
from agentws.client.errors import InvocationFailed, Lost, failure_of
from agentws.client.events import Answered, Chunk, Gap, Question, Reconnected
from agentws.client.feed import Feed
from agentws.client.reception import Reception
from agentws.client.retries import Opening, Refused, judge_refusal, opening_of
from agentws.client.wire import Message, Nonsense, action

OnGap = Literal["raise", "skip"]

Status = Literal["pending", "running", "input_required", "completed", "failed", "cancelled", "lost"]

_STATUS: Final[Mapping[str, Status]] = {"cancelled": "cancelled", "lost": "lost"}
"""The status after an end with one of these codes; after another it is `failed`."""


class Line(Protocol):
    """How a run reaches the server."""

    def attach(self, following: Following) -> None:
        """Attach after what was received, on the socket that there is."""

    def detach(self, following: Following) -> None:
        """Listen no longer."""

    def open_later(self, following: Following, delay: float) -> None:
        """Invoke or attach again after so many seconds."""

    def known(self, following: Following) -> None:
        """Ask what had to wait until the server knew the run."""

    def forget(self, following: Following) -> None:
        """Bring it nothing more."""

    def ended(self, following: Following) -> None:
        """Note that the server sends nothing more of it."""

    def progress(self) -> None:
        """Note that something came of it."""

    async def answer(self, following: Following, request_id: str, payload: Any) -> None:
        """Answer a question."""


class Following:
    """One run, from the first word about it to its end.

    `invoke` holds the fields of the invoke, None for a run that is attached to. `patience` is for
    repetitions that are refused.
    """

    def __init__(
        self,
        invocation_id: str,
        line: Line,
        feed: Feed,
        backoff: Backoff,
        patience: Patience,
        *,
        invoke: Mapping[str, Any] | None,
        on_gap: OnGap,
    ) -> None:
        self.invocation_id = invocation_id
        self.feed = feed
        self.status: Status = "pending"
        self.value: Any = None
        """What a coroutine returned."""
        self.is_stream = False
        """Whether it ended as a stream does."""
        self.is_left = False
        """Whether nobody reads it any more."""
        self.is_known = invoke is None
        """Whether the server has it, as far as can be known."""
        self.follows_another = False
        """Whether the socket may still bring what it followed another run of that id for."""
        self.query_id: str | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._line = line
        self._backoff = backoff
        self._patience = patience
        self._invoke = invoke
        self._skips_gaps = on_gap == "skip"
        self._reception = Reception(feed.cursor)
        self._sends = 0
        self._invoke_size = 0
        self._was_heard = False
        self._asked: set[str] = set()
        self._open_questions: set[str] = set()

    @property
    def may_be_asked(self) -> bool:
        """Whether inputs and cancels reach it, if it exists."""
        return self.is_known or self.feed.is_over

    @property
    def was_sent(self) -> bool:
        """Whether the server was told of it on some socket."""
        return self._sends > 0

    @property
    def unacknowledged_size(self) -> int:
        """The size of the invoke that was sent and not acknowledged; 0 where there is none."""
        return self._invoke_size if not self.is_known else 0

    # --- what is said ---

    def opening(self, query_id: str, *, anew: bool) -> bytes | None:
        """Return what to say of it on a socket; `anew` on one where it was spoken of before."""
        over = self.feed.is_over and not (self.is_left and not self.is_known)
        what = opening_of(known=self.is_known, sent=self.was_sent, over=over)
        if what is Opening.NOTHING:
            return None
        self.query_id = query_id
        self._sends += 1
        self.follows_another &= anew
        if what is Opening.ATTACH:
            self._reception.attached(anew=anew)
            after = self._reception.received
            ids = {"invocation_id": self.invocation_id, "query_id": query_id}
            return action("attach_invocation", **ids, starting_after=after)
        if_exists = "attach" if what is Opening.INVOKE_AGAIN else None
        # Ids come first: the server tells them of a message whose payload is no JSON to it.
        message = action("invoke", query_id=query_id, if_exists=if_exists, **self._invoke or {})
        self._invoke_size = len(message)
        return message

    def reconnected(self, attempts: int, seconds: float) -> None:
        """Tell the reader that the socket was replaced."""
        if self.was_sent and not self.feed.is_over:
            self.feed.put_loss(Reconnected(attempts, seconds))

    def leave(self) -> None:
        """Read no more of it. What was invoked is invoked all the same."""
        if self.feed.was_read:
            return
        was_over = self.feed.is_over
        self.is_left = True
        self.feed.discard()
        if self.is_known and not was_over:
            self._go()

    def replaced(self) -> None:
        """Read no more of it: another run of that id follows from now on."""
        self.is_left = True
        self.feed.discard()
        self._line.known(self)

    def _go(self) -> None:
        self._line.detach(self)
        self._line.forget(self)

    # --- what is heard ---

    def take(self, message: Message) -> bool:
        """Take a frame; tell whether the reader should have its turn before the next one.

        Raises `Nonsense`.
        """
        if message.type == "stream_chunk":
            if self._takes(message.sequence_number):
                number = message.sequence_number
                self.feed.put(number, Chunk(number, message.payload))
            return self.feed.is_crowded and self.feed.has_room
        match message.type:
            case "accepted":
                self._take_accepted(message)
            case "input_required":
                self._take_question(message)
            case "input_received":
                self._take_answered(message)
            case "result" if message.action is None:
                self.value = message.payload
                self._end("completed")
            case "stream_end":
                self.is_stream = True
                self._end("completed")
            case "error":
                self._take_error(message)
        return False

    def _hear(self) -> None:
        """Note that the server has it."""
        if self.status == "pending":
            self.status = "running"
        self._was_heard = True
        self._line.progress()
        if not self.is_known:
            self.is_known = True
            self._line.known(self)
            if self.is_left:
                self._go()

    def _takes(self, number: int) -> bool:
        if self.is_left:
            self._hear()
            return False
        if self._reception.takes(number, has_room=self.feed.has_room):
            self._hear()
            return True
        if self._reception.is_behind:
            self.feed.on_room = self._catch_up
        return False

    def _catch_up(self) -> None:
        """Ask for what was dropped, now that there is room."""
        if not self.feed.is_over:
            self._line.attach(self)

    def _take_accepted(self, message: Message) -> None:
        if message.query_id not in (None, self.query_id):
            return
        self._hear()
        if self._invoke is not None and self._invoke.get("background"):
            self.feed.end()
            self._line.ended(self)
            self._line.forget(self)

    def _take_question(self, message: Message) -> None:
        number, request_id = message.sequence_number, message.request_id or ""
        is_untimely = self._reception.is_untimely(number)
        if not (is_untimely or self._takes(number)) or request_id in self._asked or self.is_left:
            return
        self._hear()
        self._asked.add(request_id)
        self._open_questions.add(request_id)
        self.status = "input_required"
        question = Question(number, request_id, message.payload, message.schema, self._answer)
        self.feed.put(0 if is_untimely else number, question)

    async def _answer(self, request_id: str, payload: Any) -> None:
        await self._line.answer(self, request_id, payload)

    def _take_answered(self, message: Message) -> None:
        if self._takes(message.sequence_number):
            request_id = message.request_id or ""
            self._open_questions.discard(request_id)
            self.status = "input_required" if self._open_questions else "running"
            self.feed.put(message.sequence_number, Answered(request_id, message.withdrawn))

    # --- ends ---

    def _end(self, status: Status, failure: Exception | None = None) -> None:
        """End, unless what was dropped has yet to be asked for, or another run's end it may be."""
        if not self._reception.may_end:
            return
        if self.follows_another and self._reception.is_catching_up:
            self.follows_another = False  # one such end can come; what is asked for now has its own
            self._line.attach(self)
            return
        self._line.progress()
        self._line.ended(self)
        self.end(status, failure)

    def end(self, status: Status, failure: Exception | None = None) -> None:
        """End, whatever may be missing."""
        self.is_known = True
        self.status = status
        self.feed.end(failure)
        self._line.known(self)
        self._line.forget(self)

    def _take_error(self, message: Message) -> None:
        failure = failure_of(message.error or {})
        if message.action is None:
            self._end(_STATUS.get(failure.code, "failed"), failure)
        elif message.query_id not in (None, self.query_id):
            return  # in answer to what was repeated since
        elif failure.code == "replay_gap":
            self._take_gap(failure)
        else:
            self._take_refusal(message.action, failure)

    def _take_gap(self, failure: InvocationFailed) -> None:
        first, next_one = failure.error.get("first_available"), self._reception.received + 1
        if self._reception.is_catching_up and isinstance(first, int) and first <= next_one:
            return  # it was told before what was received is attached after
        if not isinstance(first, int) or first <= next_one:
            raise Nonsense(f"The server told of a gap before {first}, and {next_one} is the next")
        if not self._skips_gaps:
            self.end(self.status, failure)
            self._line.detach(self)  # what the socket followed before, it follows still
            return
        self._hear()
        self._reception.skip_to(first)
        self.feed.put(first - 1, Gap(first))
        self._line.attach(self)

    def _take_refusal(self, name: str, failure: InvocationFailed) -> None:
        is_attach = name == "attach_invocation"
        repeated = self._sends > 1 or (is_attach and self._invoke is not None)
        kind: Literal["attach", "invoke"] = "attach" if is_attach else "invoke"
        match judge_refusal(kind, failure.code, repeated=repeated, known=self._was_heard):
            case Refused.LOST:
                self.end("lost", Lost(failure.error))
            case Refused.REPEAT:
                self._repeat_later(failure)
            case _:
                self.end("failed" if self.status == "pending" else self.status, failure)
                if self.follows_another or self._reception.is_catching_up:
                    self._line.detach(self)  # what the socket followed before, it follows still
                else:
                    self._line.ended(self)

    def _repeat_later(self, failure: InvocationFailed) -> None:
        now = asyncio.get_running_loop().time()
        self._patience.begin(now)
        delay = self._backoff.next()
        if self._patience.left(now) <= delay:
            self.end(self.status, failure)
        else:
            self._line.open_later(self, delay)
