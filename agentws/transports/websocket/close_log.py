"""How each socket ended: its close code, whose fault it was, and its one log line (§8)."""

import logging
import re
import zlib
from typing import Any, Final, Literal

from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType, hdrs, web
from msgspec import Struct

from agentws.telemetry.metrics import Metrics

_logger: Final = logging.getLogger("agentws.connection")

_FIELD: Final = "azure.ai.agentserver.invocations_ws."

ErrorCode = Literal[
    "internal_error",
    "slow_client",
    "heartbeat_timeout",
    "protocol_error",
    "payload_too_large",
    "accept_failed",
]


class Ending(Struct, frozen=True):
    """How a socket ended: the close code for the log (§8), and an error where there was one."""

    close_code: int
    error_code: ErrorCode | None = None


def may_be_sent(code: int) -> bool:
    """Tell whether a close frame may carry `code` (RFC 6455 §7.4).

    Those that IANA has registered may, but for the ones that only stand in logs (1005, 1006, 1015),
    and those of libraries and applications. What lies between is undefined until it is registered.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


_ADDRESS: Final = re.compile(r"[\w.:%\[\]-]{1,64}", re.ASCII)

_MAPPED: Final = "::ffff:"
"""How an IPv4 address begins on a socket that takes both families (RFC 4291 §2.5.5.2)."""


def peer_of(request: web.BaseRequest, *, trust_forwarded: bool) -> str:
    """Return the address of a request's sender, for logs; empty where there is none.

    It is the network's, or, where a proxy is trusted to tell it, the last of `X-Forwarded-For`: the
    one that the proxy saw itself, for what stands before that may have been written by anybody.
    """
    if trust_forwarded:
        addresses = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ()))
        last = addresses.rpartition(",")[2].strip()
        if _ADDRESS.fullmatch(last):
            return last
    return (request.remote or "").removeprefix(_MAPPED)


class ConnectionOptions(Struct, frozen=True):
    """What holds for all sockets alike, and where they are counted."""

    metrics: Metrics
    send_timeout: float
    """Seconds for which a peer may take nothing of what is sent to it."""
    trust_forwarded: bool = False
    """Whether `X-Forwarded-For` names the peer in the log."""


_GAVE_UP: Final = {"internal_error", "slow_client", "heartbeat_timeout"}
"""Errors for which this side ended a socket, rather than its peer."""


def tell_ending(
    request: web.BaseRequest,
    session_id: str,
    ending: Ending,
    seconds: float,
    options: ConnectionOptions,
    *,
    invocations: int = 0,
    bytes_received: int = 0,
    bytes_sent: int = 0,
) -> None:
    """Write the one line that each socket leaves behind (§8), and count it."""
    options.metrics.socket_ended(seconds, int(ending.close_code), ending.error_code)
    fields: dict[str, Any] = {
        _FIELD + "session_id": session_id,
        _FIELD + "close_code": int(ending.close_code),
        _FIELD + "duration_ms": round(seconds * 1000),
        "peer": peer_of(request, trust_forwarded=options.trust_forwarded),
        "invocations": invocations,
        "bytes_received": bytes_received,
        "bytes_sent": bytes_sent,
    }
    if ending.error_code is not None:
        fields[_FIELD + "error.code"] = ending.error_code
    level = logging.WARNING if ending.error_code in _GAVE_UP else logging.INFO
    _logger.log(level, "WebSocket closed with %d", ending.close_code, extra=fields)


def ending_of(message: WSMessage, failure: BaseException | None) -> Ending:
    """Translate what aiohttp says last; its own `close_code` is 1000 for a peer that vanished."""
    match message.type:
        case WSMsgType.CLOSE if not message.data:
            return Ending(1005)  # RFC 6455 §7.1.5: no code was present
        case WSMsgType.CLOSE if may_be_sent(message.data):
            return Ending(message.data)
        case WSMsgType.CLOSE:
            return Ending(WSCloseCode.PROTOCOL_ERROR, "protocol_error")
        case WSMsgType.ERROR if isinstance(message.data, WebSocketError):
            code = message.data.code
            too_big = code == WSCloseCode.MESSAGE_TOO_BIG
            return Ending(code, "payload_too_large" if too_big else "protocol_error")
        case WSMsgType.ERROR if isinstance(message.data, zlib.error):
            return Ending(WSCloseCode.INVALID_TEXT, "protocol_error")
        case _:
            return vanished(failure)


def vanished(failure: BaseException | None) -> Ending:
    """Tell of a socket that ended without a close: aiohttp's heartbeat raises a time-out."""
    unanswered = isinstance(failure, TimeoutError)
    return Ending(WSCloseCode.ABNORMAL_CLOSURE, "heartbeat_timeout" if unanswered else None)
