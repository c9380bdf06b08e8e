"""The one line in the log that each invocation leaves behind."""

import logging
from typing import Final

from agentws.agent.context import Transport
from agentws.protocol.errors import InvocationError
from agentws.stores.log import Log
from agentws.telemetry.event_lines import log_event

_logger: Final = logging.getLogger("agentws.invocations")


def log_end(log: Log, transport: Transport, stop: InvocationError | None) -> None:
    """Write it; `stop` is the reason for which the handler was stopped, where it was."""
    record = log.record
    fields: dict[str, object] = {
        "invocation_id": record.invocation_id,
        "session_id": record.session_id,
        "transport": transport,
        "status": record.status,
        "duration_ms": round(((record.finished_at or 0.0) - record.created_at) * 1000),
        "chunks": log.last,
    }
    if record.failure is not None:
        fields["error_code"] = record.failure.code
    if stop is not None:
        fields["reason"] = stop.message
    log_event(_logger, logging.INFO, "Invocation %s", record.status, fields=fields)
