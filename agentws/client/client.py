"""The client: one socket, many runs, whatever happens to the socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from agentws.client.backoff import Backoff, Patience
from agentws.client.connection import Connection, State, Timings, Token
from agentws.client.errors import Closed
from agentws.client.feed import Feed
from agentws.client.following import Following, OnGap
from agentws.client.run import Run
from agentws.client.socket import Direction, Endpoint
from agentws.client.switchboard import Switchboard
from agentws.client.trace import current_trace
from agentws.client.wire import raw
from agentws.protocol.identifiers import ID_RULE, is_id

OnDisconnect = Literal["continue", "cancel"]
IfSessionBusy = Literal["parallel", "reject", "interrupt"]

_PATH: Final = "/invocations_ws/ws"

_SOCKET_ROUTES: Final = ("/invocations_ws", _PATH)


class Client:
    """Made by `connect`; use it with `async with`."""

    def __init__(
        self, endpoint: Endpoint, token: Token | None, timings: Timings, max_queue: int
    ) -> None:
        self._timings = timings
        self._max_queue = max_queue
        self._has_begun = False
        self._switchboard = Switchboard(timings.max_retry_delay, timings.give_up_after)
        self._on_state: list[Callable[[State], object]] = []
        self._on_frame: list[Callable[[Direction, str], object]] = []
        self._connection = Connection(
            endpoint, token, timings, self._switchboard, self._tell_frame, self._tell_state
        )

    @property
    def state(self) -> State:
        """Where the connection stands: `connecting`, `open`, `reconnecting`, or `closed`."""
        return self._connection.state

    def on_state(self, callback: Callable[[State], object]) -> None:
        """Have `callback` called with each new state."""
        self._on_state.append(callback)

    def on_frame(self, callback: Callable[[Direction, str], object]) -> None:
        """Have `callback` called with each message, as text, and whether it went `in` or `out`.

        Credentials are in none of them.
        """
        self._on_frame.append(callback)

    # --- runs ---

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
    ) -> Run:
        """Invoke the agent, and return at once; the id is made here if none is given.

        What is None is for the server's settings to say. With `background`, the agent runs on
        though nobody listens, and awaiting the run waits until it was accepted only. A gap in what
        the server holds ends the run by `ReplayGap`, unless `on_gap` is `skip`.

        Raises `TypeError` or `ValueError` for a payload that JSON cannot hold or a malformed id,
        `ConnectionFailed` or `Closed` where the client is closed; all else the run raises.
        """
        invocation_id = _checked("id", id) or self._switchboard.new_id()
        fields: dict[str, Any] = {
            "invocation_id": invocation_id,
            "session_id": _checked("session_id", session_id),
            "background": background or None,
            "on_disconnect": on_disconnect,
            "if_session_busy": if_session_busy,
            **current_trace(),
            "payload": raw(payload),
        }
        return self._follow(invocation_id, fields, 0, on_gap)

    def attach(self, id: str, *, after: int = 0, on_gap: OnGap = "raise") -> Run:
        """Follow an invocation, whoever started it, after the entry of that number.

        Raises as `invoke` does.
        """
        if not is_id(id) or after < 0:
            raise ValueError(f"id must be {ID_RULE}, and after 0 or more")
        return self._follow(id, None, after, on_gap)

    def _follow(self, id: str, invoke: Mapping[str, Any] | None, after: int, on_gap: OnGap) -> Run:
        if self._switchboard.failure is not None:
            raise self._switchboard.failure()
        following = Following(
            id,
            self._switchboard,
            Feed(self._max_queue, after),
            Backoff(self._timings.max_retry_delay),
            Patience(self._timings.give_up_after),
            invoke=invoke,
            on_gap=on_gap,
        )
        self._switchboard.add(following)
        return Run(following, self._switchboard)

    # --- records ---

    async def get(self, id: str) -> Any:
        """Return the record of an invocation, or what the agent's own handler says instead.

        Raises `InvocationFailed` (`not_found`, …), `ConnectionFailed` and `Closed`.
        """
        fields: dict[str, Any] = {"invocation_id": id, **current_trace()}
        answer = await self._switchboard.ask("get", **fields)
        assert answer is not None
        return answer.payload

    async def list(
        self, *, session_id: str | None = None, status: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Iterate the records of the caller's own invocations, the newest first; pages are fetched.

        Raises as `get` does.
        """
        after: str | None = None
        while True:
            page = await self._switchboard.ask(
                "list", session_id=session_id, status=status, after=after
            )
            assert page is not None
            for record in page.invocations or ():
                yield record
            if (after := page.next) is None:
                return

    # --- life ---

    async def close(self) -> None:
        """Close the socket. What runs is left to its `on_disconnect`; readers get `Closed`."""
        self._switchboard.end(lambda: Closed("The client was closed; connect anew and attach"))
        await self._connection.close()

    async def __aenter__(self) -> Self:
        if self._has_begun:
            raise RuntimeError("A client is entered once; connect anew")
        self._has_begun = True
        self._switchboard.use(self._connection)
        self._connection.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # --- callbacks ---

    def _tell_state(self, state: State) -> None:
        for callback in self._on_state:
            with _complaints():
                callback(state)

    def _tell_frame(self, direction: Direction, message: bytes) -> None:
        for callback in self._on_frame:
            with _complaints():
                callback(direction, message.decode(errors="replace"))


class _complaints(contextlib.AbstractContextManager[None]):  # noqa: N801 - used like a function
    """Tells the event loop of what a callback raises, which is not the connection's concern."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        told = {"message": "A callback of the client's failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(told)
        return True


def connect(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    api_key: str | None = None,
    token: Token | None = None,
    session_id: str | None = None,
    query: Mapping[str, str] | None = None,
    ssl: SSLContext | bool = True,
    connect_timeout: float = 10,
    silence: float = 60,
    max_retry_delay: float = 10,
    give_up_after: float = 300,
    max_queue: int = 1024,
) -> Client:
    """Return a client of the server at `url`; entering it (`async with`) begins to connect.

    `http://host` stands for its framed socket, `/invocations_ws/ws`, unless its path is that of a
    socket already. `token` is a string, or a function, async or not, that is asked for one at each
    connect. `session_id` is that of all that names none; without one the server makes one, which is
    kept when the socket is replaced.

    Durations are in seconds: how long the first connection may take, retries included; how long
    nothing may come; the longest pause between attempts; how long after a loss there may be no
    socket. `max_queue` is how many chunks a run holds for its reader before it drops them, to ask
    for them again later.

    Raises `ValueError` for a URL or an id that is none, and where there is no time or room at all.
    """
    if min(connect_timeout, silence, give_up_after, max_queue) <= 0 or max_retry_delay < 0:
        raise ValueError("Time-outs and max_queue must be above 0, max_retry_delay 0 or more")
    names = dict(query or {})
    if _checked("session_id", session_id) is not None:
        names["agent_session_id"] = str(session_id)
    fields = dict(headers or {})
    if api_key is not None:
        fields["api-key"] = api_key
    endpoint = Endpoint(_framed(url), fields, names, ssl, silence)
    return Client(
        endpoint, token, Timings(connect_timeout, max_retry_delay, give_up_after), max_queue
    )


def _framed(url: str) -> str:
    """Return the URL of the framed socket. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{url!r} is no URL of a server: ws, wss, http or https and a host")
    if parts.scheme.startswith("ws"):
        return url
    scheme, path = parts.scheme.replace("http", "ws"), parts.path.rstrip("/")
    if not path.endswith(_SOCKET_ROUTES):
        path += _PATH
    return urlunsplit(parts._replace(scheme=scheme, path=path))


def _checked(name: str, value: str | None) -> str | None:
    """Return an id, None for none. Raises `ValueError`."""
    if value is not None and not is_id(value):
        raise ValueError(f"{name} must be {ID_RULE}")
    return value
