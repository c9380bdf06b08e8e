"""Brings each frame to the run or the question that it is about, over whatever socket it comes."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from agentws.client.connection import Connection
from agentws.client.errors import ConnectionFailed, failure_of
from agentws.client.following import Following
from agentws.client.requests import Known, Requests, reject
from agentws.client.retries import Kind
from agentws.client.trace import current_trace
from agentws.client.wire import Message, Nonsense, action, raw
from agentws.protocol.identifiers import IdSource

_TOO_LARGE: Final = {
    "code": "payload_too_large",
    "message": "The server closed the socket because of a message of this size",
    "retryable": False,
    "source": "user",
}


class Switchboard:
    """All runs and questions of one client."""

    def __init__(self, max_retry_delay: float, give_up_after: float) -> None:
        self.new_id = IdSource()
        self.failure: Callable[[], Exception] | None = _not_entered
        """Makes what is raised because there is no connection yet, or not any more."""
        self._queries = 0
        self._followings: dict[str, Following] = {}
        self._here: set[str] = set()
        """The runs that were spoken of on the socket of the moment."""
        self._requests = Requests(self._send, self._new_query, max_retry_delay, give_up_after)
        self._connection: Connection | None = None

    def use(self, connection: Connection) -> None:
        """Speak to the server over this connection."""
        self._connection = connection
        self.failure = None

    def add(self, following: Following) -> None:
        """Follow a run from now on, in place of an earlier one of that id."""
        earlier = self._followings.pop(following.invocation_id, None)
        if earlier is not None:
            earlier.replaced()
        following.follows_another = following.invocation_id in self._here
        self._followings[following.invocation_id] = following
        self._open(following)

    async def ask(self, kind: Kind, about: Known | None = None, **fields: Any) -> Message | None:
        """Ask and wait for the answer, see `Requests.ask`."""
        if self.failure is not None:
            raise self.failure()
        return await self._requests.ask(kind, about, **fields)

    def end(self, failure: Callable[[], Exception]) -> None:
        """Have all end with a failure, each with its own."""
        self.failure = failure
        for following in list(self._followings.values()):
            following.end(following.status, failure())
        self._requests.fail(failure)

    # --- what the connection tells ---

    def opened(self, attempts: int, seconds: float | None) -> None:
        """Say all that is to be said on a new socket: runs first, each in its order."""
        self._here.clear()
        for following in list(self._followings.values()):
            if seconds is not None:
                following.reconnected(attempts, seconds)
            self._open(following)
        self._requests.put_all()

    def take(self, message: Message) -> bool:
        """Take a frame; tell whether a reader should have its turn before the next one.

        Raises `Nonsense`.
        """
        if message.query_id is not None and self._requests.take(message):
            return False
        following = self._followings.get(message.invocation_id or "")
        if following is not None:
            return following.take(message)
        if message.type == "error" and message.invocation_id is message.query_id is None:
            # What it answers cannot be told, and would wait for its answer for ever.
            raise Nonsense(f"The server did not understand: {failure_of(message.error or {})}")
        return False

    def failed(self, failure: ConnectionFailed) -> None:
        """Tell all that there will be no other socket."""
        self.end(failure.again)

    def refused_as_too_large(self) -> None:
        """Have the largest message that was sent and not acknowledged fail."""
        failure = failure_of(_TOO_LARGE)
        unknown = [each for each in self._followings.values() if each.unacknowledged_size]
        run = max(unknown, key=lambda each: each.unacknowledged_size, default=None)
        request = self._requests.largest()
        if request is not None and (run is None or len(request.message) > run.unacknowledged_size):
            reject(request, failure)
        elif run is not None:
            run.end("failed", failure)

    # --- what runs ask for ---

    def attach(self, following: Following) -> None:
        """Attach after what was received, on the socket that there is."""
        self._open(following)

    def detach(self, following: Following) -> None:
        """Listen no longer."""
        if following.invocation_id in self._here:
            self._send(action("detach_invocation", invocation_id=following.invocation_id))

    def open_later(self, following: Following, delay: float) -> None:
        """Invoke or attach again after so many seconds."""
        loop = asyncio.get_running_loop()
        following.timer = loop.call_later(delay, self._open, following)

    def known(self, following: Following) -> None:
        """Ask what had to wait until the server knew the run."""
        self._requests.put_about(following)

    def forget(self, following: Following) -> None:
        """Bring it nothing more."""
        if self._followings.get(following.invocation_id) is following:
            del self._followings[following.invocation_id]
        if following.timer is not None:
            following.timer.cancel()

    def ended(self, following: Following) -> None:
        """Note that the server sends nothing more of a run."""
        self._here.discard(following.invocation_id)

    def progress(self) -> None:
        """Note that something came of a run."""
        assert self._connection is not None
        self._connection.progress()

    async def answer(self, following: Following, request_id: str, payload: Any) -> None:
        """Answer a question of a run."""
        await self.send_input(following, payload, request_id)

    async def send(self, following: Following, payload: Any) -> None:
        """Put something into a run's inbox."""
        await self.send_input(following, payload, None)

    async def send_input(self, following: Following, payload: Any, request_id: str | None) -> None:
        """Say something to a run, under a name by which it is taken once."""
        await self.ask(
            "input",
            following,
            invocation_id=following.invocation_id,
            request_id=request_id,
            input_id=self.new_id(),
            payload=raw(payload),
        )

    async def cancel(self, following: Following) -> Any:
        """Cancel a run, and return the answer."""
        answer = await self.ask(
            "cancel", following, invocation_id=following.invocation_id, **current_trace()
        )
        return None if answer is None else answer.payload

    # --- sending ---

    def _open(self, following: Following) -> None:
        if following.timer is not None:
            following.timer.cancel()
        if self._connection is None or not self._connection.is_open:
            return  # it is said when there is a socket
        anew = following.invocation_id in self._here
        message = following.opening(self._new_query(), anew=anew)
        if message is not None:
            self._here.add(following.invocation_id)
            self._send(message)

    def _send(self, message: bytes) -> bool:
        return self._connection is not None and self._connection.send(message)

    def _new_query(self) -> str:
        self._queries += 1
        return str(self._queries)


def _not_entered() -> Exception:
    return RuntimeError("The client is not connected: use it within `async with`")
