"""A terminal with a person before it: programs of ours run in it, over a real pseudo-terminal."""

import asyncio
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.processes import PATIENCE, ROOT

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command line that runs in a terminal of its own, and what the terminal was sent."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self.raw = ""
        self._master = master
        self._seen = 0
        self._news = asyncio.Event()
        self._is_over = False
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def text(self) -> str:
        """What was printed, without what colours it or moves the cursor."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    async def until(self, text: str) -> None:
        """Wait until a text was printed, after the one that was waited for before."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (found := self.text.find(text, self._seen)) < 0 and not self._is_over:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            found = -1
        assert found >= 0, f"{text!r} is not in {self.text[self._seen :]!r}"
        self._seen = found + len(text)

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._master, f"{line}\n".encode())

    def press(self, key: str) -> None:
        """Press a key such as `C` together with Ctrl."""
        os.write(self._master, bytes([ord(key) & 0x1F]))

    async def exit_code(self) -> int:
        """Wait for the end of the program, and read the rest."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            while not self._is_over:
                self._news.clear()
                await self._news.wait()
        return code

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # nobody has the other side any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
            self._is_over = True
        self.raw += data.decode()
        self._news.set()

    async def end(self) -> None:
        """End the program if it has not ended, and the terminal."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
        if not self._is_over:
            asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


@asynccontextmanager
async def terminal(
    *arguments: str, folder: Path = ROOT, stdout: int | None = None, **environ: str
) -> AsyncIterator[Terminal]:
    """Run Python in a terminal; `stdout` is a file descriptor in place of the terminal."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _IN_TERMINAL, sys.executable, *arguments),
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environ},
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    it = Terminal(process, master)
    try:
        yield it
    finally:
        await it.end()


_IN_TERMINAL = """if True:
    import fcntl, os, sys, termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal the one that Ctrl-C comes from, then becomes the program."""
