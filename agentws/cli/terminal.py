"""The terminal: what is printed where, without ever holding up the event loop."""

import asyncio
import os
import select
import sys
from typing import Any, Final

import click

from agentws.cli.characters import harmless

_STDIN: Final = 0


def styled(text: str, **style: Any) -> str:
    """Return text in colours or the like, unless `NO_COLOR` is set (https://no-color.org)."""
    is_plain = not style or os.environ.get("NO_COLOR")
    return text if is_plain else click.style(text, **style)


def say(text: str = "", *, nl: bool = True, **style: Any) -> None:
    """Print a text on stderr, whoever it is from."""
    click.echo(styled(harmless(text), **style), nl=nl, err=True)


def notice(text: str) -> None:
    """Tell something beside what was asked for, on stderr."""
    say(f"agentws: {text}", dim=True)


def has_person() -> bool:
    """Tell whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class Stdout:
    """Standard output, however slowly it is read: pipes may be full, and terminals stopped.

    It is written to when it has room, which leaves its own mode, shared with others, as it is. What
    goes to a terminal is made harmless; what goes elsewhere, is as it came.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self._fd = sys.stdout.fileno()
        self._encoding = sys.stdout.encoding
        self.is_terminal = os.isatty(self._fd)

    async def write(self, text: str) -> None:
        """Write a text. Raises `BrokenPipeError` when its reader is gone."""
        if self.is_terminal:
            text = harmless(text)
        left = memoryview(text.encode(self._encoding, "replace"))
        while left:
            await self._room()
            try:
                left = left[os.write(self._fd, left[: select.PIPE_BUF]) :]
            except BlockingIOError:
                continue

    async def _room(self) -> None:
        if select.select([], [self._fd], [], 0)[1]:
            return
        loop = asyncio.get_running_loop()
        has_room = asyncio.Event()
        loop.add_writer(self._fd, has_room.set)
        try:
            await has_room.wait()
        finally:
            loop.remove_writer(self._fd)


class Keyboard:
    """What the person at the terminal types, line by line.

    The terminal itself edits the line, so that nobody has to wait for it in a thread that cannot be
    interrupted.
    """

    async def line(self) -> str:
        """Wait for the next line. Raises `EOFError` for Ctrl-D."""
        typed = b""
        while not typed.endswith(b"\n"):
            await self._news()
            if not (more := os.read(_STDIN, 4096)):
                raise EOFError
            typed += more
        return typed.decode(errors="replace").strip()

    async def _news(self) -> None:
        loop = asyncio.get_running_loop()
        has_news = asyncio.Event()
        loop.add_reader(_STDIN, has_news.set)
        try:
            await has_news.wait()
        finally:
            loop.remove_reader(_STDIN)
