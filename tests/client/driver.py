"""Plays the user of a scenario with the client in Python; see `README.md`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import agentws.client as agentws
from agentws.client import Client, Question, Reconnected, Run, connect
from tests.support.misbehaving import Misbehaving
from tests.support.scenarios import Fields, Scenario, fits, numbers_of

PATIENCE = 10.0
"""Seconds that a scenario may take."""

QUICK = {"max_retry_delay": 0.05, "connect_timeout": 5, "give_up_after": 5}


class User:
    """Does what a scenario says, and sees that it finds what it should."""

    def __init__(self, scenario: Scenario, server: Misbehaving) -> None:
        self._scenario = scenario
        self._server = server
        self._runs: dict[str, Run] = {}
        self._readings: dict[str, Any] = {}
        self._questions: dict[str, Question] = {}
        self._begun: dict[str, asyncio.Task[None]] = {}
        self._tokens: list[str] = list(scenario.get("tokens", []))
        self._tokens_asked = 0
        self._states: list[str] = ["connecting"]
        self._turned = asyncio.Event()
        self._sees_reconnected = "reconnected" in str(scenario["user"])
        self._client = self._connect()

    def _connect(self) -> Client:
        options = {**QUICK, **self._scenario.get("options", {})}
        token = self._token if self._tokens else None
        client = connect(self._server.url, token=token, **options)
        client.on_state(self._note_state)
        return client

    def _token(self) -> str:
        token = self._tokens[min(self._tokens_asked, len(self._tokens) - 1)]
        self._tokens_asked += 1
        return token

    def _note_state(self, state: str) -> None:
        self._states.append(state)
        self._turned.set()

    async def play(self) -> None:
        """Take all steps, and look at the states and the tokens at the end."""
        async with asyncio.timeout(PATIENCE), self._client:
            for step in self._scenario["user"]:
                await self._do(step)
        assert self._states == self._scenario.get("states", self._states)
        assert self._tokens_asked == self._scenario.get("tokens_asked", self._tokens_asked)

    async def _do(self, step: Fields) -> None:
        raises = step.get("raises")
        try:
            await self._verb(step)(step)
        except AssertionError:
            raise
        except Exception as error:
            if raises is None:
                raise
            _check_error(raises, error)
        else:
            assert raises is None, f"{step} raised nothing"

    def _verb(self, step: Fields) -> Callable[[Fields], Awaitable[None]]:
        (verb,) = (name for name in step if hasattr(self, f"_do_{name}"))
        doing: Callable[[Fields], Awaitable[None]] = getattr(self, f"_do_{verb}")
        return doing

    # --- runs ---

    async def _do_invoke(self, step: Fields) -> None:
        fields = dict(step["invoke"])
        self._runs[step["as"]] = self._client.invoke(fields.pop("payload"), **fields)

    async def _do_attach(self, step: Fields) -> None:
        fields = dict(step["attach"])
        self._runs[step["as"]] = self._client.attach(fields.pop("id"), **fields)

    async def _do_chunks(self, step: Fields) -> None:
        name = step["chunks"]
        reading = self._readings.setdefault(name, aiter(self._runs[name]))
        for expected in numbers_of(step["are"]):
            assert await anext(reading) == expected

    async def _do_events(self, step: Fields) -> None:
        name = step["events"]
        for expected in step["are"]:
            event = await self._event(name)
            assert fits(expected, fields_of(event), {}), f"{event} is not {expected}"
            if isinstance(event, Question):
                self._questions[name] = event

    async def _event(self, name: str) -> Any:
        reading = self._readings.setdefault(name, self._runs[name].events())
        while isinstance(event := await anext(reading), Reconnected):
            if self._sees_reconnected:
                break
        return event

    async def _do_end(self, step: Fields) -> None:
        name = step["end"]
        reading = self._readings.setdefault(name, aiter(self._runs[name]))
        try:
            found = await anext(reading)
        except StopAsyncIteration:
            return
        raise AssertionError(f"{found} came in place of the end")

    async def _do_result(self, step: Fields) -> None:
        found = await self._runs[step["result"]]
        assert "raises" in step or found == step["is"]

    async def _do_cancel(self, step: Fields) -> None:
        await self._runs[step["cancel"]].cancel()

    async def _do_send(self, step: Fields) -> None:
        await self._runs[step["send"]].send(step["payload"])

    async def _do_answer(self, step: Fields) -> None:
        await self._questions[step["answer"]].answer(step["payload"])

    async def _do_detach(self, step: Fields) -> None:
        self._runs[step["detach"]].detach()

    async def _do_leave(self, step: Fields) -> None:
        del self._readings[step["leave"]]

    async def _do_cursor(self, step: Fields) -> None:
        assert self._runs[step["cursor"]].cursor == step["is"]

    async def _do_status(self, step: Fields) -> None:
        assert self._runs[step["status"]].status == step["is"]

    # --- the client ---

    async def _do_get(self, step: Fields) -> None:
        record = await self._client.get(step["get"])
        assert fits(step.get("gives", {}), record, {}), record

    async def _do_list(self, step: Fields) -> None:
        records = [record async for record in self._client.list(**step["list"])]
        assert [record["invocation_id"] for record in records] == step["ids"]

    async def _do_close(self, step: Fields) -> None:
        await self._client.close()

    async def _do_state(self, step: Fields) -> None:
        while self._client.state != step["state"]:
            self._turned.clear()
            await self._turned.wait()

    # --- the order of things ---

    async def _do_begin(self, step: Fields) -> None:
        self._begun[step["begin"]] = asyncio.create_task(self._do(step["do"]))
        await asyncio.sleep(0)

    async def _do_finish(self, step: Fields) -> None:
        await self._begun.pop(step["finish"])

    async def _do_signal(self, step: Fields) -> None:
        self._server.signal(step["signal"])

    async def _do_await(self, step: Fields) -> None:
        await self._server.signalled(step["await"])


def fields_of(event: Any) -> dict[str, Any]:
    """Return an event as scenarios tell of it."""
    names = ("number", "payload", "request_id", "schema", "withdrawn", "first_available")
    fields = {name: getattr(event, name) for name in names if hasattr(event, name)}
    return {"type": type(event).__name__.lower(), **fields}


def _check_error(expected: Fields, error: Exception) -> None:
    fields = dict(expected)
    assert type(error) is getattr(agentws, fields.pop("error")), repr(error)
    assert fits(fields.pop("object", {}), getattr(error, "error", {}), {}), repr(error)
    for name, value in fields.items():
        assert getattr(error, name) == value, repr(error)
