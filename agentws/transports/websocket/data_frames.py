"""WebSocket frames as we write them ourselves (RFC 6455 §5.2, §5.4)."""

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

# RFC 6455 §5.2: FIN, opcodes, and both.
_FIN: Final = 0x80

_CONTINUATION_OPCODE: Final = 0x0

_TEXT_OPCODE: Final = 0x1

_TEXT: Final = 0x81

_PONG: Final = 0x8A

_MEDIUM_HEADER: Final = struct.Struct("!BBH")

_LARGE_HEADER: Final = struct.Struct("!BBQ")


def size_of(data: str | bytes) -> int:
    """Return how many bytes the payload of a message takes on the wire, uncompressed."""
    return len(data if isinstance(data, bytes) or data.isascii() else data.encode())


def text_frame(payload: bytes, first: int = _TEXT) -> tuple[bytes, bytes]:
    """Return the header and the payload of a text message: final, unmasked, uncompressed.

    `first` is the first byte of another kind of frame.
    """
    length = len(payload)
    if length < 126:
        return bytes((first, length)), payload
    if length < 65536:
        return _MEDIUM_HEADER.pack(first, 126, length), payload
    return _LARGE_HEADER.pack(first, 127, length), payload


def joined(messages: Sequence[bytes]) -> bytes:
    """Return text messages as the network takes them, a frame each."""
    return b"".join([part for message in messages for part in text_frame(message)])


def in_fragments(messages: Sequence[bytes], longest: int) -> Iterator[bytes]:
    """Yield text messages piece by piece: those longer than `longest` bytes a fragment at a time.

    Between two pieces, control frames may be written, and nothing else (RFC 6455 §5.4).
    """
    for is_long, alike in groupby(messages, lambda message: len(message) > longest):
        if is_long:
            for message in alike:
                yield from _fragments(message, longest)
        else:
            yield joined(list(alike))


def _fragments(message: bytes, longest: int) -> Iterator[bytes]:
    opcode = _TEXT_OPCODE
    for start in range(0, len(message), longest):
        end = start + longest
        final = _FIN if end >= len(message) else 0
        yield b"".join(text_frame(message[start:end], final | opcode))
        opcode = _CONTINUATION_OPCODE


def pong_frame(data: bytes) -> bytes:
    """Return the answer to a ping with that application data (RFC 6455 §5.5.3)."""
    return bytes((_PONG, len(data))) + data
