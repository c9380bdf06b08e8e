"""Bodies that come compressed (RFC 9110 §8.4.1), inflated a part at a time and within a bound."""

import zlib
from typing import Final

from agentws.protocol.errors import InvocationError

_GZIP: Final = 16 + zlib.MAX_WBITS
_RAW_DEFLATE: Final = -zlib.MAX_WBITS
_WINDOW: Final = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}

MOST_MEMBERS: Final = 1000
"""How many members a gzip body may have: each takes time, however little is in it."""

CODINGS: Final = "gzip, deflate"
"""What bodies may be compressed by, as a header tells it."""


class Corrupt(Exception):
    """A body is not encoded as it says, or ends too early."""


class Plain:
    """A body that comes as it is."""

    def feed(self, part: bytes, _room: int) -> bytes:
        """Return what a part holds; more than `room` bytes are not wanted."""
        return part

    def end(self) -> None:
        """Check that the body is whole. Raises `Corrupt`."""


class Inflater(Plain):
    """A body that is compressed by zlib's method, with a head and a checksum around it."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._zlib = zlib.decompressobj(window)
        self._has_begun = False
        self._members = 1

    def feed(self, part: bytes, room: int) -> bytes:
        """Return what a part holds, of which at most `room` bytes. Raises `Corrupt`."""
        if part and not self._has_begun:
            self._begin(part[0])
        found = b""
        try:
            while part and len(found) < room:
                if self._zlib.eof:
                    self._begin_next()
                found += self._zlib.decompress(part, room - len(found))
                part = self._zlib.unused_data
        except zlib.error as error:
            raise Corrupt("The body is not encoded as it says") from error
        return found

    def end(self) -> None:
        """Check that the body is whole, its checksum included. Raises `Corrupt`."""
        if self._has_begun and not self._zlib.eof:
            raise Corrupt("The body ends before its encoding does")

    def _begin(self, first: int) -> None:
        """Begin, by the first byte: many that say deflate leave out its head (RFC 1950 §2.2)."""
        self._has_begun = True
        if self._window == zlib.MAX_WBITS and first & 0x0F != zlib.DEFLATED:
            self._zlib = zlib.decompressobj(_RAW_DEFLATE)

    def _begin_next(self) -> None:
        """Begin the next member of several (RFC 1952 §2.2), which only gzip has."""
        if self._window != _GZIP:
            raise Corrupt("The body goes on after its end")
        self._members += 1
        if self._members > MOST_MEMBERS:
            raise Corrupt(f"The body has more than {MOST_MEMBERS} members")
        self._zlib = zlib.decompressobj(self._window)


def decoder(coding: str) -> Plain:
    """Return what undoes a `Content-Encoding`. Raises `InvocationError` for one not known."""
    name = coding.strip().lower()
    if name in ("", "identity"):
        return Plain()
    if name not in _WINDOW:
        raise InvocationError(
            "unsupported_media_type", f"Content-Encoding must be one of {CODINGS}, or absent"
        )
    return Inflater(_WINDOW[name])
