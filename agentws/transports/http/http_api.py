"""HTTP over the invocation table: invoke, poll, attach, cancel (§6)."""

from collections.abc import Sequence
from typing import Final, get_args

from aiohttp import hdrs, web
from msgspec import Raw

from agentws.agent.conversation import Draining
from agentws.agent.handlers import Agent
from agentws.config.settings import Settings
from agentws.invocations.table import InvocationTable, may_exist
from agentws.protocol.decoding import frame_of
from agentws.protocol.encoding import decode_payload
from agentws.protocol.errors import InvocationError, ReplayGap
from agentws.protocol.events import Awaiting, Event
from agentws.protocol.frames import IfSessionBusy, ListInvocations, OnDisconnect, SendInput
from agentws.protocol.identifiers import IdSource
from agentws.protocol.inputs import Delivery
from agentws.stores.log import Log
from agentws.stores.log_reader import LogReader
from agentws.transports.http.answers import encoded_response, json_response
from agentws.transports.http.begun_answers import BEGUN
from agentws.transports.http.bodies import read_body
from agentws.transports.http.documents import Documents
from agentws.transports.http.sse import END_ID, EventStream
from agentws.transports.http.whole_answers import WholeAnswers
from agentws.transports.http.wishes import (
    EVENTS,
    LAST_EVENT_ID,
    accepted,
    preferences,
    starting_after,
    wants_an_array,
    wants_events,
)
from agentws.transports.request_fields import (
    INVOCATION_ID,
    REQUEST_ID,
    SESSION_ID,
    header_choice,
    invoked_id,
    path_invocation_id,
    read_caller,
)
from agentws.transports.session_ids import http_session

MOST_COLLECTED: Final = 64 * 1024**2
"""Bytes of a stream that are held together for a client that wants one JSON array."""

_RESPOND_ASYNC: Final = "respond-async"  # RFC 7240 §4.1

_ON_DISCONNECT: Final[tuple[OnDisconnect, ...]] = get_args(OnDisconnect)
_IF_SESSION_BUSY: Final[tuple[IfSessionBusy, ...]] = get_args(IfSessionBusy)


class HttpApi:
    """Answers the routes of invocations, for an agent that has handlers."""

    def __init__(
        self,
        table: InvocationTable,
        settings: Settings,
        agent: Agent,
        draining: Draining,
    ) -> None:
        """Answer by `table`, and with the documents that describe the agent."""
        self._table = table
        self._documents = Documents(agent, settings.agent)
        self._whole = WholeAnswers(draining)
        self._new_id = IdSource()
        self._session_id = settings.agent.session_id
        self._max_body_size = settings.http.max_body_size
        self._keep_alive = settings.http.sse_keepalive_interval
        self._send_timeout = settings.websocket.send_timeout

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """Run the agent on the body, and answer as the client wants it."""
        session_id = request[SESSION_ID] = http_session(request, self._session_id, self._new_id)
        invocation_id, may_attach = invoked_id(request)
        if invocation_id is not None:
            request[INVOCATION_ID] = invocation_id
        on_disconnect = header_choice(request, "x-agent-on-disconnect", _ON_DISCONNECT)
        busy = header_choice(request, "x-agent-if-session-busy", _IF_SESSION_BUSY)
        in_background = _RESPOND_ASYNC in preferences(request)
        payload = decode_payload(await read_body(request, self._max_body_size))
        invocation_id = request[INVOCATION_ID] = invocation_id or self._new_id()
        caller = read_caller(request, "http", request[REQUEST_ID])
        try:
            invocation = self._table.invoke(
                payload,
                caller,
                session_id=session_id,
                invocation_id=invocation_id,
                background=in_background,
                on_disconnect=on_disconnect,
                if_session_busy=busy,
                may_attach=may_attach,
            )
            # Whoever waits for its turn is followed already, so that it is not taken for deserted.
            with LogReader(invocation.log) as reader:
                await invocation.admitted()
                if in_background:
                    return _promise(invocation.log)
                return await self._answer(request, reader)
        except InvocationError as refusal:
            if not may_attach or not may_exist(refusal):
                raise
            log = await self._table.attach_instead(invocation_id, caller, refusal)
        if in_background:
            return _promise(log)
        with LogReader(log) as reader:
            return await self._answer(request, reader)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer the record, or follow the log as an event stream."""
        invocation_id = path_invocation_id(request)
        session_id = http_session(request, self._session_id, self._new_id)
        caller = read_caller(request, "http", request[REQUEST_ID])
        if request.method == hdrs.METH_HEAD or not accepted(request).get(EVENTS):
            return encoded_response(await self._table.get(invocation_id, session_id, caller))
        has_seen_the_end = request.headers.get(LAST_EVENT_ID) == END_ID
        after = 0 if has_seen_the_end else starting_after(request)
        log = await self._table.attach(invocation_id, caller)
        if has_seen_the_end:
            return _rest(log)
        return await self._follow(request, log, after)

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """Answer a page of the caller's invocations."""
        caller = read_caller(request, "http", request[REQUEST_ID])
        wanted = ("session_id", "status", "limit", "after")
        fields = {name: request.query[name] for name in wanted if request.query.get(name)}
        query = frame_of(fields, ListInvocations, as_text=True)
        listed = await self._table.list(
            caller,
            session_id=query.session_id,
            status=query.status,
            limit=query.limit,
            after=query.after,
        )
        page = {"invocations": [Raw(record) for record in listed.records]}
        return json_response(page if listed.next is None else {**page, "next": listed.next})

    async def inputs(self, request: web.Request) -> web.StreamResponse:
        """Say something to a running invocation."""
        invocation_id = path_invocation_id(request)
        caller = read_caller(request, "http", request[REQUEST_ID])
        fields = decode_payload(await read_body(request, self._max_body_size))
        if not isinstance(fields, dict):
            raise InvocationError("invalid_request", "The body must be a JSON object")
        said = frame_of({**fields, "invocation_id": invocation_id}, SendInput)
        delivery = Delivery(said.payload, said.request_id, said.input_id, caller.user_id)
        return encoded_response(await self._table.send_input(invocation_id, caller, delivery), 202)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Cancel an invocation."""
        invocation_id = path_invocation_id(request)
        session_id = http_session(request, self._session_id, self._new_id)
        caller = read_caller(request, "http", request[REQUEST_ID])
        return encoded_response(await self._table.cancel(invocation_id, session_id, caller))

    async def openapi(self, _request: web.Request) -> web.Response:
        """Answer the description of what is invoked. Raises `not_found` where there is none."""
        return self._documents.openapi()

    async def asyncapi(self, request: web.Request) -> web.Response:
        """Answer the description of the sockets."""
        return self._documents.asyncapi(request)

    async def _answer(self, request: web.Request, reader: LogReader) -> web.StreamResponse:
        wishes = accepted(request)
        if not reader.log.record.streams:
            if wants_events(wishes):
                return await self._event_stream(reader).respond(request)
            await _await_end(reader)
            result = reader.log.record.result or b"null"
            if self._whole.will_do(request):
                return self._whole.make(request, result)
            return encoded_response(result)
        if wants_an_array(wishes):
            return encoded_response(b"[%b]" % b",".join(await _collect(reader)))
        return await self._event_stream(reader).respond(request)

    async def _follow(self, request: web.Request, log: Log, after: int) -> web.StreamResponse:
        """Answer with the events after a number, and such questions as are open before it."""
        questions = log.questions_before(after)
        try:
            with LogReader(log, after) as reader:
                return await self._event_stream(reader, questions).respond(request)
        except ReplayGap as gap:
            if not questions or BEGUN in request:
                raise
            # Whoever is asked must learn of it (§5), though there is nothing to follow.
            with LogReader(log, log.last) as reader:
                return await self._event_stream(reader, questions, gap).respond(request)

    def _event_stream(
        self,
        reader: LogReader,
        questions: Sequence[Awaiting] = (),
        gap: ReplayGap | None = None,
    ) -> EventStream:
        return EventStream(
            reader,
            questions,
            gap,
            keep_alive=self._keep_alive,
            send_timeout=self._send_timeout,
        )


def _promise(log: Log) -> web.Response:
    """Answer that the invocation runs, and where it can be polled (RFC 7240 §4.1)."""
    response = encoded_response(log.snapshot.describe(), 202)
    response.headers[hdrs.LOCATION] = f"/invocations/{log.record.invocation_id}"
    response.headers["Preference-Applied"] = _RESPOND_ASYNC
    return response


async def _await_end(reader: LogReader) -> None:
    """Wait until the log has ended. Raises the error it ended with."""
    while not reader.finished:
        await reader.read()
    if (error := reader.log.record.error) is not None:
        raise error


async def _collect(reader: LogReader) -> list[bytes]:
    """Return all chunks once the log has ended. Raises the error it ended with."""
    chunks: list[bytes] = []
    size = 0
    while not reader.finished:
        taken = [entry for entry in await reader.read() if not isinstance(entry, Event)]
        chunks += taken
        size += sum(map(len, taken))
        if size > MOST_COLLECTED:
            raise InvocationError(
                "payload_too_large",
                f"The stream is longer than {MOST_COLLECTED} bytes; ask for text/event-stream",
            )
    await _await_end(reader)
    return chunks


def _rest(log: Log) -> web.Response:
    """Answer a client that has seen the end: by 204, after which an `EventSource` comes to rest.

    Raises `invalid_request` where nobody can have seen it.
    """
    if not log.ended:
        raise InvocationError("invalid_request", f"{LAST_EVENT_ID}: the invocation still runs")
    return web.Response(status=204)
