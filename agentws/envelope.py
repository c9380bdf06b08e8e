"""What all HTTP answers have in common: their headers, and the envelope of errors."""

import logging
import platform
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler, Middleware

from agentws import __version__
from agentws.answers import BEGUN, cut, is_complete
from agentws.content_coding import CODINGS
from agentws.handshake import (
    INVOCATION_HEADER,
    INVOCATION_ID,
    REQUEST_ID,
    SESSION_ID,
    UpgradeRequired,
    name_request,
)
from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, error_body, error_source
from agentws.routing import leads_nowhere

_logger: Final = logging.getLogger("agentws.http")

ERROR_SOURCE_HEADER: Final = "x-platform-error-source"

_SERVER: Final = "agentws/{} (python/{}.{})".format(
    __version__, *platform.python_version_tuple()[:2]
)
_HEADERS: Final = {
    REQUEST_ID: "x-request-id",
    SESSION_ID: "x-agent-session-id",
    INVOCATION_ID: INVOCATION_HEADER,
}
_RETRY_AFTER: Final = "1"
"""Seconds after which a refused client may try again."""

_CHALLENGE: Final = 'Bearer realm="agentws"'
"""How a refused caller may come in (RFC 6750 §3); an API key may be sent in the same way."""

_CLIENT_LEFT: Final = 499
"""The status in the access log where nobody is there any more to read an answer; nginx's."""

ERROR_CODE: Final = web.ResponseKey("error_code", str)
"""The code that an answer tells of, where it is one of an error (§7)."""

_CONTINUE: Final = "100-continue"

_CODES: Final = {
    400: "invalid_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
}
"""Under which code an error of aiohttp's own is answered."""


class UnreadableBody(InvocationError):
    """A body that does not come whole, or not as it says; the connection cannot be used on."""

    def __init__(self, message: str) -> None:
        super().__init__("invalid_request", message)


class AgentAnswer(Exception):
    """An HTTP error that the agent raised by itself, to be answered as it is."""

    def __init__(self, response: web.HTTPException) -> None:
        super().__init__(response)
        self.response = response


def json_response(value: object, status: int = 200) -> web.Response:
    """Return `value` as a JSON answer."""
    return encoded_response(encode(value), status)


def encoded_response(body: bytes, status: int = 200) -> web.Response:
    """Return JSON that is encoded already as an answer."""
    return web.Response(body=body, status=status, content_type="application/json")


def answering_errors(admit: Callable[[web.Request], Awaitable[None]]) -> Middleware:
    """Return what names a request, admits it, and turns every error into the envelope of §6.

    One middleware for all, as each takes memory for as long as a socket is open.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        name_request(request)
        try:
            await admit(request)
            check_expectation(request)
            return await handler(request)
        except AgentAnswer as own:
            return _fresh(own.response)
        except Exception as error:
            if BEGUN in request:
                return _end_early(error, request)
            response = _answer_to(error, request)
            if _waits_to_be_asked(request):
                response.force_close()  # whether the body will come after all is up to the client
            return response
        finally:
            request.pop(BEGUN, None)  # a socket's answer knows its request: they would be a cycle

    return answer


def _fresh(raised: web.HTTPException) -> web.Response:
    """Return what was raised as an answer of its own: an agent may raise the same one again."""
    return web.Response(
        body=raised.body, status=raised.status, reason=raised.reason, headers=raised.headers
    )


def _answer_to(error: Exception, request: web.Request) -> web.Response:
    if isinstance(error, InvocationError):
        return error_response(error)
    if isinstance(error, web.HTTPException):
        return _translated(error)
    if _has_left(request):
        return web.Response(status=_CLIENT_LEFT)
    _logger.error("A request failed", exc_info=error)
    return error_response(InvocationError("internal_error", "Internal server error"))


def _end_early(error: Exception, request: web.Request) -> web.StreamResponse:
    """End an answer that has begun and cannot be finished (§1); return it for the access log."""
    if not _has_left(request):
        _logger.error("A request failed after its answer had begun", exc_info=error)
    if not is_complete(request):
        cut(request)
    return request[BEGUN]


def _has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def check_expectation(request: web.Request) -> None:
    """Raise `InvocationError` (417) where a request expects what is not done here."""
    expected = ",".join(request.headers.getall(hdrs.EXPECT, ())).lower().split(",")
    if {wish.strip() for wish in expected} - {"", _CONTINUE} and not leads_nowhere(request):
        raise InvocationError("invalid_request", "Unknown Expect", 417)


async def ask_for_body(request: web.Request) -> None:
    """Ask for the body of a client that waits to be asked, before it is read.

    In HTTP/1.0 nobody waits (RFC 9110 §10.1.1). Raises `ConnectionError`.
    """
    if _waits_to_be_asked(request) and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


def _waits_to_be_asked(request: web.Request) -> bool:
    return hdrs.EXPECT in request.headers and request.can_read_body


def error_response(error: InvocationError) -> web.Response:
    """Return the error envelope (§6), with the headers that go with its code (§7)."""
    response = json_response({"error": error_body(error)}, status=error.status)
    response[ERROR_CODE] = error.code
    response.headers[ERROR_SOURCE_HEADER] = error_source(error)
    if error.status in (429, 503):
        response.headers[hdrs.RETRY_AFTER] = _RETRY_AFTER
    if error.code == "unsupported_media_type":
        response.headers[hdrs.ACCEPT_ENCODING] = CODINGS  # RFC 9110 §15.5.16
    if error.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = _CHALLENGE
    if isinstance(error, UnreadableBody):
        response.force_close()
    if isinstance(error, UpgradeRequired):
        response.headers[hdrs.UPGRADE] = "websocket"
        response.headers[hdrs.SEC_WEBSOCKET_VERSION] = "13"
    return response


def _translated(error: web.HTTPException) -> web.Response:
    """Return an error of aiohttp's own as ours, with the `Allow` of a 405."""
    code = _CODES.get(error.status, "invalid_request" if error.status < 500 else "internal_error")
    message = error.text if error.status == 400 and error.text else error.reason
    response = error_response(InvocationError(code, message, error.status))
    if hdrs.ALLOW in error.headers:
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every answer, 101 included, what §1 wants there."""
    response.headers["x-platform-server"] = _SERVER
    for key, header in _HEADERS.items():
        if key in request:
            response.headers[header] = request[key]
