"""The client's connection: one socket at a time, and the next one when it is lost or ends."""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from agentws.client.backoff import Backoff, Patience
from agentws.client.errors import ConnectionFailed, refused
from agentws.client.retries import Handshake, judge_handshake
from agentws.client.socket import Endpoint, HandshakeFailed, OnFrame, Socket
from agentws.client.wire import Message

State = Literal["connecting", "open", "reconnecting", "closed"]

Token = str | Callable[[], str | Awaitable[str]]

_TOO_LARGE: Final = 1009

_MOVING: Final = 1.0
"""Seconds within which a client leaves a socket that the server will close."""


class Timings(Struct, frozen=True):
    """All in seconds, see `connect`."""

    connect_timeout: float
    max_retry_delay: float
    give_up_after: float


class Owner(Protocol):
    """Who uses the connection."""

    def take(self, message: Message) -> bool:
        """Take a message; see `Take`."""

    def opened(self, attempts: int, seconds: float | None) -> None:
        """Say all that is to be said on a new socket, which opened after so many attempts.

        `seconds` is how long there was none, None where none was lost.
        """

    def refused_as_too_large(self) -> None:
        """One of the messages was larger than the server takes."""

    def failed(self, failure: ConnectionFailed) -> None:
        """There will be no other socket."""


class _Attempts(Struct):
    """How it stands with opening the next socket; `last` is why there is none yet."""

    last: ConnectionFailed
    count: int = 0
    token_refused: bool = False


class Connection:
    """Keeps a socket open, from `start` to `close`."""

    def __init__(
        self,
        endpoint: Endpoint,
        token: Token | None,
        timings: Timings,
        owner: Owner,
        on_frame: OnFrame,
        on_state: Callable[[State], None],
    ) -> None:
        self.state: State = "connecting"
        self._endpoint = endpoint
        self._token = token
        self._timings = timings
        self._owner = owner
        self._on_frame = on_frame
        self._on_state = on_state
        self._backoff = Backoff(timings.max_retry_delay)
        self._patience = Patience(timings.give_up_after)
        self._welcome_at = 0.0
        """When the server said to come back, on the loop's clock."""
        self._socket: Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._closings: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to open the first socket."""
        self._clock = asyncio.get_running_loop().time
        self._task = asyncio.create_task(self._run())

    @property
    def is_open(self) -> bool:
        """Whether there is a socket to send on."""
        return self._socket is not None

    def send(self, message: bytes) -> bool:
        """Send a message if there is a socket; tell whether there is."""
        if self._socket is None:
            return False
        self._socket.send(message)
        return True

    def progress(self) -> None:
        """Note that something came of a run: the next delay is a short one again."""
        self._backoff.reset()

    async def close(self) -> None:
        """Close the socket, and open no other."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._turn("closed")
        if self._socket is not None:
            self._retire(self._socket)
        while self._closings:
            await asyncio.wait(self._closings)

    # --- the life of the connection ---

    async def _run(self) -> None:
        try:
            await self._use(await self._first(), 1, None)
        except ConnectionFailed as failure:
            self._fail(failure)
        except Exception as error:  # whatever it is, nobody may wait for more
            unforeseen = ConnectionFailed(f"The client failed: {error!r}")
            unforeseen.__cause__ = error
            self._fail(unforeseen)

    def _fail(self, failure: ConnectionFailed) -> None:
        self._turn("closed")
        self._owner.failed(failure)

    async def _first(self) -> Socket:
        patience = Patience(self._timings.connect_timeout)
        patience.begin(self._clock())
        return await self._open(_Attempts(ConnectionFailed("No connection")), patience, wait=False)

    async def _use(self, socket: Socket, attempts: int, seconds: float | None) -> None:
        """Use one socket after another, beginning with an open one."""
        while True:
            self._begin(socket, attempts, seconds)
            following = await self._followed_up(socket)
            if following is not None:
                socket, attempts, seconds = following, 1, None
                continue
            lost_at = self._clock()
            self._mourn(socket)
            tries = _Attempts(ConnectionFailed(socket.lost.result()))
            socket = await self._open(tries, self._patience, wait=True)
            attempts, seconds = tries.count, self._clock() - lost_at

    def _begin(self, socket: Socket, attempts: int, seconds: float | None) -> None:
        old, self._socket = self._socket, socket
        self._keep_session(socket)
        self._owner.opened(attempts, seconds)
        self._turn("open")
        if old is not None:
            self._retire(old)

    def _keep_session(self, socket: Socket) -> None:
        """Have the next socket belong to the session that the server made for this one."""
        query = self._endpoint.query
        if socket.session_id is not None and "agent_session_id" not in query:
            query = {**query, "agent_session_id": socket.session_id}
            self._endpoint = replace(self._endpoint, query=query)

    def _mourn(self, socket: Socket) -> None:
        """Take leave of a socket that was lost."""
        self._socket = None
        # One that ends in nonsense gives no new patience, and uses up none while it makes sense.
        if socket.made_sense:
            self._patience.reset()
        else:
            self._patience.extend(socket.good_for)
        self._patience.begin(self._clock())
        self._turn("reconnecting")
        self._retire(socket, 1002 if socket.was_nonsense else 1000)
        if socket.close_code == _TOO_LARGE:
            self._owner.refused_as_too_large()

    async def _followed_up(self, socket: Socket) -> Socket | None:
        """Wait for the end of a socket; return the next one where it opened before that."""
        await _either(socket.lost, socket.leaving)
        if socket.lost.done():
            return None
        moving = asyncio.create_task(self._move(socket.leaving.result()))
        try:
            await _either(socket.lost, moving)
            if not socket.lost.done() and moving.exception() is not None:
                await asyncio.wait({socket.lost})  # the old one is used to its end
        except BaseException:
            moving.add_done_callback(self._drop)
            moving.cancel()
            raise
        if moving.done() and moving.exception() is None:
            return moving.result()
        moving.cancel()
        return None

    async def _move(self, grace: float) -> Socket:
        """Open the next socket while the old one is good for `grace` seconds more.

        Not all clients of a server that leaves should come to the next one at once.
        """
        await asyncio.sleep(random.uniform(0, min(grace / 2, _MOVING)))
        refused_so_far = _Attempts(ConnectionFailed("The server is going away"))
        return await self._open(refused_so_far, Patience(float("inf")), wait=False)

    def _drop(self, opening: "asyncio.Task[Socket]") -> None:
        """Close a socket that opened when it was not wanted any more."""
        if not opening.cancelled() and opening.exception() is None:
            self._retire(opening.result())

    # --- opening ---

    async def _open(self, tries: _Attempts, patience: Patience, *, wait: bool) -> Socket:
        """Try to open a socket until it opens. Raises `ConnectionFailed`."""
        delay = max(self._backoff.next(), self._welcome_at - self._clock()) if wait else 0.0
        while True:
            await self._sleep(delay, tries, patience)
            tries.count += 1
            try:
                return await self._attempt(tries, patience)
            except HandshakeFailed as failure:
                delay = self._judge(failure, tries)

    async def _sleep(self, delay: float, tries: _Attempts, patience: Patience) -> None:
        left = patience.left(self._clock())
        await asyncio.sleep(max(0.0, min(delay, left)))
        if left <= delay:
            raise tries.last

    async def _attempt(self, tries: _Attempts, patience: Patience) -> Socket:
        most = min(self._timings.connect_timeout, max(patience.left(self._clock()), 0.001))
        try:
            async with asyncio.timeout(most):
                endpoint = replace(self._endpoint, headers=await self._headers())
                return await Socket.open(endpoint, self._owner.take, self._on_frame)
        except TimeoutError:
            if tries.count > 1 and most < self._timings.connect_timeout / 2:
                raise tries.last from None  # which says more than an attempt with hardly any time
            raise HandshakeFailed(f"No answer within {most:.3g} s", None, None) from None

    async def _headers(self) -> dict[str, str]:
        """Return the headers of the next handshake, with a token if there is one."""
        headers = dict(self._endpoint.headers)
        if self._token is None:
            return headers
        try:
            token = self._token if isinstance(self._token, str) else self._token()
            headers["Authorization"] = (
                f"Bearer {await token if inspect.isawaitable(token) else token}"
            )
        except Exception as error:
            raise HandshakeFailed(f"The token function failed: {error!r}", None, None) from error
        return headers

    def _judge(self, failure: HandshakeFailed, tries: _Attempts) -> float:
        """Return how long to wait after a failure. Raises `ConnectionFailed` where it is final."""
        tries.last = _told(failure)
        can_refresh = callable(self._token) and not tries.token_refused
        match judge_handshake(failure.status, can_refresh=can_refresh):
            case Handshake.FINAL:
                raise tries.last
            case Handshake.AT_ONCE:
                tries.token_refused = True
                return 0.0
            case Handshake.LATER:
                if failure.retry_after is not None:
                    self._welcome_at = self._clock() + failure.retry_after
                return self._backoff.next(failure.retry_after)

    # --- closing ---

    def _retire(self, socket: Socket, code: int = 1000) -> None:
        """Close a socket without waiting for it."""
        task = asyncio.create_task(socket.close(code))
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    def _turn(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._on_state(state)


def _told(failure: HandshakeFailed) -> ConnectionFailed:
    told = ConnectionFailed(failure.reason) if failure.status is None else refused(failure.status)
    told.__cause__ = failure.__cause__ or failure
    return told


async def _either(*futures: "asyncio.Future[Any]") -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
