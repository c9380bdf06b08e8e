"""What a handler may know of the invocation that it serves, and its way to report progress."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

from msgspec import Struct
from msgspec.structs import force_setattr

from agentws.protocol.encoding import encode_progress

Transport = Literal["websocket", "http"]


class Reporter(Protocol):
    """Takes the progress of one invocation."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to report."""

    def report(self, progress: bytes) -> None:
        """Put progress (JSON) where whoever polls finds it."""


class _Ended:
    """In place of what took progress, so that a context that is kept does not keep that, too."""

    ended = True

    def report(self, progress: bytes) -> None:
        """Drop it."""


_ENDED: Final = _Ended()


class InvocationContext(Struct, frozen=True):
    """What a handler may know of the invocation that it serves."""

    invocation_id: str
    session_id: str
    transport: Transport = "websocket"
    client_headers: Mapping[str, str] = {}
    """The caller's `x-client-*` headers, whole names in lower case."""
    query: Mapping[str, str] = {}
    """The query parameters of the request or handshake."""
    user_id: str | None = None
    """The subject of the caller's token, else its `x-agent-user-id`, where it sent one."""
    call_id: str | None = None
    """`x-agent-foundry-call-id`, where the caller sent one."""
    request_id: str = ""
    """The id under which the request or handshake is known in logs and answers."""
    record: dict[str, Any] | None = None
    """What a poll would answer (§5), as it was before a get or cancel handler was called.

    None where there is no such invocation, and in other handlers.
    """
    _reporter: Reporter | None = None

    def report(self, value: Any) -> None:
        """Put a JSON value into the record as `progress`, where whoever polls finds it.

        The last value wins; with Redis, the other replicas see it about a tenth of a second later.
        It stays when the invocation has ended, and after that, nothing is put there any more. To
        be called in an invoke handler, or in what that has started, from the event loop's thread.

        Raises `ValueError` for what JSON cannot hold and for more than 64 KiB of it, and
        `RuntimeError` in other handlers and other threads.
        """
        if self._reporter is None:
            raise RuntimeError("Only an invoke handler has progress to report")
        if not _is_in_event_loop():
            raise RuntimeError(
                "Progress is reported from the event loop's thread; elsewhere, "
                "loop.call_soon_threadsafe(context.report, value) hands it over"
            )
        if not self._reporter.ended:
            self._reporter.report(encode_progress(value))


def end_reports(context: InvocationContext) -> None:
    """Let a context report nothing more: the invocation has ended."""
    force_setattr(context, "_reporter", _ENDED)  # frozen for authors, not for us


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
