"""One log line for every HTTP answer."""

import logging
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from agentws.handshake import REQUEST_ID


class AccessLogger(AbstractAccessLogger):
    """Writes the line. The query is left out, for it may hold a key."""

    LOGGER: Final = logging.getLogger("agentws.access")

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log a request that took `time` seconds; sockets have a line of their own."""
        if response.status == 101:
            return
        self.logger.info(
            "%s %s %d",
            request.method,
            request.path,
            response.status,
            extra={
                "method": request.method,
                "path": request.path,
                "status": response.status,
                "duration_ms": round(time * 1000, 3),
                "request_id": request.get(REQUEST_ID),
            },
        )
