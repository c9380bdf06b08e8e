"""One log line for every HTTP answer."""

import logging
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from agentws.answers import CUT
from agentws.handshake import REQUEST_ID


class AccessLogger(AbstractAccessLogger):
    """Writes the line. The query is left out, for it may hold a key."""

    LOGGER: Final = logging.getLogger("agentws.access")

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log a request that took `time` seconds; sockets have a line of their own."""
        if response.status == 101:
            return
        was_cut = CUT in request
        path = request.rel_url.raw_path  # as it came: decoded, it may hold what begins a line
        self.logger.info(
            "%s %s %d%s",
            request.method,
            path,
            response.status,
            ", cut" if was_cut else "",
            extra={
                "method": request.method,
                "path": path,
                "status": response.status,
                "duration_ms": round(time * 1000, 3),
                "request_id": request.get(REQUEST_ID),
                **({"cut": True} if was_cut else {}),
            },
        )


class ServerLogger(logging.LoggerAdapter[logging.Logger]):
    """What else aiohttp has to say of requests.

    It would log one that is malformed as an error of ours, with a traceback and the bytes that
    were sent, which may hold a key; the access log has told of its 400.
    """

    def exception(self, msg: object, *args: object, **options: Any) -> None:
        """Log an exception unless a peer's bytes alone are to blame."""
        if not isinstance(options.get("exc_info"), HttpProcessingError):
            super().exception(msg, *args, **options)
