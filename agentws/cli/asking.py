"""Questions at the terminal: one after another, taken away when somebody else has answered."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from agentws.cli.forms import Field, Form, Line, form_of, question_text, shown_default
from agentws.cli.terminal import Keyboard, say
from agentws.client.errors import Closed, ConnectionFailed, InvocationFailed
from agentws.client.events import Question


class Stage(Protocol):
    """Where questions are put, and who is told what comes of them."""

    async def clear(self) -> None:
        """Make room for a question: nothing else is printed until `resume`."""

    async def resume(self) -> None:
        """Go on printing."""

    def notice(self, text: str) -> None:
        """Tell something on stderr."""

    def unanswered(self, question: Question) -> None:
        """Note that the person at the terminal will not answer."""


class Asker:
    """Asks the person at the terminal what the agent asks."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._keyboard = Keyboard()
        self._open: deque[Question] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._sending = ""
        self._is_at_prompt = False

    def ask(self, question: Question) -> None:
        """Ask, after what is being asked."""
        self._open.append(question)
        if self._asking is None:
            self._begin()

    async def answered(self, request_id: str, *, withdrawn: bool) -> None:
        """Take a question away: it was answered by somebody, or is not asked any more."""
        if request_id == self._sending:
            return
        is_shown = bool(self._open) and self._open[0].request_id == request_id
        self._open = deque(each for each in self._open if each.request_id != request_id)
        if is_shown:
            self.end()
            why = "is not asked any more" if withdrawn else "was answered elsewhere"
            self._stage.notice(f"the question {why}")
            await self._stage.resume()
            if self._open:
                self._begin()

    def end(self) -> None:
        """Ask nothing any more."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if self._is_at_prompt:
            self._is_at_prompt = False
            say()

    def _begin(self) -> None:
        self._asking = asyncio.create_task(self._ask_all())

    async def _ask_all(self) -> None:
        while self._open:
            question = self._open[0]
            await self._stage.clear()
            try:
                await self._put(question)
            except EOFError:
                self._asking = None
                self.end()
                await self._stage.resume()
                self._stage.unanswered(question)
                return
            except (ConnectionFailed, Closed):
                return  # which whoever reads the run is told, too
            self._open.remove(question)
            await self._stage.resume()
        self._asking = None

    async def _put(self, question: Question) -> None:
        """Ask until there is an answer that the server takes. Raises `EOFError`."""
        say(question_text(question.payload), bold=True)
        form = form_of(question.schema)
        while True:
            answer = await self._fill(form)
            self._sending = question.request_id
            try:
                await question.answer(answer)
            except InvocationFailed as failure:
                self._stage.notice(f"{failure.code}: {failure.message}")
                if failure.code == "invalid_request" or failure.retryable:
                    continue
            finally:
                self._sending = ""
            return

    async def _fill(self, form: Form) -> Any:
        if form.line is not None:
            return await self._typed(form.line, "", _parsed)
        answers = {}
        for field in form.fields:
            value = await self._typed(field.line, field.name, _parser(field))
            if value is not _LEFT_OUT:
                answers[field.name] = value
        return answers

    async def _typed(self, line: Line, name: str, parse: Callable[[Line, str], Any]) -> Any:
        """Ask for a line until it makes sense."""
        for number, choice in enumerate(line.choices, 1):
            say(f"  {number}) {choice}")
        while True:
            say(_about(line, name), nl=False)
            say(_hint(line), nl=False, dim=True)
            say(": ", nl=False)
            self._is_at_prompt = True
            typed = await self._keyboard.line()
            self._is_at_prompt = False
            try:
                return parse(line, typed)
            except ValueError as error:
                say(f"{error}.")


_LEFT_OUT = object()


def _parsed(line: Line, typed: str) -> Any:
    return line.value(typed)


def _parser(field: Field) -> Callable[[Line, str], Any]:
    def parse(line: Line, typed: str) -> Any:
        if not typed and not field.is_required and not line.has_default:
            return _LEFT_OUT
        return line.value(typed)

    return parse


def _about(line: Line, name: str) -> str:
    is_news = line.about.lower().replace(" ", "_") not in ("", name.lower())
    about = f"({line.about}) " if name and is_news else ""
    return f"{name} {about}" if name else ""


def _hint(line: Line) -> str:
    shows_default = line.has_default and not line.may_be_empty
    default = f", {shown_default(line)} if empty" if shows_default else ""
    return f"[{line.hint}{default}]"
