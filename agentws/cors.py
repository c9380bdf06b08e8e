"""Leave for pages of other origins to call over HTTP.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Iterable, Sequence
from typing import Final

import aiohttp_cors
from aiohttp import web

_EXPOSED: Final = (
    "x-agent-invocation-id",
    "x-agent-session-id",
    "x-platform-error-source",
    "x-platform-server",
    "x-request-id",
    "Location",
    "Preference-Applied",
    "Retry-After",
)


def allow_origins(
    app: web.Application, routes: Iterable[web.AbstractRoute], origins: Sequence[str]
) -> None:
    """Let pages of these origins call these routes; with no origins, nothing is changed."""
    if not origins:
        return
    options = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]
        allow_headers="*", allow_methods="*", expose_headers=_EXPOSED, max_age=600
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(origins, options))
    for route in routes:
        cors.add(route)
