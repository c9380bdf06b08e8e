"""The aiohttp application that the parts make, and what runs it."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from agentws.config.requirements import needed
from agentws.daemon.parts import FRAMED_PATH, RAW_PATH, Parts
from agentws.protocol.errors import InvocationError
from agentws.transports.http import begun_answers
from agentws.transports.http.access_log import AccessLogger, ServerLogger
from agentws.transports.http.answers import add_headers
from agentws.transports.http.error_middleware import answering_errors
from agentws.transports.http.probes import probe_routes
from agentws.transports.http.routes import invocation_routes
from agentws.transports.http.scraping import metrics_route
from agentws.transports.routing import serve_routes

_logger: Final = logging.getLogger("agentws.server")

LAST_REQUESTS: Final = 0.25
"""Seconds that aiohttp waits at the end for answers still under way; it may do so twice."""

_LINGER: Final = 1.0
"""Seconds for which the rest of a refused body is read, so that its sender reads the answer."""

_FIELD_SIZE: Final = 16 * 1024
"""Bytes of the request line, and of a header field: a token may name hundreds of groups."""


def make_application(parts: Parts) -> tuple[web.Application, list[web.AbstractRoute]]:
    """Return the application, and the routes that it serves. Raises `PackageError`."""
    app = web.Application(middlewares=[answering_errors(_counting_admission(parts))])
    app.on_response_prepare.extend((add_headers, parts.health.part, begun_answers.begin))
    if parts.class_http is not None:
        app.on_response_prepare.append(parts.class_http.keep_alive)
    console = parts.console
    if console is not None:
        app.on_startup.append(console.attend)
        app.on_cleanup.append(console.leave)
    routes = serve_routes(app, _routes(parts), console.page_routes if console else ())
    if parts.origins.some_are_allowed:
        with needed():
            from agentws.auth.cors import allow_origins
        allow_origins(app, parts.origins)
    return app, routes


def _counting_admission(parts: Parts) -> Callable[[web.Request], Awaitable[None]]:
    """Return what lets requests in, and counts those that it refuses."""

    async def admit(request: web.Request) -> None:
        try:
            await parts.access.admit(request)
        except InvocationError as refusal:
            parts.telemetry.metrics.error(refusal.code)
            raise

    return admit


def _routes(parts: Parts) -> list[web.RouteDef]:
    routes = [*probe_routes(parts.health), *invocation_routes(parts.api)]
    if parts.telemetry.scrapes is not None:
        routes.append(metrics_route(parts.telemetry.scrapes))
    routes.append(web.get(FRAMED_PATH, parts.framed.serve))
    # An agent that has no handler for the raw socket speaks frames on its path, too (§1).
    if raw := parts.raw or (parts.framed if parts.agent.invoke is not None else None):
        routes.append(web.get(RAW_PATH, raw.serve))
    if parts.console is not None:
        routes += parts.console.routes
    return routes


def make_runner(parts: Parts, app: web.Application) -> web.AppRunner:
    """Return what runs the application."""
    settings = parts.settings
    return web.AppRunner(
        app,
        access_log_class=AccessLogger,
        access_log=AccessLogger.LOGGER if settings.server.access_log else None,
        logger=ServerLogger(_logger),
        # Where aiohttp refuses an encoding, nothing of ours answers. In class style, the agent
        # reads the body by aiohttp's request, which has no other way to inflate it.
        auto_decompress=parts.class_http is not None,
        max_line_size=_FIELD_SIZE,
        max_field_size=_FIELD_SIZE,
        keepalive_timeout=settings.http.keepalive_timeout,
        lingering_time=_LINGER,
        handler_cancellation=True,  # a client that leaves is a lost follower, at once (§5)
        shutdown_timeout=LAST_REQUESTS,
    )
