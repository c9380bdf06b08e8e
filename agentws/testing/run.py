"""One invocation, as a client has it that started it or attached to it."""

from typing import Any

from agentws.client.events import Question
from agentws.client.following import OnGap
from agentws.client.run import Readable
from agentws.invocations.caller import Caller
from agentws.invocations.table import InvocationTable
from agentws.protocol.errors import InvocationError
from agentws.protocol.frames import CancelInvocation, SendInput
from agentws.protocol.inputs import Delivery
from agentws.stores.log import Log
from agentws.testing.heard import Heard
from agentws.testing.verbs import said, seen_by_client, told


class Run(Readable):
    """An invocation: iterate it for its chunks, or `events()`, or await it; speak to it, leave it.

    It is read as `agentws.client`'s is. Other than there, each run is a client of its own: several
    may be of one invocation, and each can lose its connection.
    """

    def __init__(
        self,
        invocation_id: str,
        table: InvocationTable,
        caller: Caller,
        *,
        session_id: str,
        after: int = 0,
        on_gap: OnGap = "raise",
    ) -> None:
        """Be about an invocation; `follow`, `accept` or `refuse` tells what has become of it."""
        self._heard = Heard(invocation_id, after, on_gap, self._answer)
        super().__init__(self._heard)
        self._table = table
        self._caller = caller
        self._session_id = session_id

    async def question(self) -> Question:
        """Wait for the next question that is open, whether the run is read meanwhile or not.

        Raises `InvocationFailed` at a bad end, and `Closed` at any other.
        """
        return await self._heard.question()

    async def send(self, payload: Any, *, input_id: str | None = None) -> None:
        """Say something to the agent while it runs, and wait until it is in its inbox.

        Raises `InvocationFailed` (`too_many_inputs`, `already_finished`, …).
        """
        await self._say(payload, input_id=input_id)

    async def cancel(self) -> Any:
        """Cancel the invocation, and return the answer.

        Raises `InvocationFailed` (`already_finished`, `not_found`, …).
        """
        with seen_by_client():
            asked = said(CancelInvocation, invocation_id=self.id)
            verb = self._table.cancel(asked.invocation_id, self._session_id, self._caller)
            return told(await verb)

    def disconnect(self) -> None:
        """Lose the connection, as networks do, and what is on its way.

        `AgentClient.attach` comes back on another, after `cursor`.
        """
        self.detach()

    # --- what has become of it ---

    def follow(self, log: Log) -> None:
        """Hear what its log says."""
        self._heard.follow(log)

    def accept(self) -> None:
        """Hear that it runs in the background, and nothing more."""
        self._heard.accept()

    def refuse(self, error: InvocationError) -> None:
        """Hear that it comes to nothing."""
        self._heard.refuse(error)

    async def _answer(self, request_id: str, payload: Any) -> None:
        await self._say(payload, request_id=request_id)

    async def _say(
        self, payload: Any, *, request_id: str | None = None, input_id: str | None = None
    ) -> None:
        ids = {"invocation_id": self.id, "request_id": request_id, "input_id": input_id}
        with seen_by_client():
            it = said(SendInput, payload=payload, **ids)
            delivery = Delivery(it.payload, it.request_id, it.input_id, self._caller.user_id)
            await self._table.send_input(it.invocation_id, self._caller, delivery)
