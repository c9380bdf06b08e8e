"""The daemon as a process: its start, signals, and the end that nothing can hold up (§8)."""

import asyncio
import os
import platform
import re
import signal
import socket
import time
from pathlib import Path

import aiohttp
import pytest

from agentws import __version__
from tests.deploy.programs import need
from tests.support.processes import PATIENCE, Daemon, Start
from tests.support.redis_server import free_port, running_redis

SOON = 3.0
"""Seconds within which something happens "at once", the end of a process included."""

FIELD = "azure.ai.agentserver.invocations_ws."


ECHO = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        return payload
"""

FOREVER = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        log.info("entered")
        await asyncio.Event().wait()
"""

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)


# --- start and end ----------------------------------------------------------------------------


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


async def test_the_log_is_json_with_the_fields_flat(start: Start) -> None:
    daemon = await (
        await start(
            """\
            @agent.invoke_handler
            async def invoke(payload, context):
                log.info("hello", extra={"colour": "red"})
            """
        )
    ).listening()
    async with daemon.connect() as client:
        await client.ask(action="invoke", invocation_id="i", session_id="s")
    line = await daemon.line(logger="test")
    assert (line["message"], line["colour"]) == ("hello", "red")
    assert (line["invocation_id"], line["session_id"]) == ("i", "s")
    line = await daemon.line(logger="agentws.connection")
    assert set(line) == {
        "timestamp",
        "level",
        "logger",
        "message",
        FIELD + "session_id",
        FIELD + "close_code",
        FIELD + "duration_ms",
        "peer",
        "invocations",
        "bytes_received",
        "bytes_sent",
    }
    assert line[FIELD + "close_code"] == 1000


async def test_what_is_odd_in_what_clients_send_is_not_told_each_time(start: Start) -> None:
    daemon = await (await start(ECHO)).listening()
    odd = {"tracestate": "no state", "baggage": "no baggage"}
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with daemon.connect(
        subprotocols=["unheard.of"], additional_headers={"traceparent": trace, **odd}
    ) as client:
        for duplicate in ("a=1,a=2", "A=1", ",".join(f"a{n}=1" for n in range(40)), "a=\x1b[2J"):
            await client.ask(
                action="invoke", traceparent=trace, tracestate=duplicate, baggage="no baggage"
            )
    daemon.send(signal.SIGTERM)
    lines = await daemon.rest()
    assert "agentws.connection" in {line["logger"] for line in lines}
    assert {line["level"] for line in lines} == {"INFO"}


async def test_a_running_invocation_may_finish_after_the_signal(start: Start) -> None:
    daemon = await (
        await start(
            """\
            @agent.invoke_handler
            async def invoke(payload, context):
                for number in range(5):
                    yield number
                    await asyncio.sleep(0.05)
            """
        )
    ).listening()
    async with daemon.connect() as client:
        await client.send(action="invoke")
        assert (await client.receive())["sequence_number"] == 1
        daemon.send(signal.SIGTERM)
        types: list[str] = []
        while not types or types[-1] != "stream_end":
            types.append((await client.receive())["type"])
        assert types.count("stream_chunk") == 4
    assert await daemon.exit_code() == 0


async def test_what_has_no_effect_is_told_in_the_log(start: Start) -> None:
    daemon = await start(ECHO, server_port=9000)
    line = await daemon.line(level="WARNING")
    assert "'AGENTWS_SERVER_PORT' is not read" in line["message"]
    await daemon.listening()


@pytest.mark.parametrize("stdout", ["&-", "/dev/full"])
async def test_it_serves_without_a_log_where_stdout_takes_none(start: Start, stdout: str) -> None:
    source = """\
    import os

    @agent.invoke_handler
    async def invoke(payload, context):
        log.info("nobody reads it")
        print("nor this")
        return [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1)]
    """
    shell = ("sh", "-c", f'exec "$@" <&- >{stdout}', "sh")
    daemon = await start(source, port=free_port(), prefix=shell)
    await daemon.ready()
    async with daemon.connect() as client:
        files = ["/dev/null", stdout.replace("&-", "/dev/null")]
        assert (await client.ask(action="invoke"))["payload"] == files
    daemon.send(signal.SIGTERM)
    assert await daemon.exit_code() == 0
    assert await daemon.complaints() == ""


async def test_a_port_that_is_taken_is_one_sentence_and_exit_code_2(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        daemon = await start(ECHO, port)
        assert await daemon.complaints() == (
            f"agentws: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
        )
    assert await daemon.rest() == []
    assert await daemon.exit_code() == 2


# --- the event loop ---------------------------------------------------------------------------

LOOPS = pytest.mark.parametrize("event_loop", ["uvloop", "asyncio"])

TELLING = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        return type(asyncio.get_running_loop()).__module__
"""


@pytest.mark.parametrize(
    ("event_loop", "installed", "module"),
    [
        ("auto", True, "uvloop"),
        ("auto", False, "agentws.daemon"),
        ("uvloop", True, "uvloop"),
        ("asyncio", True, "agentws.daemon"),
    ],
)
async def test_the_event_loop_is_the_one_of_the_settings(
    start: Start, tmp_path: Path, event_loop: str, installed: bool, module: str
) -> None:
    if not installed:
        (tmp_path / "uvloop.py").write_text("raise ImportError")
    daemon = await (await start(TELLING, server__event_loop=event_loop)).listening()
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke"))["payload"].startswith(module)


async def test_an_event_loop_that_is_not_installed_is_one_sentence_and_exit_code_2(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "uvloop.py").write_text("raise ModuleNotFoundError('No module named uvloop')")
    daemon = await start(TELLING, server__event_loop="uvloop")
    assert await daemon.complaints() == (
        "agentws: server.event_loop is uvloop, which cannot be imported (No module named uvloop): "
        "install agentws[uvloop]\n"
    )
    assert await daemon.exit_code() == 2


@LOOPS
async def test_names_are_resolved_while_the_agent_keeps_all_threads_busy(
    start: Start, event_loop: str
) -> None:
    source = """\
    from concurrent.futures import ThreadPoolExecutor

    @agent.invoke_handler
    async def invoke(payload, context):
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        agent.blocked = asyncio.create_task(asyncio.to_thread(time.sleep, 600))
        await asyncio.sleep(0)
        return len(await loop.getaddrinfo("localhost", 80))
    """
    daemon = await (await start(source, server__event_loop=event_loop)).listening()
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke"))["payload"] > 0


# --- a second signal --------------------------------------------------------------------------


@SIGNALS
async def test_a_second_signal_ends_it_at_once(start: Start, number: signal.Signals) -> None:
    daemon = await (await start(FOREVER, server__shutdown_grace=600)).listening()
    async with daemon.connect() as client:
        await client.send(action="invoke")
        await daemon.line(message="entered")
        daemon.send(number)
        await client.until(type="going_away")
        async with asyncio.timeout(SOON):
            await daemon.insist(number)
    assert await daemon.exit_code() == 128 + number


@SIGNALS
@pytest.mark.parametrize("blocking", ["time.sleep(600)", "while True: pass"])
async def test_a_second_signal_ends_it_while_a_handler_blocks_the_loop(
    start: Start, number: signal.Signals, blocking: str
) -> None:
    daemon = await (
        await start(
            f"""\
            @agent.invoke_handler
            async def invoke(payload, context):
                log.info("entered")
                {blocking}
            """
        )
    ).listening()
    async with daemon.connect() as client:
        await client.send(action="invoke")
        await daemon.line(message="entered")
        async with asyncio.timeout(SOON):
            await daemon.insist(number)
    assert await daemon.exit_code() == 128 + number


# --- the log ----------------------------------------------------------------------------------

TALKING = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        for number in range(10_000):
            log.info("x" * 1000)
"""
"""An agent that writes more than what may wait to be written."""


async def test_nobody_waits_for_whoever_should_read_the_log(start: Start) -> None:
    daemon = await (await start(TALKING)).listening()
    async with daemon.connect() as client:
        for _ in range(3):
            assert (await client.ask(action="invoke"))["type"] == "result"
    daemon.send(signal.SIGTERM)
    assert await daemon.exit_code_unread() == 0


async def test_lines_that_were_lost_are_counted_and_told(start: Start) -> None:
    daemon = await (await start(TALKING)).listening()
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke"))["type"] == "result"
    read = lost = 0
    while read + lost < 10_000:  # the line of the socket may be among the lost ones, too
        line = await daemon.line()
        if told := re.fullmatch(r"(\d+) log lines were lost, as nobody read them", line["message"]):
            lost += int(told[1])
        read += line["logger"] == "test"
    assert lost > 0


async def test_a_process_that_is_forked_off_logs_too(start: Start) -> None:
    source = """\
    import multiprocessing

    @agent.invoke_handler
    async def invoke(payload, context):
        child = multiprocessing.get_context("fork").Process(target=log.info, args=["forked"])
        child.start()
        while child.is_alive():
            await asyncio.sleep(0.01)
        return child.exitcode
    """
    daemon = await (await start(source)).listening()
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke", invocation_id="i"))["payload"] == 0
    line = await daemon.line(message="forked")
    assert line["invocation_id"] == "i"


async def test_it_exits_with_0_although_nobody_is_left_to_read_its_log(start: Start) -> None:
    daemon = await (await start(ECHO)).listening()
    transport = daemon.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined] # noqa: SLF001
    transport.close()
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1
    daemon.send(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await daemon.process.wait() == 0


# --- what cannot hold it up -------------------------------------------------------------------

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
async def test_nothing_holds_it_past_its_grace(start: Start, source: str) -> None:
    daemon = await (await start(source, server__shutdown_grace=0.1)).listening()
    async with daemon.connect() as client:
        await client.send(action="invoke")
        await daemon.line(message="entered")
        started = time.monotonic()
        daemon.send(signal.SIGTERM)
        assert await daemon.exit_code() == 0
        assert time.monotonic() - started < 0.1 + 1 + 3 + SOON


@pytest.mark.parametrize("error", ["SystemExit(5)", "KeyboardInterrupt()"])
@pytest.mark.parametrize("place", ["task", "callback"])
@LOOPS
async def test_what_a_child_of_a_handler_raises_does_not_end_it(
    start: Start, error: str, place: str, event_loop: str
) -> None:
    daemon = await (
        await start(
            f"""\
            def fail():
                log.info("failing")
                raise {error}

            async def child():
                fail()

            @agent.invoke_handler
            async def invoke(payload, context):
                if payload == "task":
                    agent.child = asyncio.create_task(child())
                elif payload == "callback":
                    asyncio.get_running_loop().call_soon(fail)
                return payload
            """,
            server__event_loop=event_loop,
        )
    ).listening()
    async with daemon.connect() as client:
        for _ in range(3):
            assert (await client.ask(action="invoke", payload=place))["payload"] == place
            await daemon.line(message="failing")
            assert (await client.ask(action="invoke", payload=1))["payload"] == 1
    daemon.send(signal.SIGTERM)
    assert await daemon.exit_code() == 0


@LOOPS
async def test_a_handler_that_stops_the_loop_does_not_end_it(start: Start, event_loop: str) -> None:
    daemon = await (
        await start(
            """\
            @agent.invoke_handler
            async def invoke(payload, context):
                asyncio.get_running_loop().stop()
                await asyncio.sleep(0.01)
                return payload
            """,
            server__event_loop=event_loop,
        )
    ).listening()
    async with daemon.connect() as client:
        for number in range(3):
            assert (await client.ask(action="invoke", payload=number))["payload"] == number
        line = await daemon.line(logger="agentws.daemon")
        assert (line["level"], "stopped the event loop" in line["message"]) == ("ERROR", True)
        daemon.send(signal.SIGTERM)
        assert (await client.receive())["type"] == "going_away"
    assert await daemon.exit_code() == 0
    assert await daemon.complaints() == ""


async def test_a_handler_that_cancels_all_tasks_does_not_end_it(start: Start) -> None:
    daemon = await (
        await start(
            """\
            @agent.invoke_handler
            async def invoke(payload, context):
                for task in asyncio.all_tasks():
                    task.cancel()
            """
        )
    ).listening()
    async with daemon.connect() as client:
        await client.send(action="invoke")
        await client.connection.wait_closed()
    async with daemon.connect() as client:
        assert (await client.ask(action="ping"))["type"] == "pong"
    daemon.send(signal.SIGTERM)
    assert await daemon.exit_code() == 0
    assert await daemon.complaints() == ""


async def test_a_handler_that_raises_system_exit_does_not_end_it(start: Start) -> None:
    daemon = await (
        await start(
            """\
            @agent.invoke_handler
            async def invoke(payload, context):
                sys.exit(3)
            """
        )
    ).listening()
    async with daemon.connect() as client:
        for _ in range(2):
            assert (await client.ask(action="invoke"))["error"]["code"] == "internal_error"
    daemon.send(signal.SIGTERM)
    assert await daemon.exit_code() == 0


# --- a start that fails -----------------------------------------------------------------------


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


async def test_a_port_that_is_taken_ends_it_with_2_and_one_sentence(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        daemon = await start(ECHO, port=port)
        assert await daemon.exit_code() == 2
    complaints = await daemon.complaints()
    assert complaints.startswith("agentws: ")
    assert f"127.0.0.1 port {port}" in complaints
    assert len(complaints.splitlines()) == 1


@SIGNALS
async def test_a_signal_during_a_slow_start_ends_it_with_0(
    start: Start, number: signal.Signals
) -> None:
    daemon = await start(
        """\
        @agent.startup_handler
        async def begin():
            log.info("starting")
            await asyncio.sleep(600)
        """
    )
    await daemon.line(message="starting")
    started = time.monotonic()
    daemon.send(number)
    assert await daemon.exit_code() == 0
    assert time.monotonic() - started < SOON
    assert await daemon.complaints() == ""


SLOW_IMPORTS = {
    "blocking": "time.sleep(600)",
    "computing": """\
while True:
    pass
""",
    "swallowing what is raised": """\
try:
    time.sleep(600)
except BaseException:
    pass
""",
    "with a thread of its own": """\
threading.Thread(target=time.sleep, args=[600]).start()
time.sleep(600)
""",
}
IMPORTING = 'print(\'{"message": "importing"}\', flush=True)\n'


@SIGNALS
@pytest.mark.parametrize("source", SLOW_IMPORTS.values(), ids=SLOW_IMPORTS)
async def test_a_signal_while_the_agent_is_imported_ends_it_with_0(
    start: Start, number: signal.Signals, source: str
) -> None:
    daemon = await start(IMPORTING + source)
    await daemon.line(message="importing")
    daemon.send(number)
    async with asyncio.timeout(PATIENCE):
        assert await daemon.exit_code() == 0
    assert await daemon.complaints() == ""


async def test_a_second_signal_ends_an_import_that_ignores_the_first(start: Start) -> None:
    source = """\
while True:
    try:
        print('{"message": "importing"}', flush=True)
        time.sleep(600)
    except BaseException:
        pass
"""
    daemon = await start(source)
    await daemon.line(message="importing")
    await daemon.insist(signal.SIGTERM)
    assert await daemon.exit_code() == 143


async def test_a_signal_while_process_1_imports_the_agent_ends_it_with_0(start: Start) -> None:
    need("unshare", as_root=True)
    daemon = await start(IMPORTING + "time.sleep(600)", prefix=PROCESS_1)
    await daemon.line(message="importing")
    os.kill(child_of(daemon), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await daemon.exit_code() == 0


PROCESS_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""What runs a command as process number 1 among its own, whose unhandled signals are dropped."""


def child_of(daemon: Daemon) -> int:
    pid = daemon.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


async def test_a_second_signal_during_a_start_that_blocks_ends_it(start: Start) -> None:
    daemon = await start(
        """\
        @agent.startup_handler
        async def begin():
            log.info("starting")
            time.sleep(600)
        """
    )
    await daemon.line(message="starting")
    async with asyncio.timeout(SOON):
        await daemon.insist(signal.SIGTERM)
    assert await daemon.exit_code() == 143


async def test_the_log_tells_what_starts_and_with_what(start: Start) -> None:
    with running_redis("--requirepass", "hunter2") as redis:
        url = f"redis://:hunter2@127.0.0.1:{redis.port}/0"
        daemon = await start(ECHO, store__url=url, invocations__max_running=7)
        line = await daemon.line(logger="agentws.server")
    assert (line["version"], line["python"]) == (__version__, platform.python_version())
    assert (line["handler"], line["config_file"]) == ("agent:agent", "")
    assert line["store"] == f"redis://***@127.0.0.1:{redis.port}/0"
    assert len(line["replica"]) == 36
    assert line["settings"].items() >= {"invocations.max_running": "7"}.items()
    assert "invocations.max_retained" not in line["settings"]
    assert "hunter2" not in str(line)


async def test_the_log_tells_what_has_become_of_invocations_at_the_end(start: Start) -> None:
    source = """
        @agent.invoke_handler
        async def invoke(payload, context):
            try:
                await asyncio.sleep(payload["seconds"])
            except asyncio.CancelledError:
                if payload["obeys"]:
                    raise
                await asyncio.sleep(600)
    """
    options = {"server__shutdown_grace": 1, "invocations__cancel_grace": 0.2}
    daemon = await (await start(source, **options)).listening()
    async with daemon.connect() as client:
        for seconds, obeys in ((0.5, True), (600, True), (600, True), (600, False)):
            payload = {"seconds": seconds, "obeys": obeys}
            await client.send(action="invoke", payload=payload, background=True)
            await client.until(type="accepted")
        daemon.send(signal.SIGTERM)
        line = await daemon.line(given_up=1)
    assert (line["ended"], line["cancelled"], line["level"]) == (1, 2, "INFO")


async def test_probes_answer_while_it_runs(start: Start) -> None:
    daemon = await (await start(ECHO)).listening()
    async with aiohttp.ClientSession() as session:
        for path in ("readiness", "liveness"):
            async with session.get(f"http://127.0.0.1:{daemon.port}/{path}") as answer:
                assert answer.status == 200
        async with session.get(f"http://127.0.0.1:{daemon.port}/invocations/i") as answer:
            assert answer.status == 404
    line = await daemon.line(logger="agentws.access")  # of probes, there is none
    assert (line["method"], line["path"], line["status"]) == ("GET", "/invocations/i", 404)
    assert (line["error_code"], line["invocation_id"]) == ("not_found", "i")


# --- stalls -----------------------------------------------------------------------------------


async def test_a_handler_that_blocks_the_loop_is_told(start: Start) -> None:
    source = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        time.sleep(1.5)
        return payload
    """
    daemon = await (await start(source)).listening()
    async with daemon.connect() as client:
        await client.send(action="invoke")
        line = await daemon.line(logger="agentws.stalls")
        assert line["level"] == "WARNING"
        assert line["blocked_by"].endswith("agent.py:9 in invoke")
        assert line["stack"][0] == line["blocked_by"]
        assert (await client.receive())["type"] == "result"


async def test_a_process_that_was_stopped_blames_nobody(start: Start) -> None:
    daemon = await (await start(ECHO)).listening()
    async with daemon.connect() as client:
        assert (await client.ask(action="ping"))["type"] == "pong"
        daemon.send(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        daemon.send(signal.SIGCONT)
        assert (await client.ask(action="ping"))["type"] == "pong"
    daemon.send(signal.SIGTERM)
    assert "agentws.stalls" not in {line["logger"] for line in await daemon.rest()}
