"""The one middleware: it names a request, admits it, and turns every error into an answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from agentws.protocol.errors import InvocationError, internal_error
from agentws.protocol.identifiers import IdSource
from agentws.transports.http.answers import AgentAnswer, error_response, translated
from agentws.transports.http.begun_answers import BEGUN, cut, is_complete
from agentws.transports.http.bodies import waits_to_be_asked
from agentws.transports.request_fields import name_request
from agentws.transports.routing import leads_nowhere

_logger: Final = logging.getLogger("agentws.http")

_CLIENT_LEFT: Final = 499
"""The status in the access log where nobody is there any more to read an answer; nginx's."""

_CONTINUE: Final = "100-continue"


def answering_errors(admit: Callable[[web.Request], Awaitable[None]]) -> Middleware:
    """Return what names a request, admits it, and turns every error into the envelope of §6.

    One middleware for all, as each takes memory for as long as a socket is open.
    """
    new_id = IdSource()

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        name_request(request, new_id)
        try:
            await admit(request)
            check_expectation(request)
            return await handler(request)
        except AgentAnswer as own:
            return _fresh(own.response)
        except asyncio.CancelledError:
            if not _has_left(request):
                raise
            return _unheard(request)
        except Exception as error:
            if BEGUN in request:
                return _end_early(error, request)
            response = _answer_to(error, request)
            if waits_to_be_asked(request):
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
        return translated(error)
    if _has_left(request):
        return web.Response(status=_CLIENT_LEFT)
    _logger.error("A request failed", exc_info=error)
    return error_response(internal_error())


def _unheard(request: web.Request) -> web.StreamResponse:
    """Return, for the access log alone, the answer to a client that left while it was waited for.

    aiohttp cancels the handler then, and would log nothing.
    """
    if BEGUN not in request:
        return web.Response(status=_CLIENT_LEFT)
    if not is_complete(request):
        cut(request)
    return request[BEGUN]


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
    if hdrs.EXPECT not in request.headers:
        return
    expected = ",".join(request.headers.getall(hdrs.EXPECT)).lower().split(",")
    if {wish.strip() for wish in expected} - {"", _CONTINUE} and not leads_nowhere(request):
        raise InvocationError("invalid_request", "Unknown Expect", 417)
