"""From where browsers may call: the `Origin` that they send with a page's requests.

https://datatracker.ietf.org/doc/html/rfc6455#section-10.2
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {80, 443}


LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")
"""What this machine calls itself."""

_OF_THIS_MACHINE: Final = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?"


class Origins:
    """The origins that are let in, besides that of the server itself."""

    def __init__(self, allowed: Iterable[str], *, this_machine: bool = False) -> None:
        """Allow origins such as `https://app.example`, `https://*.app.example`, or `*` for all.

        `this_machine` allows those of all its ports, by any of `LOOPBACK_NAMES`.
        """
        patterns = [*map(_pattern, allowed), *([_OF_THIS_MACHINE] if this_machine else [])]
        self._allowed = [re.compile(pattern) for pattern in patterns]

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
        return self.allow(origin)

    def allow(self, origin: str) -> bool:
        """Tell whether an origin is among those that are allowed."""
        return any(pattern.fullmatch(origin.lower()) for pattern in self._allowed)


class Hosts:
    """The names by which the server may be called, where it listens on loopback alone.

    The name of a page from elsewhere may be made to lead here (DNS rebinding), and the page is of
    the same origin then.
    """

    def __init__(self, own: Iterable[str], origins: Origins) -> None:
        """Take the names in `own`, at any port, and those of allowed origins."""
        self._own = {name.lower() for name in own}
        self._origins = origins

    def admit(self, host: str) -> bool:
        """Tell whether the server may be called by what the `Host` header says."""
        authority = _authority(f"//{host}")
        if authority is not None and authority[0] in self._own:
            return True
        return any(self._origins.allow(f"{scheme}://{host}") for scheme in ("https", "http"))


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
