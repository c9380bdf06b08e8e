"""HTTP over the invocation table: invoke, poll, attach, cancel (§6)."""

from typing import Final

from aiohttp import hdrs, web

from agentws import __version__
from agentws.agent.handlers import Agent
from agentws.config.settings import Settings
from agentws.invocations.invocation import Invocation
from agentws.invocations.table import InvocationTable
from agentws.protocol.asyncapi import describe
from agentws.protocol.encoding import decode_payload
from agentws.protocol.errors import InvocationError
from agentws.protocol.identifiers import IdSource
from agentws.stores.log import Log
from agentws.stores.log_reader import LogReader
from agentws.transports.http.answers import encoded_response, json_response
from agentws.transports.http.bodies import read_body
from agentws.transports.http.sse import END_ID, EventStream
from agentws.transports.http.wishes import (
    EVENTS,
    LAST_EVENT_ID,
    accepted,
    preferences,
    starting_after,
    wants_an_array,
)
from agentws.transports.request_fields import (
    INVOCATION_ID,
    REQUEST_ID,
    SESSION_ID,
    header_invocation_id,
    path_invocation_id,
    read_caller,
)
from agentws.transports.session_ids import http_session

MOST_COLLECTED: Final = 64 * 1024**2
"""Bytes of a stream that are held together for a client that wants one JSON array."""

_RESPOND_ASYNC: Final = "respond-async"  # RFC 7240 §4.1


class HttpApi:
    """Answers the routes of invocations, for an agent that has handlers."""

    def __init__(
        self,
        table: InvocationTable,
        settings: Settings,
        agent: Agent,
    ) -> None:
        """Answer by `table`, and with the documents that the agent registered."""
        self._table = table
        self._openapi = agent.openapi
        self._asyncapi = agent.asyncapi
        self._new_id = IdSource()
        self._session_id = settings.agent.session_id
        self._max_body_size = settings.http.max_body_size
        self._keep_alive = settings.http.sse_keepalive_interval
        self._send_timeout = settings.websocket.send_timeout

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """Run the agent on the body, and answer as the client wants it."""
        session_id = request[SESSION_ID] = http_session(request, self._session_id)
        invocation_id = header_invocation_id(request)
        if invocation_id is not None:
            request[INVOCATION_ID] = invocation_id
        in_background = _RESPOND_ASYNC in preferences(request)
        payload = decode_payload(await read_body(request, self._max_body_size))
        invocation_id = request[INVOCATION_ID] = invocation_id or self._new_id()
        invocation = self._table.invoke(
            payload,
            read_caller(request, "http", request[REQUEST_ID]),
            session_id=session_id,
            invocation_id=invocation_id,
            background=in_background,
        )
        if in_background:
            return await self._promise(invocation)
        with LogReader(invocation.log) as reader:
            await invocation.accepted()
            return await self._answer(request, reader)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer the record, or follow the log as an event stream."""
        invocation_id = path_invocation_id(request)
        session_id = http_session(request, self._session_id)
        caller = read_caller(request, "http", request[REQUEST_ID])
        if request.method == hdrs.METH_HEAD or not accepted(request).get(EVENTS):
            return encoded_response(await self._table.get(invocation_id, session_id, caller))
        has_seen_the_end = request.headers.get(LAST_EVENT_ID) == END_ID
        after = 0 if has_seen_the_end else starting_after(request)
        log = await self._table.attach(invocation_id, caller)
        if has_seen_the_end:
            return _rest(log)
        with LogReader(log, after) as reader:
            return await self._event_stream(reader).respond(request)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Cancel an invocation."""
        invocation_id = path_invocation_id(request)
        session_id = http_session(request, self._session_id)
        caller = read_caller(request, "http", request[REQUEST_ID])
        return encoded_response(await self._table.cancel(invocation_id, session_id, caller))

    async def openapi(self, _request: web.Request) -> web.Response:
        """Answer the document that the agent registered. Raises `not_found` without one."""
        if self._openapi is None:
            raise InvocationError("not_found", "The agent registered no OpenAPI document")
        return json_response(self._openapi)

    async def asyncapi(self, _request: web.Request) -> web.Response:
        """Answer the document that the agent registered, else the description of the socket."""
        return json_response(describe(__version__) if self._asyncapi is None else self._asyncapi)

    async def _promise(self, invocation: Invocation) -> web.Response:
        """Answer that the invocation runs, and where it can be polled (RFC 7240 §4.1)."""
        await invocation.accepted()
        response = encoded_response(invocation.log.snapshot.describe(), 202)
        response.headers[hdrs.LOCATION] = f"/invocations/{invocation.log.record.invocation_id}"
        response.headers["Preference-Applied"] = _RESPOND_ASYNC
        return response

    async def _answer(self, request: web.Request, reader: LogReader) -> web.StreamResponse:
        if not reader.log.record.streams:
            await _collect(reader)
            return encoded_response(reader.log.record.result or b"null")
        if wants_an_array(accepted(request)):
            return encoded_response(b"[%b]" % b",".join(await _collect(reader)))
        return await self._event_stream(reader).respond(request)

    def _event_stream(self, reader: LogReader) -> EventStream:
        return EventStream(reader, keep_alive=self._keep_alive, send_timeout=self._send_timeout)


async def _collect(reader: LogReader) -> list[bytes]:
    """Return all chunks once the log has ended. Raises the error it ended with."""
    chunks: list[bytes] = []
    size = 0
    while not reader.finished:
        taken = await reader.read()
        chunks += taken
        size += sum(map(len, taken))
        if size > MOST_COLLECTED:
            raise InvocationError(
                "payload_too_large",
                f"The stream is longer than {MOST_COLLECTED} bytes; ask for text/event-stream",
            )
    if (error := reader.log.record.error) is not None:
        raise error
    return chunks


def _rest(log: Log) -> web.Response:
    """Answer a client that has seen the end: by 204, after which an `EventSource` comes to rest.

    Raises `invalid_request` where nobody can have seen it.
    """
    if not log.ended:
        raise InvocationError("invalid_request", f"{LAST_EVENT_ID}: the invocation still runs")
    return web.Response(status=204)
