"""What is heard of one invocation: entries of its log, turned into what a client's reader gets."""

import asyncio
import sys
from collections import deque
from typing import Any, Final

from msgspec import Raw

from agentws.client.errors import Closed
from agentws.client.events import Answer, Answered, Chunk, Gap, Question
from agentws.client.feed import Feed
from agentws.client.following import OnGap, Status
from agentws.protocol.errors import InvocationError, ReplayGap
from agentws.protocol.events import Awaiting, Event, read_event
from agentws.protocol.events import Question as Asked
from agentws.stores.log import Log
from agentws.testing.listener import Listener
from agentws.testing.verbs import failure, told

_OUT_OF_PLACE: Final = 0
"""The number of what is told before its turn: to have read it is not to have read up to there."""


class Heard:
    """What one client hears of an invocation that it started or attached to."""

    def __init__(self, invocation_id: str, after: int, on_gap: OnGap, answer: Answer) -> None:
        """Hear what is numbered above `after`; questions are answered by `answer`."""
        self.invocation_id = invocation_id
        self.feed = Feed(sys.maxsize, after)
        self.status: Status = "pending"
        self.value: Any = None
        self.is_stream = False
        self.is_left = False
        self._on_gap = on_gap
        self._answer = answer
        self._log: Log | None = None
        self._listener: Listener | None = None
        self._failure: Exception | None = None
        self._asked: set[str] = set()
        self._questions: deque[Question] = deque()
        self._news = asyncio.Event()

    def follow(self, log: Log) -> None:
        """Hear a log, and be asked first what is open there and would not come."""
        if not self.is_left:
            self._log = log
            self.status = log.record.shown_status
            self._listen(log, self.feed.cursor)

    def accept(self) -> None:
        """Hear that it runs in the background, and nothing more."""
        self.status = "running"
        self._end()

    def refuse(self, error: InvocationError) -> None:
        """Hear that it comes to nothing."""
        self.status = "failed"
        self._end(failure(error))

    def leave(self) -> None:
        """Hear no more of it, and forget what was not read."""
        if self.feed.was_read:
            return
        self.is_left = True
        if self._listener is not None:
            self._listener.leave()
        self.feed.discard()
        self._questions.clear()
        self._failure = None
        self._tell()

    async def question(self) -> Question:
        """Return the next question that is open. Raises the failure, and `Closed` at the end."""
        while not self._questions:
            if self.feed.is_over:
                raise self._failure or Closed("The run has ended, and asks nothing more")
            await self._news.wait()
        return self._questions.popleft()

    # --- what the log says ---

    def hear(self, log: Log, number: int, entry: bytes) -> None:
        """See `Hearer.hear`."""
        self.status = log.record.shown_status
        if not isinstance(entry, Event):
            self.feed.put(number, Chunk(number, told(entry)))
            return
        event = read_event(entry)
        if isinstance(event, Asked):
            self._hear_question(number, event)
        else:
            self._forget_question(event.request_id)
            self.feed.put(number, Answered(event.request_id, event.withdrawn is True))

    def hear_gap(self, log: Log, gap: ReplayGap) -> None:
        """See `Hearer.hear_gap`."""
        for question in log.record.awaiting:
            self._hear_question(_OUT_OF_PLACE, question)
        if self._on_gap == "raise":
            self._end(failure(gap))
        else:
            before = gap.first_available - 1
            self.feed.put(before, Gap(gap.first_available))
            self._listen(log, before)

    def hear_end(self, log: Log) -> None:
        """See `Hearer.hear_end`."""
        record = log.record
        self.status, self.is_stream = record.shown_status, record.streams
        self.value = told(record.result or b"null")
        self._end(None if record.error is None else failure(record.error))

    def _listen(self, log: Log, after: int) -> None:
        for question in log.questions_before(after):
            self._hear_question(_OUT_OF_PLACE, question)
        try:
            self._listener = Listener(log, after, self)
        except ReplayGap as gap:
            self.hear_gap(log, gap)

    def _hear_question(self, number: int, asked: Asked | Awaiting) -> None:
        """Take a question, unless it is told again."""
        if asked.request_id in self._asked:
            return
        self._asked.add(asked.request_id)
        schema = told(asked.schema) if isinstance(asked.schema, Raw) else None
        its_number = asked.sequence_number if isinstance(asked, Awaiting) else number
        question = Question(its_number, asked.request_id, told(asked.payload), schema, self._answer)
        self._questions.append(question)
        self.feed.put(number, question)
        self._tell()

    def _forget_question(self, request_id: str) -> None:
        others = [each for each in self._questions if each.request_id != request_id]
        self._questions = deque(others)

    def _end(self, failure: Exception | None = None) -> None:
        self._failure = failure
        self.feed.end(failure)
        self._tell()

    def _tell(self) -> None:
        """Wake whoever waits for a question."""
        self._news.set()
        self._news = asyncio.Event()
