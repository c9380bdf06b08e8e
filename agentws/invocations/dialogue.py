"""One invocation's talk with its clients: its inbox, its questions, and what was said twice."""

from collections.abc import Callable
from typing import Final

from agentws.agent.conversation import Answer, Ask, Input
from agentws.config.settings import InvocationsSettings
from agentws.invocations.inbox import Inbox
from agentws.invocations.questions import Questions
from agentws.protocol.inputs import Delivery
from agentws.stores.log import Log

MOST_SEEN: Final = 1024
"""How many ids of inputs are known, so that what comes twice is delivered once (§5)."""


class Dialogue:
    """Made when somebody has something to say: most invocations need none."""

    def __init__(
        self, log: Log, settings: InvocationsSettings, on_asking: Callable[[bool], None]
    ) -> None:
        """See `Questions` for `on_asking`."""
        self._inbox = Inbox(settings.max_pending_inputs)
        self._questions = Questions(log, on_asking)
        self._input_timeout = settings.input_timeout
        self._seen: dict[str, None] = {}

    @property
    def seen(self) -> tuple[str, ...]:
        """The ids of the inputs that were taken, the last ones."""
        return tuple(self._seen)

    def deliver(self, delivery: Delivery) -> None:
        """Take an input, once.

        Raises `too_many_inputs`, `input_not_expected`, and `invalid_request` for a bad answer.
        """
        if delivery.input_id in self._seen:
            return
        if delivery.request_id is None:
            self._inbox.put(Input(delivery.payload, delivery.input_id, delivery.user_id))
        else:
            self._questions.answer(delivery.request_id, delivery)
        if delivery.input_id is not None:
            self._seen[delivery.input_id] = None
            if len(self._seen) > MOST_SEEN:
                del self._seen[next(iter(self._seen))]

    async def receive(self) -> Input:
        """Return the next input."""
        return await self._inbox.take()

    async def ask(self, question: Ask) -> Answer:
        """Ask, see `Questions.ask`."""
        timeout = self._input_timeout if question.timeout is None else question.timeout
        return await self._questions.ask(question, timeout)

    def stop(self) -> None:
        """Ask nothing more: the handler is being stopped."""
        self._questions.end()

    def close(self) -> None:
        """End it with the handler."""
        self._questions.end()
        self._inbox.close()
