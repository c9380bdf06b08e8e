"""HTTP: probes, documents, and what every answer has in common."""

import platform
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from agentws import __version__, asyncapi
from agentws.handshake import REQUEST_ID, UpgradeRequired, name_request
from agentws.protocol import InvocationError, encode, error_body, error_source

ERROR_SOURCE_HEADER: Final = "x-platform-error-source"

_SERVER: Final = "agentws/{} (python/{}.{})".format(
    __version__, *platform.python_version_tuple()[:2]
)
_RETRY_AFTER: Final = "1"
"""Seconds after which a refused client may try again."""

_CODES: Final = {
    400: "invalid_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
}
"""Under which code an error of aiohttp's own is answered."""


class HttpApi:
    """The routes that are not sockets."""

    def __init__(self, openapi: Mapping[str, Any] | None, health: Callable[[], str]) -> None:
        """`health` tells `healthy`, or why the daemon should get no new work."""
        self._openapi = openapi
        self._health = health

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, for an application's router."""
        return [
            web.get("/readiness", self.readiness),
            web.get("/liveness", self.liveness),
            web.get("/invocations/docs/openapi.json", self.openapi),
            web.get("/invocations_ws/docs/openapi.json", self.openapi),
            web.get("/invocations_ws/docs/asyncapi.json", self.asyncapi),
        ]

    async def readiness(self, _request: web.Request) -> web.Response:
        """Tell whether new work is welcome: 200, else 503."""
        status = self._health()
        return json_response({"status": status}, status=200 if status == "healthy" else 503)

    async def liveness(self, _request: web.Request) -> web.Response:
        """Tell that the event loop turns."""
        return json_response({"status": "alive"})

    async def openapi(self, _request: web.Request) -> web.Response:
        """Answer the document that the agent registered. Raises `not_found` without one."""
        if self._openapi is None:
            raise InvocationError("not_found", "The agent registered no OpenAPI document")
        return json_response(self._openapi)

    async def asyncapi(self, _request: web.Request) -> web.Response:
        """Answer the description of the framed socket."""
        return json_response(asyncapi.describe())


def json_response(value: object, status: int = 200) -> web.Response:
    """Return `value` as a JSON answer."""
    return web.Response(body=encode(value), status=status, content_type="application/json")


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, and turn every error into the envelope of §6."""
    name_request(request)
    try:
        return await handler(request)
    except InvocationError as error:
        return error_response(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _translated(error)


def error_response(error: InvocationError) -> web.Response:
    """Return the error envelope (§6), with the headers that go with its code (§7)."""
    response = json_response({"error": error_body(error)}, status=error.status)
    response.headers[ERROR_SOURCE_HEADER] = error_source(error)
    if error.status in (429, 503):
        response.headers[hdrs.RETRY_AFTER] = _RETRY_AFTER
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
    response.headers["x-request-id"] = request[REQUEST_ID]
    response.headers["x-platform-server"] = _SERVER
