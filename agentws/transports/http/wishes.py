"""What the headers of a request wish for its answer: its form, its place in a stream, its time."""

import functools
import re
from collections.abc import Collection, Mapping
from typing import Final

from aiohttp import hdrs, web

from agentws.protocol.errors import InvocationError

LAST_EVENT_ID: Final = "Last-Event-ID"
EVENTS: Final = "text/event-stream"

_SEQUENCE_NUMBER: Final = re.compile(r"[0-9]{1,18}")

_REFUSED: Final = re.compile(r"(^|;)\s*q\s*=\s*0(\.0{0,3})?\s*(;|$)", re.I)
"""A weight of nothing (RFC 9110 §12.4.2)."""


def starting_after(request: web.Request) -> int:
    """Return the sequence number to start after; the header wins over the query."""
    for name, value in (
        (LAST_EVENT_ID, request.headers.get(LAST_EVENT_ID)),
        ("starting_after", request.query.get("starting_after")),
    ):
        if value:
            if _SEQUENCE_NUMBER.fullmatch(value) is None:
                raise InvocationError("invalid_request", f"{name} must be a sequence number")
            return int(value)
    return 0


def accepted(request: web.Request) -> Mapping[str, bool]:
    """Return what `Accept` says of the media types that it names: yes, or no where `q` is 0."""
    return _weighed(",".join(request.headers.getall(hdrs.ACCEPT, ())))


@functools.lru_cache(maxsize=64)  # there are few clients that say something of their own
def _weighed(accept: str) -> Mapping[str, bool]:
    return {
        media_type.strip().lower(): not _REFUSED.search(parameters)
        for item in accept.split(",")
        for media_type, _, parameters in [item.partition(";")]
    }


def wants_an_array(accepted: Mapping[str, bool]) -> bool:
    """Tell whether a stream should be one JSON array (§6): JSON is named, or events are refused."""
    return not accepted.get(EVENTS, not accepted.get("application/json"))


def wants_events(accepted: Mapping[str, bool]) -> bool:
    """Tell whether a single result should come as an event (§6): events are named, JSON is not."""
    return accepted.get(EVENTS, False) and not accepted.get("application/json")


def preferences(request: web.Request) -> Collection[str]:
    """Return what `Prefer` names, without values and parameters (RFC 7240 §2)."""
    if "Prefer" not in request.headers:
        return ()
    values = ",".join(request.headers.getall("Prefer")).split(",")
    return {item.split(";")[0].strip().lower() for item in values}
