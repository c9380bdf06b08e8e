"""A run as its user has it: read once, in one of three ways."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from agentws.client.errors import Closed
from agentws.client.events import Chunk, Event
from agentws.client.feed import Feed
from agentws.client.following import Following, Status

Item = TypeVar("Item")


class Followed(Protocol):
    """What is known of an invocation that is read, whatever brings it."""

    @property
    def invocation_id(self) -> str:
        """Its id."""

    @property
    def feed(self) -> Feed:
        """What has arrived."""

    @property
    def status(self) -> Status:
        """`pending` until the server's first answer, then what its record says."""

    @property
    def value(self) -> Any:
        """What a coroutine returned."""

    @property
    def is_stream(self) -> bool:
        """Whether it ended as a stream does."""

    @property
    def is_left(self) -> bool:
        """Whether nobody reads it any more."""

    def leave(self) -> None:
        """Read no more of it."""


class Reading(AsyncIterator[Item], Generic[Item]):
    """An iteration that has begun. Whoever lets go of it before its end, leaves the run.

    It is an object and not a generator, so that a loop that is left lets go of it at once.
    """

    __slots__ = ("_has_begun", "_leave", "_next")

    def __init__(
        self, next_item: Callable[[], Coroutine[Any, Any, Item]], leave: Callable[[], None]
    ) -> None:
        self._next = next_item
        self._leave = leave
        self._has_begun = False

    async def __anext__(self) -> Item:
        self._has_begun = True
        next_item = self._next
        try:
            return await next_item()
        finally:
            del self  # or the traceback of what is raised would keep it

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """End it, and detach the run if it has not ended."""
        self._leave()

    def __del__(self) -> None:
        if self._has_begun:
            self._leave()


class Readable:
    """One invocation: iterate it for its chunks, or `events()`, or await it.

    Iterating gives payloads of chunks; `events()` gives `Chunk`, `Question`, `Answered`, `Gap` and
    `Reconnected`; awaiting gives a coroutine's result, or the list of a stream's chunks that were
    not read before. These are three ways of one reading, which is for one reader at a time. All
    raise `InvocationFailed`, `ConnectionFailed` or, where the client was closed, `Closed`.
    """

    def __init__(self, followed: Followed) -> None:
        self._followed = followed
        self._feed = followed.feed
        self._loop = asyncio.get_running_loop()

    @property
    def id(self) -> str:
        """The invocation's id."""
        return self._followed.invocation_id

    @property
    def cursor(self) -> int:
        """The number of the last entry that was read; to attach after it misses nothing."""
        return self._feed.cursor

    @property
    def status(self) -> Status:
        """`pending` until the server's first answer, then what its record says."""
        return self._followed.status

    # --- reading ---

    def __aiter__(self) -> Reading[Any]:
        return Reading(self._next_chunk, self._leave)

    def events(self) -> Reading[Event]:
        """Iterate all there is to tell, chunks among it."""
        return Reading(self._next_event, self._leave)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def _next_event(self) -> Event:
        if (event := await self._feed.next()) is None:
            raise StopAsyncIteration
        return event

    async def _next_chunk(self) -> Any:
        while (event := await self._feed.next()) is not None:
            if isinstance(event, Chunk):
                return event.payload
        raise StopAsyncIteration

    async def _result(self) -> Any:
        followed, was_read, chunks = self._followed, self._feed.was_read, []
        try:
            while (event := await self._feed.next()) is not None:
                if isinstance(event, Chunk):
                    chunks.append(event.payload)
        except asyncio.CancelledError:
            self.detach()
            raise
        if followed.is_left:
            raise Closed("The run was detached; attach to its id for the rest")
        if followed.is_stream:
            return None if was_read else chunks
        return followed.value

    # --- leaving ---

    def detach(self) -> None:
        """Listen no longer, which cancels nothing; iterations end quietly."""
        self._followed.leave()

    def _leave(self) -> None:
        """Detach, from whatever thread, unless it was read to its end or somebody else reads it."""
        if self._feed.was_read or self._feed.is_awaited:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all with it
            if _is_running(self._loop):
                self.detach()
            else:
                self._loop.call_soon_threadsafe(self.detach)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"Run(id={self.id!r}, status={self.status!r}, cursor={self.cursor})"


class Asks(Protocol):
    """What a run asks of the server besides being followed."""

    async def cancel(self, following: Following) -> Any:
        """Cancel it, and return the server's answer."""

    async def send(self, following: Following, payload: Any) -> None:
        """Put something into its inbox."""

    async def answer(self, following: Following, request_id: str, payload: Any) -> None:
        """Answer one of its questions."""


class Run(Readable):
    """What a client has of an invocation: it is read, and spoken to."""

    def __init__(self, following: Following, asks: Asks) -> None:
        super().__init__(following)
        self._following = following
        self._asks = asks

    async def cancel(self) -> Any:
        """Cancel the invocation, and return the server's answer.

        It tells `cancelled`, or `cancelling` where the agent takes its time; None where an earlier
        repetition of this had done it already. Raises `InvocationFailed` (`already_finished`,
        `not_found`, …).
        """
        return await self._asks.cancel(self._following)

    async def send(self, payload: Any) -> None:
        """Say something to the agent while it runs, and wait until it is in its inbox.

        Raises `InvocationFailed` (`too_many_inputs`, `already_finished`, …).
        """
        await self._asks.send(self._following, payload)

    async def answer(self, request_id: str, payload: Any) -> None:
        """Answer a question that somebody else was asked, and wait until the server has the answer.

        Raises `InvocationFailed` (`input_not_expected` where it is not open, …).
        """
        await self._asks.answer(self._following, request_id, payload)


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
