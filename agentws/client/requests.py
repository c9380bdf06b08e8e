"""What is asked and answered once: get, cancel, inputs, lists; repeated until it is answered."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from msgspec import Struct

from agentws.client.backoff import Backoff, Patience
from agentws.client.errors import InvocationFailed, failure_of
from agentws.client.retries import Kind, Refused, judge_refusal
from agentws.client.wire import Message, action

_ACTIONS: Final = {
    "get": "get_invocation",
    "cancel": "cancel_invocation",
    "input": "send_input",
    "list": "list_invocations",
}

_ANSWERS: Final = {"result", "invocations", "error"}
"""The types of answers; another one that names the question is from the future."""


class Known(Protocol):
    """An invocation that something is asked about."""

    @property
    def may_be_asked(self) -> bool:
        """Whether what is asked now finds it, if anything does."""


class Request(Struct, eq=False):
    """One that was not answered yet."""

    kind: Kind
    message: bytes
    answer: "asyncio.Future[Message | None]"
    about: Known | None
    backoff: Backoff
    patience: Patience
    sends: int = 0
    timer: asyncio.TimerHandle | None = None


class Requests:
    """All that were not answered yet, by their `query_id`, in their order."""

    def __init__(
        self,
        send: Callable[[bytes], bool],
        new_id: Callable[[], str],
        max_retry_delay: float,
        give_up_after: float,
    ) -> None:
        """`send` tells whether there was a socket to send on."""
        self._send = send
        self._new_id = new_id
        self._max_retry_delay = max_retry_delay
        self._give_up_after = give_up_after
        self._pending: dict[str, Request] = {}

    async def ask(self, kind: Kind, about: Known | None = None, **fields: Any) -> Message | None:
        """Ask, and wait for the answer; None for one that says that it was done already.

        Raises `InvocationFailed`, and what `fail` was given.
        """
        query_id = self._new_id()
        request = Request(
            kind,
            action(_ACTIONS[kind], query_id=query_id, **fields),
            asyncio.get_running_loop().create_future(),
            about,
            Backoff(self._max_retry_delay),
            Patience(self._give_up_after),
        )
        self._pending[query_id] = request
        try:
            self._put(request)
            return await request.answer
        finally:
            self._pending.pop(query_id, None)
            if request.timer is not None:
                request.timer.cancel()
            if not request.answer.cancel() and not request.answer.cancelled():
                request.answer.exception()  # seen, also where who waited has left

    def put_all(self) -> None:
        """Ask all again, on a new socket."""
        for request in list(self._pending.values()):
            self._put(request)

    def put_about(self, about: Known) -> None:
        """Ask what had to wait until an invocation was there."""
        for request in list(self._pending.values()):
            if request.about is about and request.sends == 0:
                self._put(request)

    def take(self, message: Message) -> bool:
        """Take an answer; tell whether it is one to anything that was asked here."""
        request = self._pending.get(message.query_id or "")
        if request is None or message.type not in _ANSWERS:
            return False
        if message.error is None:
            _settle(request, message)
        else:
            self._refuse(request, failure_of(message.error))
        return True

    def largest(self) -> Request | None:
        """Return the one with the largest message of those that were sent."""
        sent = [request for request in self._pending.values() if request.sends]
        return max(sent, key=lambda request: len(request.message), default=None)

    def fail(self, failure: Callable[[], Exception]) -> None:
        """Have all end with a failure, each with its own."""
        for request in list(self._pending.values()):
            reject(request, failure())

    def _put(self, request: Request) -> None:
        if request.about is None or request.about.may_be_asked:
            request.sends += self._send(request.message)

    def _refuse(self, request: Request, failure: InvocationFailed) -> None:
        match judge_refusal(request.kind, failure.code, repeated=request.sends > 1):
            case Refused.DONE:
                _settle(request, None)
            case Refused.REPEAT:
                self._repeat_later(request, failure)
            case _:
                reject(request, failure)

    def _repeat_later(self, request: Request, failure: InvocationFailed) -> None:
        loop = asyncio.get_running_loop()
        request.patience.begin(loop.time())
        delay = request.backoff.next()
        if request.patience.left(loop.time()) <= delay:
            reject(request, failure)
            return
        request.timer = loop.call_later(delay, self._put, request)


def _settle(request: Request, message: Message | None) -> None:
    if not request.answer.done():
        request.answer.set_result(message)


def reject(request: Request, failure: Exception) -> None:
    """Have a request end with a failure."""
    if not request.answer.done():
        request.answer.set_exception(failure)
