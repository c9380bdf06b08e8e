"""Clients that keep a site busy, take up what breaks off, and note all that goes wrong."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp
import websockets

from tests.conftest import Address, Client, Frame


class Stream:
    """One invocation, as far as its client has got."""

    def __init__(self, invocation_id: str, payload: Any) -> None:
        self.invocation_id = invocation_id
        self.payload = payload
        self.numbers: list[int] = []
        self.is_known = False
        self.longest_pause = 0.0
        self._last = asyncio.get_running_loop().time()

    def question(self) -> Frame:
        """Return the message that brings the next chunks."""
        if self.is_known:
            action = {"action": "attach_invocation", "starting_after": len(self.numbers)}
        else:
            action = {"action": "invoke", "payload": self.payload}
        return {"invocation_id": self.invocation_id, **action}

    def take(self, number: int) -> None:
        """Note a chunk, and how long it took to come."""
        now = asyncio.get_running_loop().time()
        if self.numbers:
            self.longest_pause = max(self.longest_pause, now - self._last)
        self._last = now
        self.is_known = True
        self.numbers.append(number)


class Caller:
    """A client that runs one stream after the other until it is told to stop."""

    def __init__(self, site: Address, name: str, payload: Any) -> None:
        self.done: list[Stream] = []
        self.errors: list[Any] = []
        self.reconnects = 0
        self.refusals = 0
        """Invokes that crossed the end of a replica in whatever way, and were sent again."""
        self.stopping = False
        self.site = site
        self._news = asyncio.Event()
        self._streams: Iterator[Stream] = (
            Stream(f"{name}-{number}", payload) for number in itertools.count()
        )
        self.stream = next(self._streams)

    @property
    def is_idle(self) -> bool:
        """Whether it has been told to stop, and nothing is left to finish."""
        return self.stopping and not self.stream.is_known

    async def run(self) -> None:
        """Run streams, and connect again whenever that is needed."""
        while not self.is_idle:
            await self.connect()
            self.reconnects += 1
        self.reconnects -= 1

    async def connect(self) -> None:
        """Open a connection and use it while it lasts."""
        raise NotImplementedError

    def finish(self) -> None:
        """Note that a stream has ended well, and take the next."""
        self.done.append(self.stream)
        self.stream = next(self._streams)
        self._news.set()

    async def has_done(self, goal: int) -> None:
        """Wait until so many streams have ended well."""
        while len(self.done) < goal:
            self._news.clear()
            await self._news.wait()

    def fail(self, error: Any) -> None:
        """Note an error, and go on with the next stream."""
        self.errors.append(error)
        self.stream = next(self._streams)


class SocketCaller(Caller):
    """A client on the framed socket; a patient one stays until the old socket is closed."""

    def __init__(self, site: Address, name: str, payload: Any, *, patient: bool) -> None:
        super().__init__(site, name, payload)
        self._patient = patient
        self._leaving = False

    async def connect(self) -> None:
        """See `Caller`."""
        self._leaving = False
        try:
            async with self.site.connect() as client:
                while not (self._leaving or self.is_idle):
                    await client.send(**self.stream.question())
                    await self._follow(client)
        except websockets.ConnectionClosed:
            pass
        except (OSError, websockets.InvalidHandshake) as error:
            self.errors.append(error)

    async def _follow(self, client: Client) -> None:
        """Read until the stream has ended, has to be asked for again, or the socket is left."""
        while True:
            match await client.receive():
                case {"type": "stream_chunk", "sequence_number": int(number)}:
                    self.stream.take(number)
                case {"type": "stream_end"}:
                    return self.finish()
                case {"type": "going_away"}:
                    self._leaving = True
                    if not self._patient:
                        return None
                case {"type": "error", "error": {"code": "already_exists"}}:
                    self.stream.is_known = True
                    return None
                case {"type": "error", "error": {"code": "shutting_down"}} if self._leaving:
                    self.refusals += 1
                    return None
                case frame:
                    return self.fail(frame)


class EventCaller(Caller):
    """A client of event streams, which resumes as browsers do."""

    async def connect(self) -> None:
        """See `Caller`."""
        async with aiohttp.ClientSession(self.site.http) as session:
            try:
                async with self._request(session) as answer:
                    await self._read(answer)
            except aiohttp.ClientPayloadError:
                pass  # cut off, to be resumed
            except aiohttp.ClientError as error:
                self.errors.append(error)

    def _request(self, session: aiohttp.ClientSession) -> Any:
        stream = self.stream
        if not stream.is_known:
            headers = {"x-agent-invocation-id": stream.invocation_id}
            return session.post("/invocations", json=stream.payload, headers=headers)
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(len(stream.numbers))}
        return session.get(f"/invocations/{stream.invocation_id}", headers=headers)

    async def _read(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status != 200:
            return await self._cope(answer.status, await answer.text(), answer.headers)
        self.stream.is_known = True
        async for event, data in events(answer):
            match event:
                case "stream_chunk":
                    self.stream.take(data)
                case "stream_end":
                    return self.finish()
                case _:
                    return self.fail((event, data))
        return None

    async def _cope(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        """See to it that the request is sent again, where that is what it takes."""
        if status == 503 and "shutting_down" in text:
            self.refusals += 1
            await asyncio.sleep(float(headers["Retry-After"]))
        elif status == 502:  # its connection was cut: whether it runs is told when it is repeated
            self.refusals += 1
        elif status == 409 and "already_exists" in text:
            self.stream.is_known = True
        else:
            self.fail((status, text))


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Yield name and data of each event (not all of the format, but all that is sent)."""
    name = ""
    async for line in answer.content:
        field, _, value = line.decode().strip().partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
