"""What a handler may know of the invocation that it serves, and how it talks to its clients."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from agentws.agent.conversation import Ask, Conversation, Conversations, Draining, Input
from agentws.agent.payloads import answer_type
from agentws.protocol.encoding import encode_progress, encode_said
from agentws.protocol.json_schema import checked_schema

Transport = Literal["websocket", "http"]


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
    _conversations: Conversations | None = None
    _draining: Draining | None = None

    def report(self, value: Any) -> None:
        """Put a JSON value into the record as `progress`, where whoever polls finds it.

        The last value wins; with Redis, the other replicas see it about a tenth of a second later.
        It stays when the invocation has ended, and after that, nothing is put there any more. To
        be called in an invoke handler, or in what that has started, from the event loop's thread.

        Raises `ValueError` for what JSON cannot hold and for more than 64 KiB of it, and
        `RuntimeError` in other handlers and other threads.
        """
        if self._conversations is None:
            raise RuntimeError("Only an invoke handler has progress to report")
        if not _is_in_event_loop():
            raise RuntimeError(
                "Progress is reported from the event loop's thread; elsewhere, "
                "loop.call_soon_threadsafe(context.report, value) hands it over"
            )
        conversation = self._conversations.held_by(self)
        if conversation is not None:
            conversation.report(encode_progress(value))

    @property
    def inputs(self) -> AsyncIterator[Input]:
        """What clients say to the invocation, as it comes; it never ends by itself."""
        return _Inputs(self)

    async def receive(self, timeout: float | None = None) -> Input:  # noqa: ASYNC109 - for authors
        """Wait for the next of `inputs`, which goes to one of those who wait.

        Raises `TimeoutError` after `timeout` seconds, None for never; and `RuntimeError` in other
        handlers, and once the invocation has ended.
        """
        conversation = self._conversing()
        if timeout is None:
            return await conversation.receive()
        async with asyncio.timeout(timeout):
            return await conversation.receive()

    async def ask(
        self,
        payload: Any,
        *,
        type: Any = None,  # noqa: A002 - the word for it
        schema: Any = None,
        timeout: float | None = None,  # noqa: ASYNC109 - for authors
        full: bool = False,
    ) -> Any:
        """Ask whoever listens, now or later, and return the first answer (§5).

        With `type`, a bad answer is refused, and the question stays open; a good one is converted.
        `schema` is a JSON Schema for the client's form alone. `full` returns an `Answer`, which
        tells who gave it. Several questions may be open at once.

        Raises `TimeoutError` after `timeout` seconds, None for `invocations.input_timeout`, 0 for
        never; `TypeError` and `ValueError` for a type or a schema that is none, and for a payload
        that JSON cannot hold; `RuntimeError` in other handlers, and once the invocation is about to
        end.
        """
        conversation = self._conversing()
        convert = None
        if type is not None:
            text, convert = answer_type(type)
        else:
            text = None
        if schema is not None:
            text = checked_schema(schema)
        question = Ask(encode_said(payload, "A question"), text, convert, timeout)
        answer = await conversation.ask(question)
        return answer if full else answer.payload

    @property
    def draining(self) -> bool:
        """Whether the daemon shuts down: `server.shutdown_grace` seconds are left, at most."""
        return self._draining is not None and self._draining.begun

    async def drained(self) -> None:
        """Wait until the daemon begins to shut down."""
        draining = self._draining or Draining()
        await draining.wait()

    def _conversing(self) -> Conversation:
        if self._conversations is None:
            raise RuntimeError("Only an invoke handler can talk to its clients")
        conversation = self._conversations.held_by(self)
        if conversation is None:
            raise RuntimeError("The invocation has ended: there is nobody to talk to")
        return conversation


class _Inputs:
    """Iterates over what clients say."""

    def __init__(self, context: InvocationContext) -> None:
        self._context = context

    def __aiter__(self) -> "_Inputs":
        return self

    async def __anext__(self) -> Input:
        return await self._context.receive()


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
