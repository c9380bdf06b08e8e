"""HTTP over the invocation table: invoke, poll, attach, cancel (§6)."""

import asyncio
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from aiohttp import hdrs, web

from agentws import __version__
from agentws.caller import read_caller
from agentws.config.settings import Settings
from agentws.content_coding import Corrupt, Plain, decoder
from agentws.envelope import UnreadableBody, ask_for_body, encoded_response, json_response
from agentws.handshake import (
    INVOCATION_ID,
    REQUEST_ID,
    SESSION_ID,
    header_invocation_id,
    http_session,
    path_invocation_id,
)
from agentws.invocations import Invocation, InvocationTable
from agentws.protocol.asyncapi import describe
from agentws.protocol.encoding import decode_payload
from agentws.protocol.errors import InvocationError
from agentws.protocol.identifiers import IdSource
from agentws.sse import END_ID, EventStream
from agentws.stores.log import Log
from agentws.stores.log_reader import LogReader

MOST_COLLECTED: Final = 64 * 1024**2
"""Bytes of a stream that are held together for a client that wants one JSON array."""

BODY_TIME: Final = 300.0
"""Seconds within which a body has to come: who sends a byte now and then is not waited for."""

_LAST_EVENT_ID: Final = "Last-Event-ID"
_SEQUENCE_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_EVENTS: Final = "text/event-stream"
_REFUSED: Final = re.compile(r"(^|;)\s*q\s*=\s*0(\.0{0,3})?\s*(;|$)", re.I)
"""A weight of nothing (RFC 9110 §12.4.2)."""

_RESPOND_ASYNC: Final = "respond-async"  # RFC 7240 §4.1


class HttpApi:
    """The routes of invocations, for an agent that answers by its handlers."""

    def __init__(
        self,
        table: InvocationTable,
        settings: Settings,
        *,
        openapi: Mapping[str, Any] | None,
        asyncapi: Mapping[str, Any] | None,
    ) -> None:
        """Make the routes; `openapi` and `asyncapi` are the documents that the agent registered."""
        self._table = table
        self._openapi = openapi
        self._asyncapi = asyncapi
        self._new_id = IdSource()
        self._session_id = settings.agent.session_id
        self._max_body_size = settings.http.max_body_size
        self._keep_alive = settings.http.sse_keepalive_interval
        self._send_timeout = settings.websocket.send_timeout

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, for an application's router."""
        return [
            web.post("/invocations", self.invoke),
            web.get("/invocations/docs/openapi.json", self.openapi),
            web.get("/invocations_ws/docs/openapi.json", self.openapi),
            web.get("/invocations/docs/asyncapi.json", self.asyncapi),
            web.get("/invocations_ws/docs/asyncapi.json", self.asyncapi),
            web.get("/invocations/{id:[^/]+}", self.get),
            web.post("/invocations/{id:[^/]+}/cancel", self.cancel),
        ]

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """Run the agent on the body, and answer as the client wants it."""
        session_id = request[SESSION_ID] = http_session(request, self._session_id)
        invocation_id = header_invocation_id(request)
        if invocation_id is not None:
            request[INVOCATION_ID] = invocation_id
        in_background = _RESPOND_ASYNC in _preferences(request)
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
        if request.method == hdrs.METH_HEAD or not _accepted(request).get(_EVENTS):
            return encoded_response(await self._table.get(invocation_id, session_id, caller))
        has_seen_the_end = request.headers.get(_LAST_EVENT_ID) == END_ID
        after = 0 if has_seen_the_end else _starting_after(request)
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
        if _wants_an_array(_accepted(request)):
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


async def read_body(request: web.Request, limit: int) -> bytes:
    """Read the body, at most `limit` bytes of it, before and after it is inflated.

    Raises `InvocationError`: `unsupported_media_type` for an encoding that is not known and
    `payload_too_large`, both before the first byte where that can be told; `invalid_request` when
    it is not encoded as it says or takes longer than `BODY_TIME`.
    """
    coding = decoder(",".join(request.headers.getall(hdrs.CONTENT_ENCODING, ())))
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    await ask_for_body(request)
    try:
        async with asyncio.timeout(BODY_TIME):
            return await _decode_body(request, coding, limit)
    except TimeoutError as error:
        raise UnreadableBody(f"The body did not come within {BODY_TIME:g} s") from error
    except web.RequestPayloadError as error:
        request.content.feed_eof()  # aiohttp would read on, fail again, and log that as ours
        raise UnreadableBody("The body is not encoded as it says") from error
    except Corrupt as error:
        raise UnreadableBody(str(error)) from error


async def _decode_body(request: web.Request, coding: Plain, limit: int) -> bytes:
    received, body = 0, bytearray()
    async for part in request.content.iter_any():
        received += len(part)
        body += coding.feed(part, limit + 1 - len(body))
        if max(received, len(body)) > limit:
            raise _too_large(limit)
    coding.end()
    return bytes(body)


def _too_large(limit: int) -> InvocationError:
    return InvocationError("payload_too_large", f"The body is larger than {limit} bytes")


def _rest(log: Log) -> web.Response:
    """Answer a client that has seen the end: by 204, after which an `EventSource` comes to rest.

    Raises `invalid_request` where nobody can have seen it.
    """
    if not log.ended:
        raise InvocationError("invalid_request", f"{_LAST_EVENT_ID}: the invocation still runs")
    return web.Response(status=204)


def _starting_after(request: web.Request) -> int:
    """Return the sequence number to start after; the header wins over the query."""
    for name, value in (
        (_LAST_EVENT_ID, request.headers.get(_LAST_EVENT_ID)),
        ("starting_after", request.query.get("starting_after")),
    ):
        if value:
            if _SEQUENCE_NUMBER.fullmatch(value) is None:
                raise InvocationError("invalid_request", f"{name} must be a sequence number")
            return int(value)
    return 0


def _accepted(request: web.Request) -> Mapping[str, bool]:
    """Return what `Accept` says of the media types that it names: yes, or no where `q` is 0."""
    return {
        media_type.strip().lower(): not _REFUSED.search(parameters)
        for value in request.headers.getall(hdrs.ACCEPT, ())
        for item in value.split(",")
        for media_type, _, parameters in [item.partition(";")]
    }


def _wants_an_array(accepted: Mapping[str, bool]) -> bool:
    """Tell whether a stream should be one JSON array (§6): JSON is named, or events are refused."""
    return not accepted.get(_EVENTS, not accepted.get("application/json"))


def _preferences(request: web.Request) -> Collection[str]:
    """Return what `Prefer` names, without values and parameters (RFC 7240 §2)."""
    values = ",".join(request.headers.getall("Prefer", ())).split(",")
    return {item.split(";")[0].strip().lower() for item in values}
