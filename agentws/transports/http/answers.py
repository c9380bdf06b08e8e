"""What all HTTP answers have in common: their headers, and the envelope of errors (§6, §7)."""

import platform
from typing import Final

from aiohttp import hdrs, web

from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, error_body, error_source
from agentws.transports.handshake import UpgradeRequired
from agentws.transports.http.bodies import UnreadableBody
from agentws.transports.http.content_coding import CODINGS
from agentws.transports.request_fields import (
    INVOCATION_HEADER,
    INVOCATION_ID,
    REQUEST_ID,
    SESSION_ID,
)
from agentws.version import __version__

ERROR_SOURCE_HEADER: Final = "x-platform-error-source"

JSON: Final = "application/json"

SERVER_HEADER: Final = "x-platform-server"
SERVER: Final = "agentws/{} (python/{}.{})".format(
    __version__, *platform.python_version_tuple()[:2]
)

ID_HEADERS: Final = {
    REQUEST_ID: "x-request-id",
    SESSION_ID: "x-agent-session-id",
    INVOCATION_ID: INVOCATION_HEADER,
}
"""In which headers answers tell the ids of their requests (§1)."""

_RETRY_AFTER: Final = "1"
"""Seconds after which a refused client may try again."""

_CHALLENGE: Final = 'Bearer realm="agentws"'
"""How a refused caller may come in (RFC 6750 §3); an API key may be sent in the same way."""

ERROR_CODE: Final = web.ResponseKey("error_code", str)
"""The code that an answer tells of, where it is one of an error (§7)."""

_CODES: Final = {
    400: "invalid_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
}
"""Under which code an error of aiohttp's own is answered."""


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
    return web.Response(body=body, status=status, content_type=JSON)


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


def translated(error: web.HTTPException) -> web.Response:
    """Return an error of aiohttp's own as ours, with the `Allow` of a 405."""
    code = _CODES.get(error.status, "invalid_request" if error.status < 500 else "internal_error")
    message = error.text if error.status == 400 and error.text else error.reason
    response = error_response(InvocationError(code, message, error.status))
    if hdrs.ALLOW in error.headers:
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every answer, 101 included, what §1 wants there."""
    response.headers[SERVER_HEADER] = SERVER
    for key, header in ID_HEADERS.items():
        if key in request:
            response.headers[header] = request[key]
