"""Peers that take nothing of what they are sent."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from aiohttp.base_protocol import BaseProtocol

CHECKS: Final = 4
"""How often the buffer of a peer that is waited for is looked at within its time."""


class SendDeadline:
    """Aborts a peer that takes nothing for `patience` seconds while somebody waits to send.

    A slow peer is left alone as long as the write buffer shrinks (§8).
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: BaseProtocol,
        patience: float,
        on_stall: Callable[[], object] | None = None,
    ) -> None:
        """Watch over what `transport` sends; `on_stall` is called before it is aborted."""
        self._transport = transport
        self._protocol = protocol
        self._patience = patience
        self._on_stall = on_stall
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._smallest = 0
        self._progress_at = 0.0

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Keep an eye on the peer while the body waits for it."""
        if not self._waiting:
            self._note_progress()
        self._waiting += 1
        if self._timer is None:
            self._schedule()
        try:
            yield
        finally:
            self._waiting -= 1
            # A small message that still fits into the buffer is no progress of the peer's.
            if not self._protocol.writing_paused:
                self._note_progress()

    def stop(self) -> None:
        """Stop watching for good."""
        if self._timer is not None:
            self._timer.cancel()

    def _note_progress(self) -> None:
        self._smallest = self._transport.get_write_buffer_size()
        self._progress_at = asyncio.get_running_loop().time()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._patience / CHECKS, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        buffered = self._transport.get_write_buffer_size()
        if buffered < self._smallest or not buffered:
            self._note_progress()
        elif asyncio.get_running_loop().time() >= self._progress_at + self._patience:
            if self._on_stall is not None:
                self._on_stall()
            self._transport.abort()
            return
        self._schedule()
