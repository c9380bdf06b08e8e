"""Conversations over two replicas, whose sockets are cut at random: nothing twice, nothing lost."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import websockets

from agentws import Agent, InvocationContext
from tests.conftest import Address, Client, Frame
from tests.support.proxy import round_robin
from tests.support.redis_server import RedisServer
from tests.support.replicas import ServePair

RUNS = 25
QUESTIONS = 3


class Interviewer:
    """An agent that asks three questions and yields what it is answered; it counts its runs."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.agent.invoke_handler(self.invoke)
        self.runs: Counter[str] = Counter()
        self.heard: dict[str, list[Any]] = {}

    async def invoke(self, payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        self.runs[context.invocation_id] += 1
        heard = self.heard.setdefault(context.invocation_id, [])
        for number in range(QUESTIONS):
            heard.append(await context.ask({"number": number}))
            yield heard[-1]


class Guest:
    """A client that invokes, is asked and answers, and is cut off time and again."""

    def __init__(self, server: Address, invocation_id: str, chance: random.Random) -> None:
        self.server = server
        self.id = invocation_id
        self.chance = chance
        self.number = 0  # of the last frame with a number
        self.asked: dict[str, int] = {}
        self.chunks: list[Any] = []
        self.is_over = False

    async def talk(self) -> None:
        """Talk until the end, however often the socket is lost."""
        while not self.is_over:
            with contextlib.suppress(websockets.ConnectionClosed, OSError):
                async with self.server.connect() as client:
                    await self.take_up(client)
                    await self.some_frames(client)

    async def take_up(self, client: Client) -> None:
        if self.number:
            await client.send(
                action="attach_invocation", invocation_id=self.id, starting_after=self.number
            )
        else:
            await client.send(action="invoke", invocation_id=self.id, if_exists="attach")
        for request_id in self.asked:  # whichever of them was not heard
            await self.answer(client, request_id)

    async def some_frames(self, client: Client) -> None:
        for _ in range(self.chance.choice([0, 1, 2, 3, 5, 8])):
            frame = await client.receive()
            if frame["type"] == "error" and frame["error"]["retryable"]:
                return  # a busy machine's Redis did not answer: it comes back, and tries again
            self.take(frame)
            if frame["type"] == "input_required":
                await self.answer(client, frame["request_id"])
            if self.is_over:
                return
        if self.chance.random() < 0.5:
            client.connection.transport.abort()

    async def answer(self, client: Client, request_id: str) -> None:
        await client.send(
            action="send_input",
            invocation_id=self.id,
            request_id=request_id,
            input_id=request_id,
            payload=self.asked[request_id],
        )

    def take(self, frame: Frame) -> None:
        match frame["type"]:
            case "input_required":
                self.asked[frame["request_id"]] = frame["payload"]["number"]
                self.number = max(self.number, frame["sequence_number"])
            case "stream_chunk" | "input_received":
                assert frame["sequence_number"] == self.number + 1, (frame, self.number)
                self.number += 1
                if frame["type"] == "stream_chunk":
                    self.chunks.append(frame["payload"])
            case "stream_end":
                self.is_over = True
            case "error":  # the answer to an answer that came too late
                assert frame["action"] == "send_input", frame
                assert frame["error"]["code"] in ("already_finished", "input_not_expected"), frame


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_asked_or_run_twice_wherever_sockets_are_cut(
    redis: RedisServer, serve_pair: ServePair, seed: int
) -> None:
    interviewer = Interviewer()
    pair = await serve_pair(redis, interviewer.agent)
    chance = random.Random(seed)
    async with round_robin([pair.owner, pair.other]) as address:
        guests = [
            Guest(address, f"i{number}", random.Random(chance.random())) for number in range(RUNS)
        ]
        async with asyncio.timeout(60):
            await asyncio.gather(*(guest.talk() for guest in guests))
    for guest in guests:
        assert interviewer.runs[guest.id] == 1
        assert guest.chunks == interviewer.heard[guest.id] == list(range(QUESTIONS))
        assert len(guest.asked) == QUESTIONS
