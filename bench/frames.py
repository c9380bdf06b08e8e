"""As much of RFC 6455 as a load generator needs: make a request once, then count what comes."""

import struct
from typing import Final

_FINAL_TEXT: Final = 0x81
_MASKED: Final = 0x80
_PING: Final = 0x09
_FINAL_PONG: Final = 0x8A
_MASK: Final = b"\x5a\xa5\x3c\xc3"
_OPCODE: Final = 0x0F
_FIRST_CONTROL_OPCODE: Final = 0x08
_LENGTH: Final = 0x7F
_LENGTH_IN_2_BYTES: Final = 126
_LENGTH_IN_8_BYTES: Final = 127


def text_frame(message: bytes) -> bytes:
    """Return `message`, of less than 64 KiB, as a client's frame: masked (§5.2)."""
    length = len(message)
    if length < _LENGTH_IN_2_BYTES:
        header = struct.pack("!BB", _FINAL_TEXT, _MASKED | length)
    else:
        header = struct.pack("!BBH", _FINAL_TEXT, _MASKED | _LENGTH_IN_2_BYTES, length)
    masked = bytes(byte ^ _MASK[index % 4] for index, byte in enumerate(message))
    return header + _MASK + masked


def pong_frame() -> bytes:
    """Return an empty pong as a client's frame (§5.5.3)."""
    return struct.pack("!BB", _FINAL_PONG, _MASKED) + _MASK


class MessageCounter:
    """Counts a server's messages in the bytes it sends, however the network cuts them up.

    Takes every data frame for a whole message: servers of JSON messages do not fragment.
    """

    def __init__(self) -> None:
        self.pings = 0
        """How many pings came, until it is set back."""
        self._partial = b""

    def feed(self, data: bytes) -> int:
        """Return how many messages `data` completes. Looks at nothing but frame headers."""
        if self._partial:
            data = self._partial + data
        count = start = 0
        while (end := _frame_end(data, start)) <= len(data):
            if data[start] & _OPCODE < _FIRST_CONTROL_OPCODE:
                count += 1
            elif data[start] & _OPCODE == _PING:
                self.pings += 1
            start = end
        self._partial = data[start:]
        return count


def _frame_end(data: bytes, start: int) -> int:
    """Return where the unmasked frame ends that begins at `start`, or beyond `data` if unknown."""
    body = start + 2
    if len(data) < body:
        return body
    length = data[start + 1] & _LENGTH
    if length < _LENGTH_IN_2_BYTES:
        return body + length
    size = 2 if length == _LENGTH_IN_2_BYTES else 8
    # A length that is cut off is shorter than the frame, but already points beyond the data.
    return body + size + int.from_bytes(data[body : body + size], "big")
