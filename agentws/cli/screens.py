"""What is printed of an invocation, in each of the forms that one can have it in."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Protocol

from agentws.cli.terminal import Stdout, say

_TEXT_FIELDS: Final = ("token", "text", "delta", "content")


class Screen(Protocol):
    """Prints what comes of an invocation; each may raise `BrokenPipeError`."""

    @property
    def is_at_line_start(self) -> bool:
        """Whether something else may be printed at the terminal without cutting a line in two."""

    async def chunk(self, number: int, payload: Any) -> None:
        """Print a chunk."""

    async def question(self, number: int, request_id: str, payload: Any, schema: Any) -> None:
        """Print a question that is put to whoever reads this."""

    async def end(
        self, number: int, invocation_id: str, status: str, payload: Any, error: Any
    ) -> None:
        """Print the end: a value, or an error object."""

    async def accepted(self, invocation_id: str) -> None:
        """Print that an invocation runs in the background."""

    async def record(self, value: Any) -> None:
        """Print a record, or another answer about an invocation."""

    async def listed(self, record: Mapping[str, Any]) -> None:
        """Print a record of a list."""

    async def hold(self) -> None:
        """Print nothing until `release`, for somebody types."""

    async def release(self) -> None:
        """Print what was held."""

    def break_line(self) -> None:
        """Begin a new line at the terminal, for something that is no output."""


class TextScreen:
    """Texts as they come, joined; a line of JSON for all else."""

    def __init__(self, stdout: Stdout) -> None:
        self._stdout = stdout
        self._is_mid_line = False
        self._held: list[str] | None = None

    @property
    def is_at_line_start(self) -> bool:
        """See `Screen`."""
        return not (self._is_mid_line and self._stdout.is_terminal)

    async def chunk(self, _number: int, payload: Any) -> None:
        """See `Screen`."""
        text = text_of(payload)
        await (self._line(json_line(payload)) if text is None else self._write(text))

    async def question(self, *_question: Any) -> None:
        """See `Screen`. It is told on stderr."""

    async def end(
        self, _number: int, _invocation_id: str, _status: str, payload: Any, _error: Any
    ) -> None:
        """See `Screen`. Errors are told on stderr."""
        if payload is not None:
            # A result may say more than its text, and nothing of it may be missing.
            is_text = isinstance(payload, str) or (isinstance(payload, dict) and len(payload) == 1)
            text = text_of(payload) if is_text else None
            await (self._line(json_line(payload)) if text is None else self._write(text))
        if self._is_mid_line:
            await self._write("\n")

    async def accepted(self, invocation_id: str) -> None:
        """See `Screen`."""
        await self._write(f"{invocation_id}\n")

    async def record(self, value: Any) -> None:
        """See `Screen`."""
        await self._write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")

    async def listed(self, record: Mapping[str, Any]) -> None:
        """See `Screen`."""
        created, _, _ = str(record.get("created_at", "")).partition(".")
        columns = record.get("invocation_id"), record.get("status"), created.rstrip("Z") + "Z"
        name, status, moment = (str(column) for column in columns)
        await self._write(f"{name:36}  {status:14}  {moment}  {record.get('session_id')}\n")

    async def hold(self) -> None:
        """See `Screen`."""
        if self._stdout.is_terminal:
            self._held = []

    async def release(self) -> None:
        """See `Screen`."""
        held, self._held = self._held, None
        await self._write("".join(held or ()))

    def break_line(self) -> None:
        """See `Screen`. It goes to stderr, so that what is on stdout stays as it came."""
        if not self.is_at_line_start:
            say()
            self._is_mid_line = False

    async def _line(self, text: str) -> None:
        await self._write(f"\n{text}\n" if self._is_mid_line else f"{text}\n")

    async def _write(self, text: str) -> None:
        if text:
            self._is_mid_line = not text.endswith("\n")
            if self._held is None:
                await self._stdout.write(text)
            else:
                self._held.append(text)


class JsonScreen:
    """A line of JSON for each chunk and question, and one for the end."""

    is_at_line_start: Final = True

    def __init__(self, stdout: Stdout) -> None:
        self._stdout = stdout

    async def chunk(self, number: int, payload: Any) -> None:
        """See `Screen`."""
        await self._print(type="chunk", number=number, payload=payload)

    async def question(self, number: int, request_id: str, payload: Any, schema: Any) -> None:
        """See `Screen`."""
        about = {"request_id": request_id} | ({} if schema is None else {"schema": schema})
        await self._print(type="question", number=number, payload=payload, **about)

    async def end(
        self, number: int, invocation_id: str, status: str, payload: Any, error: Any
    ) -> None:
        """See `Screen`."""
        about = {"status": status, "invocation_id": invocation_id}
        about |= {} if error is None else {"error": error}
        await self._print(type="end", number=number, payload=payload, **about)

    async def accepted(self, invocation_id: str) -> None:
        """See `Screen`."""
        await self._print(type="accepted", number=0, payload=None, invocation_id=invocation_id)

    async def record(self, value: Any) -> None:
        """See `Screen`."""
        await self._stdout.write(json_line(value) + "\n")

    async def listed(self, record: Mapping[str, Any]) -> None:
        """See `Screen`."""
        await self.record(record)

    async def hold(self) -> None:
        """See `Screen`. Lines may come between those of a question."""

    async def release(self) -> None:
        """See `Screen`."""

    def break_line(self) -> None:
        """See `Screen`."""

    async def _print(self, **fields: Any) -> None:
        await self._stdout.write(json_line(fields) + "\n")


class FrameScreen(JsonScreen):
    """The messages themselves, both ways; `told` is what the client tells them to."""

    def __init__(self, stdout: Stdout) -> None:
        super().__init__(stdout)
        self._frames: deque[str] = deque()
        self._printing: asyncio.Task[None] | None = None

    def told(self, direction: str, message: str) -> None:
        """Print a message as soon as there is room."""
        self._frames.append(f"{'→' if direction == 'out' else '←'} {message}\n")
        if self._printing is None or self._printing.done():
            self._printing = asyncio.create_task(self._print_all())

    async def flush(self) -> None:
        """Wait until all messages that have passed are printed. Raises `BrokenPipeError`."""
        if self._printing is not None:
            await self._printing

    async def _print_all(self) -> None:
        while self._frames:
            await self._stdout.write(self._frames.popleft())

    async def record(self, _value: Any) -> None:
        """See `Screen`."""
        await self.flush()

    async def _print(self, **_fields: Any) -> None:
        await self.flush()


def text_of(value: Any) -> str | None:
    """Return the text that a value obviously is, None where it is no text."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for name in _TEXT_FIELDS:
            if isinstance(text := value.get(name), str):
                return text
    return None


def json_line(value: Any) -> str:
    """Return a value as JSON, on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
