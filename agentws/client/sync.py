"""The client for code that blocks: the one implementation, in a thread of its own."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar

from agentws.client.client import Client, IfSessionBusy, OnDisconnect, connect
from agentws.client.connection import State
from agentws.client.errors import Closed
from agentws.client.events import Answered, Chunk, Event, Gap, Question, Reconnected
from agentws.client.following import OnGap, Status
from agentws.client.run import Run
from agentws.client.socket import Direction

Options = ParamSpec("Options")
Item = TypeVar("Item")
Result = TypeVar("Result")

_END: Final = object()


class _Thread:
    """Runs a client on an event loop of its own, until it is stopped."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._is_stopped = asyncio.Event()
        self._is_started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentws.client", daemon=True)
        self._thread.start()
        self._is_started.wait()

    def begin(self, work: Coroutine[Any, Any, Result]) -> "concurrent.futures.Future[Result]":
        """Start some work there. Raises `Closed`."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise Closed("The client was closed; connect anew") from None

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do some work there, and wait for it; an interrupt cancels it."""
        future = self.begin(work)
        try:
            return result_of(future)
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Close the client, and wait for the end of the thread."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._is_stopped.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        async with self._client:
            self._is_started.set()
            await self._is_stopped.wait()


def result_of(future: "concurrent.futures.Future[Result]", timeout: float | None = None) -> Result:
    """Wait for some work. Raises `Closed` where the client was closed meanwhile."""
    try:
        return future.result(timeout)
    except concurrent.futures.CancelledError:
        raise Closed("The client was closed; connect anew") from None


class SyncQuestion(Question):
    """A question whose `answer` blocks."""

    __slots__ = ("_thread",)

    def __init__(self, question: Question, thread: _Thread) -> None:
        async def forward(_request_id: str, payload: Any) -> None:
            await question.answer(payload)

        super().__init__(
            question.number, question.request_id, question.payload, question.schema, forward
        )
        self._thread = thread

    def answer(self, payload: Any) -> None:  # type: ignore[override]
        """Answer it, see `Question.answer`."""
        self._thread.do(super().answer(payload))


SyncEvent = Chunk | SyncQuestion | Answered | Gap | Reconnected


class SyncReading(Iterator[Item], Generic[Item]):
    """An iteration; whoever lets go of it before its end, leaves the run."""

    def __init__(
        self, reading: AsyncIterator[Any], thread: _Thread, told: Callable[[Any], Item]
    ) -> None:
        """Give what `reading` gives, as it is to be told to who blocks."""
        self._reading = reading
        self._thread = thread
        self._told = told

    def __next__(self) -> Item:
        item = self._thread.do(_next(self._reading))
        if item is _END:
            raise StopIteration
        return self._told(item)


def _as_it_is(item: Any) -> Any:
    return item


async def _next(reading: AsyncIterator[Any]) -> Any:
    return await anext(reading, _END)


class SyncRun:
    """What `Run` is, for code that blocks; usable from several threads, read by one at a time."""

    def __init__(self, run: Run, thread: _Thread) -> None:
        self._run = run
        self._thread = thread
        self._result: concurrent.futures.Future[Any] | None = None

    @property
    def id(self) -> str:
        """See `Run.id`."""
        return self._run.id

    @property
    def cursor(self) -> int:
        """See `Run.cursor`."""
        return self._run.cursor

    @property
    def status(self) -> Status:
        """See `Run.status`."""
        return self._run.status

    def __iter__(self) -> SyncReading[Any]:
        return SyncReading(aiter(self._run), self._thread, _as_it_is)

    def events(self) -> SyncReading[SyncEvent]:
        """See `Run.events`; the answers to questions block, too."""
        return SyncReading(self._run.events(), self._thread, self._event)

    def _event(self, event: Event) -> SyncEvent:
        return SyncQuestion(event, self._thread) if isinstance(event, Question) else event

    def result(self, timeout: float | None = None) -> Any:
        """Wait for what awaiting a `Run` gives, for `timeout` seconds at most.

        Raises what that raises, and `TimeoutError`, after which it may be asked for again.
        """
        if self._result is None:
            self._result = self._thread.begin(_await(self._run))
        return result_of(self._result, timeout)

    def cancel(self) -> Any:
        """See `Run.cancel`."""
        return self._thread.do(self._run.cancel())

    def send(self, payload: Any) -> None:
        """See `Run.send`."""
        self._thread.do(self._run.send(payload))

    def answer(self, request_id: str, payload: Any) -> None:
        """See `Run.answer`."""
        self._thread.do(self._run.answer(request_id, payload))

    def detach(self) -> None:
        """See `Run.detach`."""
        self._thread.do(_call(self._run.detach))

    close = detach

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        return repr(self._run)


async def _await(run: Run) -> Any:
    return await run


async def _call(function: Callable[[], Result]) -> Result:
    return function()


class SyncClient:
    """What `Client` is, for code that blocks. Made by `connect_sync`, ended by `close`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._thread = _Thread(client)

    @property
    def state(self) -> State:
        """See `Client.state`."""
        return self._client.state

    def on_state(self, callback: Callable[[State], object]) -> None:
        """See `Client.on_state`; `callback` is called in the client's thread."""
        self._client.on_state(callback)

    def on_frame(self, callback: Callable[[Direction, str], object]) -> None:
        """See `Client.on_frame`; `callback` is called in the client's thread."""
        self._client.on_frame(callback)

    def invoke(
        self,
        payload: Any,
        *,
        id: str | None = None,
        session_id: str | None = None,
        background: bool = False,
        on_disconnect: OnDisconnect | None = None,
        if_session_busy: IfSessionBusy | None = None,
        on_gap: OnGap = "raise",
    ) -> SyncRun:
        """See `Client.invoke`."""
        invoke = partial(
            self._client.invoke,
            payload,
            id=id,
            session_id=session_id,
            background=background,
            on_disconnect=on_disconnect,
            if_session_busy=if_session_busy,
            on_gap=on_gap,
        )
        return SyncRun(self._thread.do(_call(invoke)), self._thread)

    def attach(self, id: str, *, after: int = 0, on_gap: OnGap = "raise") -> SyncRun:
        """See `Client.attach`."""
        attach = partial(self._client.attach, id, after=after, on_gap=on_gap)
        return SyncRun(self._thread.do(_call(attach)), self._thread)

    def get(self, id: str) -> Any:
        """See `Client.get`."""
        return self._thread.do(self._client.get(id))

    def list(
        self, *, session_id: str | None = None, status: str | None = None
    ) -> SyncReading[dict[str, Any]]:
        """See `Client.list`."""
        records = self._client.list(session_id=session_id, status=status)
        return SyncReading(records, self._thread, _as_it_is)

    def close(self) -> None:
        """See `Client.close`."""
        self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _blocking(make: Callable[Options, Client]) -> Callable[Options, SyncClient]:
    def make_blocking(*args: Options.args, **kwargs: Options.kwargs) -> SyncClient:
        """Connect for code that blocks: see `connect`, whose arguments these are.

        It begins to connect at once, and ends with `close()`, or with a `with` block.
        """
        return SyncClient(make(*args, **kwargs))

    return make_blocking


connect_sync: Final = _blocking(connect)
