"""Characters that a terminal obeys, in texts of models and servers, whom nobody has to trust."""

from typing import Final

_PICTURES: Final = {
    **{number: 0x2400 + number for number in range(0x20)},
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    0x7F: 0x2421,
    **{ord(kept): kept for kept in "\n\t"},
    ord("\r"): None,
}
"""What stands for characters that a terminal obeys (ISO 6429): pictures of them, in Unicode."""


def harmless(text: str) -> str:
    """Return a text that a terminal shows and does not obey, whoever wrote it.

    Carriage returns are left out, as they would have a line hide what it began with.
    """
    return text.translate(_PICTURES)
