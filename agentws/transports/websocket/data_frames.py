"""WebSocket frames as we write them ourselves (RFC 6455 §5.2)."""

import struct
from typing import Final

# RFC 6455 §5.2: FIN and an opcode.
_TEXT: Final = 0x81

_PONG: Final = 0x8A

_MEDIUM_HEADER: Final = struct.Struct("!BBH")

_LARGE_HEADER: Final = struct.Struct("!BBQ")


def size_of(data: str | bytes) -> int:
    """Return how many bytes the payload of a message takes on the wire, uncompressed."""
    return len(data if isinstance(data, bytes) or data.isascii() else data.encode())


def text_frame(payload: bytes) -> tuple[bytes, bytes]:
    """Return the header and the payload of a text message: final, unmasked, uncompressed."""
    length = len(payload)
    if length < 126:
        return bytes((_TEXT, length)), payload
    if length < 65536:
        return _MEDIUM_HEADER.pack(_TEXT, 126, length), payload
    return _LARGE_HEADER.pack(_TEXT, 127, length), payload


def pong_frame(data: bytes) -> bytes:
    """Return the answer to a ping with that application data (RFC 6455 §5.5.3)."""
    return bytes((_PONG, len(data))) + data
