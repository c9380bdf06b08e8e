"""One log line for every HTTP answer."""

import logging
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from agentws.telemetry.event_lines import log_event
from agentws.transports.http.answers import ERROR_CODE
from agentws.transports.http.begun_answers import CUT
from agentws.transports.http.probes import PROBES
from agentws.transports.http.scraping import METRICS
from agentws.transports.request_fields import INVOCATION_ID, REQUEST_ID, SESSION_ID

CONSOLE_STATE: Final = "/console/state"
"""What the console's page asks for every two seconds."""

_ROUTINE: Final = PROBES | {METRICS, CONSOLE_STATE}
"""What is asked for every few seconds, all day long."""

_OPTIONAL: Final = (("invocation_id", INVOCATION_ID), ("session_id", SESSION_ID))


class AccessLogger(AbstractAccessLogger):
    """Writes the line. The query is left out, for it may hold a key."""

    LOGGER: Final = logging.getLogger("agentws.access")

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log a request that took `time` seconds; sockets have a line of their own.

        What watches the daemon and is answered well, is logged for who looks closely: at DEBUG.
        """
        status = response.status
        if status == 101:
            return
        path = request.rel_url.raw_path  # as it came: decoded, it may hold what begins a line
        level = logging.DEBUG if status == 200 and path in _ROUTINE else logging.INFO
        if self.logger.isEnabledFor(level):
            fields: dict[str, object] = {
                "method": request.method,
                "path": path,
                "status": status,
                "duration_ms": round(time * 1000, 3),
                "request_id": request.get(REQUEST_ID),
            }
            is_cut = CUT in request
            if is_cut:
                fields["cut"] = True
            _add_particulars(fields, request, response)
            what = (request.method, path, status, ", cut" if is_cut else "")
            log_event(self.logger, level, "%s %s %d%s", *what, fields=fields)


def _add_particulars(
    fields: dict[str, object], request: web.BaseRequest, response: web.StreamResponse
) -> None:
    """Add the fields that some lines have."""
    for name, key in _OPTIONAL:
        if (value := request.get(key)) is not None:
            fields[name] = value
    if response.status >= 400 and ERROR_CODE in response:
        fields["error_code"] = response[ERROR_CODE]


class ServerLogger(logging.LoggerAdapter[logging.Logger]):
    """What else aiohttp has to say of requests.

    It would log one that is malformed as an error of ours, with a traceback and the bytes that
    were sent, which may hold a key; the access log has told of its 400.
    """

    def exception(self, msg: object, *args: object, **options: Any) -> None:
        """Log an exception unless a peer's bytes alone are to blame."""
        if not isinstance(options.get("exc_info"), HttpProcessingError):
            super().exception(msg, *args, **options)
