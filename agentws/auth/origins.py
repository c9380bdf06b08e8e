"""From where browsers may call: the `Origin` that they send with a page's requests.

https://datatracker.ietf.org/doc/html/rfc6455#section-10.2
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {80, 443}


class Origins:
    """The origins that are let in, besides that of the server itself."""

    def __init__(self, allowed: Iterable[str]) -> None:
        """Allow origins such as `https://app.example`, `https://*.app.example`, or `*` for all."""
        self._allowed = [re.compile(_pattern(origin)) for origin in allowed]

    @property
    def some_are_allowed(self) -> bool:
        """Whether pages of any other origin may call."""
        return bool(self._allowed)

    def admit(self, origin: str, host: str) -> bool:
        """Tell whether a page of `origin` may call what the `Host` header names as `host`.

        For the same origin, host and port count and the scheme does not: TLS ends before us.
        """
        wanted = _authority(origin)
        if wanted is not None and wanted == _authority(f"//{host}"):
            return True
        return any(pattern.fullmatch(origin.lower()) for pattern in self._allowed)


def _pattern(origin: str) -> str:
    """Return an allowed origin as a pattern: `*.` stands for one label or more, `*` for all."""
    if origin == "*":
        return "[!-~]*"  # what a header can tell back
    return re.escape(origin.lower()).replace(r"\*", r"[a-z0-9_.-]*[a-z0-9_-]", 1)


def _authority(url: str) -> tuple[str, int | None] | None:
    """Return host and port, no port where it is a default one; None where there is no host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, None if port in _DEFAULT_PORTS else port) if host else None
