"""The daemon as a process: its start and its end, whatever an agent does (§8)."""

import signal
import time

import pytest

from tests.daemon.conftest import ECHO, SIGNALS, SOON
from tests.support.http_client import Session
from tests.support.ports import taken_port
from tests.support.processes import Start


@SIGNALS
async def test_it_serves_until_a_signal_and_exits_with_0(
    start: Start, number: signal.Signals
) -> None:
    daemon = await start(ECHO)
    line = await daemon.line(logger="agentws.server")
    assert line.keys() >= {"timestamp", "level", "logger", "message", "host", "port"}
    assert (line["level"], line["host"]) == ("INFO", "127.0.0.1")
    daemon.port = line["port"]
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1
        daemon.send(number)
        frame = await client.receive()
        assert (frame["type"], frame["reason"]) == ("going_away", "shutdown")
        assert await client.closed() == 1001
    assert await daemon.exit_code() == 0
    assert await daemon.complaints() == ""


async def test_a_running_invocation_may_finish_after_the_signal(launch: Start) -> None:
    daemon = await launch(
        """\
        @agent.invoke_handler
        async def invoke(payload, context):
            for number in range(5):
                yield number
                await asyncio.sleep(0.05)
        """
    )
    async with daemon.connect() as client:
        await client.send(action="invoke")
        assert (await client.receive())["sequence_number"] == 1
        daemon.send(signal.SIGTERM)
        types: list[str] = []
        while not types or types[-1] != "stream_end":
            types.append((await client.receive())["type"])
        assert types.count("stream_chunk") == 4
    assert await daemon.exit_code() == 0


async def test_probes_answer_while_it_runs(launch: Start, session: Session) -> None:
    daemon = await launch(ECHO)
    url = f"http://127.0.0.1:{daemon.port}"
    for path in ("readiness", "liveness"):
        async with session.get(f"{url}/{path}") as answer:
            assert answer.status == 200
    async with session.get(f"{url}/invocations/i") as answer:
        assert answer.status == 404
    line = await daemon.line(logger="agentws.access")  # of probes, there is none
    assert (line["method"], line["path"], line["status"]) == ("GET", "/invocations/i", 404)
    assert (line["error_code"], line["invocation_id"]) == ("not_found", "i")


async def test_nothing_is_collected_while_it_starts(launch: Start) -> None:
    daemon = await launch(
        """\
        import gc

        def collections():
            return sum(generation["collections"] for generation in gc.get_stats())

        at_import = collections()

        @agent.startup_handler
        async def started():  # by now, all is imported
            global during_start
            during_start = collections() - at_import

        @agent.invoke_handler
        async def invoke(payload, context):
            return during_start
        """
    )
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke"))["payload"] == 0


async def test_what_is_not_configured_is_not_imported(launch: Start) -> None:
    daemon = await launch(
        """\
        @agent.invoke_handler
        async def invoke(payload, context):
            return [name for name in payload if name in sys.modules]
        """,
        telemetry__otlp_endpoint="http://127.0.0.1:9",  # spoken to over HTTP
    )
    features = ["requests", "grpc", "prometheus_client", "azure", "redis", "jwt", "aiohttp_cors"]
    features += ["agentws.console.routes", "agentws.cli.main", "rich", "watchfiles", "webbrowser"]
    async with daemon.connect() as client:
        answer = await client.ask(action="invoke", payload=features)
        assert answer["payload"] == ["requests", "agentws.cli.main"]


STUBBORN = {
    "a handler that swallows its cancellation": """\
        @agent.invoke_handler
        async def invoke(payload, context):
            log.info("entered")
            while True:
                try:
                    await asyncio.Event().wait()
                except BaseException:
                    pass
        """,
    "a generator that swallows its cancellation": """\
        @agent.invoke_handler
        async def invoke(payload, context):
            while True:
                try:
                    log.info("entered")
                    yield 1
                    await asyncio.Event().wait()
                except BaseException:
                    pass
        """,
    "a thread of a handler": """\
        @agent.invoke_handler
        async def invoke(payload, context):
            threading.Thread(target=time.sleep, args=[600]).start()
            log.info("entered")
        """,
    "a function in a worker thread": """\
        @agent.invoke_handler
        async def invoke(payload, context):
            log.info("entered")
            await asyncio.to_thread(time.sleep, 600)
        """,
    "a task that nobody awaits": """\
        async def child():
            while True:
                try:
                    await asyncio.Event().wait()
                except BaseException:
                    pass

        @agent.invoke_handler
        async def invoke(payload, context):
            agent.child = asyncio.create_task(child())
            log.info("entered")
        """,
    "a shutdown handler that hangs": """\
        @agent.invoke_handler
        async def invoke(payload, context):
            log.info("entered")

        @agent.shutdown_handler
        async def stop():
            while True:
                try:
                    await asyncio.Event().wait()
                except BaseException:
                    pass
        """,
    "a shutdown handler that raises": """\
        @agent.invoke_handler
        async def invoke(payload, context):
            log.info("entered")

        @agent.shutdown_handler
        async def stop():
            raise SystemExit(7)
        """,
}


@pytest.mark.parametrize("source", STUBBORN.values(), ids=STUBBORN)
async def test_nothing_holds_it_past_its_grace(launch: Start, source: str) -> None:
    daemon = await launch(source, server__shutdown_grace=0.1)
    async with daemon.connect() as client:
        await client.send(action="invoke")
        await daemon.line(message="entered")
        started = time.monotonic()
        daemon.send(signal.SIGTERM)
        assert await daemon.exit_code() == 0
        assert time.monotonic() - started < 0.1 + 1 + 3 + SOON


async def test_a_handler_that_raises_system_exit_does_not_end_it(launch: Start) -> None:
    daemon = await launch(
        """\
        @agent.invoke_handler
        async def invoke(payload, context):
            sys.exit(3)
        """
    )
    async with daemon.connect() as client:
        for _ in range(2):
            assert (await client.ask(action="invoke"))["error"]["code"] == "internal_error"
    await daemon.end_well()


# --- a start that fails -----------------------------------------------------------------------


async def test_a_port_that_is_taken_is_one_sentence_and_exit_code_2(start: Start) -> None:
    with taken_port() as port:
        daemon = await start(ECHO, port)
        assert await daemon.complaints() == (
            f"agentws: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
        )
    assert await daemon.rest() == []
    assert await daemon.exit_code() == 2


async def test_a_port_that_is_taken_ends_it_with_2_and_one_sentence(start: Start) -> None:
    with taken_port() as port:
        daemon = await start(ECHO, port=port)
        assert await daemon.exit_code() == 2
    complaints = await daemon.complaints()
    assert complaints.startswith("agentws: ")
    assert f"127.0.0.1 port {port}" in complaints
    assert len(complaints.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    ["ValueError('no database')", "SystemExit(0)", "SystemExit(7)", "asyncio.CancelledError()"],
)
async def test_a_startup_handler_that_raises_ends_it_with_1(start: Start, error: str) -> None:
    daemon = await start(
        f"""\
        @agent.startup_handler
        async def begin():
            raise {error}
        """
    )
    lines = await daemon.rest()
    assert await daemon.exit_code() == 1
    assert [line for line in lines if line["level"] == "ERROR" and "startup" in line["message"]]
    assert await daemon.complaints() == ""
