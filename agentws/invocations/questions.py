"""Questions that a handler has asked and that are open (§5).

Each is closed once: by an answer, by its time, by the handler that gives it up, or by the end of
the invocation. Whatever closes it takes it out of the table first, so that of two that come at the
same moment the first one counts and the second one finds nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import UNSET, Raw

from agentws.agent.conversation import Answer, Ask
from agentws.protocol.errors import InvocationError
from agentws.protocol.events import Closed, Question
from agentws.protocol.identifiers import new_id
from agentws.protocol.inputs import Delivery
from agentws.stores.log import Log


class _Open(NamedTuple):
    answer: "asyncio.Future[Answer]"
    convert: Callable[[Any], Any] | None


class Questions:
    """What one invocation has asked."""

    def __init__(self, log: Log, on_asking: Callable[[bool], None]) -> None:
        """Write what is asked to `log`.

        `on_asking` is told True when the first question is open, False when none is any more.
        """
        self._log = log
        self._on_asking = on_asking
        self._open: dict[str, _Open] = {}
        self._is_over = False

    async def ask(self, question: Ask, timeout: float) -> Answer:  # noqa: ASYNC109
        """Ask, and wait for the answer, 0 seconds for ever.

        Raises `TimeoutError`, and `RuntimeError` when the invocation is about to end.
        """
        if self._is_over:
            raise RuntimeError("The invocation is about to end: there is nobody to ask")
        loop = asyncio.get_running_loop()
        request_id = new_id()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._open[request_id] = _Open(answer, question.convert)
        schema = UNSET if question.schema is None else Raw(question.schema)
        self._log.append_event(Question(request_id, Raw(question.payload), schema))
        if len(self._open) == 1:
            self._on_asking(True)
        timer = loop.call_later(timeout, self._expire, request_id) if timeout else None
        try:
            return await answer
        finally:
            if timer is not None:
                timer.cancel()
            self._withdraw(request_id)

    def answer(self, request_id: str, delivery: Delivery) -> None:
        """Take an answer. Raises `input_not_expected`, and `invalid_request` for a bad one."""
        question = self._open.get(request_id)
        if question is None:
            raise InvocationError("input_not_expected", "There is no such question open")
        payload = delivery.payload
        if question.convert is not None:
            payload = question.convert(payload)
        del self._open[request_id]
        self._close(Closed(request_id))
        question.answer.set_result(Answer(payload, delivery.input_id, delivery.user_id))

    def end(self) -> None:
        """Ask nothing more, and take no answer: the invocation is about to end, or has ended."""
        self._is_over = True
        for question in self._open.values():
            question.answer.cancel()
        self._open.clear()
        self._log.forget_questions()

    def _expire(self, request_id: str) -> None:
        question = self._open.get(request_id)
        if question is not None:
            self._withdraw(request_id)
            question.answer.set_exception(TimeoutError("Nobody has answered in time"))

    def _withdraw(self, request_id: str) -> None:
        """Take a question back, unless it is closed already."""
        if self._open.pop(request_id, None) is not None:
            self._close(Closed(request_id, withdrawn=True))

    def _close(self, event: Closed) -> None:
        self._log.append_event(event)
        if not self._open:
            self._on_asking(False)
