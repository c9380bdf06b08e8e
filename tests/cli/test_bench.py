"""`agentws bench` against real servers."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from agentws import InvocationContext, InvocationError
from agentws.cli.load import percentile
from tests.cli.conftest import Agentws, started
from tests.conftest import Serve
from tests.support.agents import Gate, agent_of, each, echo, soon
from tests.support.cutting import cutting
from tests.support.ports import taken_port
from tests.support.processes import PATIENCE
from tests.support.terminal import terminal

KEYS = [
    "invocations_per_second",
    "chunks_per_second",
    "time_to_first_chunk",
    "duration",
    "errors",
    "reconnects",
]

MAYBE = {"unfinished"}
"""What a busy machine may leave in so short a time."""


async def test_json_has_the_keys_that_are_promised(agentws: Agentws, serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield 1
        await asyncio.sleep(0.02)
        yield 2

    server = await serve(agent_of(invoke))
    done = await agentws("bench", server.http, "--seconds", "0.3", "--sockets", "3", "--json")
    assert (done.code, done.err) == (0, "")
    measured = json.loads(done.out)
    assert list(measured) == KEYS
    first, whole = measured["time_to_first_chunk"], measured["duration"]
    assert first.keys() == whole.keys() == {"p50", "p99"}
    assert 0 < first["p50"] <= first["p99"]
    assert 0.02 <= whole["p50"] <= whole["p99"]
    assert measured["chunks_per_second"] == pytest.approx(
        2 * measured["invocations_per_second"], rel=0.01
    )
    assert 0 < measured["invocations_per_second"] <= 3 / 0.02
    assert (measured["errors"], measured["reconnects"]) == ({}, 0)


async def test_a_table_for_people(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(each))
    done = await agentws("bench", server.http, '["a", "b"]', "--seconds", "0.2")
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    names = [re.split(r" {2,}", line)[0] for line in done.out.splitlines()[1:]]
    assert names == ["", "invocations", "chunks", "time to first chunk", "duration", "resumes"]


async def test_a_rate_is_kept(agentws: Agentws, serve: Serve) -> None:
    begun: list[Any] = []

    async def invoke(payload: Any, context: InvocationContext) -> Any:
        begun.append(payload)
        await asyncio.sleep(0.1)  # longer than the time between two of them

    server = await serve(agent_of(invoke))
    done = await agentws(
        *("bench", server.http, "hi", "--rate", "50", "--seconds", "0.5", "--sockets", "2"),
        "--json",
    )
    assert done.code == 0
    assert 20 <= len(begun) <= 26
    assert begun[0] == {"message": "hi"}


async def test_errors_are_counted_by_code(agentws: Agentws, serve: Serve) -> None:
    turn = 0

    async def invoke(payload: Any, context: InvocationContext) -> Any:
        nonlocal turn
        turn += 1
        if turn % 2:
            raise InvocationError("odd", "An odd turn")
        if turn % 4 == 0:
            await context.ask("May I?")

    server = await serve(agent_of(invoke))
    done = await agentws("bench", server.http, "--seconds", "0.2", "--sockets", "1", "--json")
    assert done.code == 0
    errors = json.loads(done.out)["errors"]
    assert errors.keys() - MAYBE == {"odd", "input_required"}
    assert errors["odd"] > errors["input_required"] > 0


async def test_nothing_completed(agentws: Agentws, serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> Any:
        raise InvocationError("never", "Never")

    server = await serve(agent_of(invoke))
    done = await agentws("bench", server.http, "--seconds", "0.1", "--json")
    assert done.code == 1
    assert json.loads(done.out)["errors"].keys() - MAYBE == {"never"}
    assert json.loads(done.out)["duration"] == {"p50": None, "p99": None}
    assert done.err == "agentws: not one invocation has completed\n"


async def test_what_takes_too_long_is_cancelled_and_counted(agentws: Agentws, serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    done = await agentws("bench", server.http, "--seconds", "0.1", "--sockets", "2", "--json")
    assert json.loads(done.out)["errors"] == {"unfinished": 2}
    await soon(gate.cancelled)


async def test_sockets_that_are_cut_come_back(agentws: Agentws, serve: Serve) -> None:
    turns = 0

    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        nonlocal turns
        turns += 1
        is_third = turns == 3
        yield 1
        if is_third:
            cutter.cut_all()
        yield 2

    server = await serve(agent_of(invoke))
    async with cutting([server], seed=1) as cutter:
        cutter.is_calm = True
        done = await agentws("bench", cutter.http, "--seconds", "0.5", "--sockets", "2", "--json")
    measured = json.loads(done.out)
    assert (done.code, measured["errors"], measured["reconnects"]) == (0, {}, 2)


async def test_ctrl_c_ends_it_with_what_was_measured(serve: Serve, tmp_path: Path) -> None:
    called = asyncio.Event()

    async def invoke(payload: Any, context: InvocationContext) -> Any:
        called.set()

    server = await serve(agent_of(invoke))
    arguments = ("bench", server.http, "--seconds", "60", "--json")
    async with started(*arguments, folder=tmp_path) as process:
        await soon(called)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert json.loads(out)["errors"] == {}
        assert json.loads(out)["invocations_per_second"] > 0


async def test_it_is_shown_live_on_a_terminal(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    async with terminal("-m", "agentws", "bench", server.http, "--seconds", "60") as it:
        await it.until(" ms, p99 ")  # so that one has completed
        it.press("C")
        await it.until("invocations")
        await it.until("resumes")
        assert await it.exit_code() == 0


async def test_a_narrow_terminal_cuts_no_number_short(serve: Serve) -> None:
    server = await serve(agent_of(echo))
    arguments = ("bench", server.http, "--seconds", "0.1")
    async with terminal("-m", "agentws", *arguments, COLUMNS="20") as it:
        await it.until("count  per second")
        assert await it.exit_code() == 0
    assert "…" not in it.text.partition("count")[2]


async def test_no_connection_and_a_wrong_key(agentws: Agentws, serve: Serve) -> None:
    with taken_port() as port:
        pass
    done = await agentws("bench", f"localhost:{port}", "--connect-timeout", "0.5")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "cannot be reached" in done.err

    server = await serve(agent_of(echo), auth={"api_keys": ["key1"]})
    done = await agentws("bench", server.http, "--api-key", "key2")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "401" in done.err


async def test_sockets_that_are_refused_are_counted(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(echo), websocket={"max_connections": 2})
    done = await agentws(
        *("bench", server.http, "--sockets", "3", "--seconds", "0.1", "--json"),
        *("--connect-timeout", "0.5"),
    )
    assert (done.code, json.loads(done.out)["errors"]) == (0, {"connection_failed": 1})


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50, 99)
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) is None
