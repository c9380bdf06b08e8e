"""What the process writes to its log, and what if nobody reads it."""

import asyncio
import platform
import re
import signal

import pytest

from agentws import __version__
from tests.daemon.conftest import ECHO
from tests.support.processes import PATIENCE, Start
from tests.support.redis_server import free_port, running_redis

FIELD = "azure.ai.agentserver.invocations_ws."


async def test_the_log_is_json_with_the_fields_flat(launch: Start) -> None:
    daemon = await launch(
        """\
        @agent.invoke_handler
        async def invoke(payload, context):
            log.info("hello", extra={"colour": "red"})
        """
    )
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


async def test_the_log_tells_what_has_become_of_invocations_at_the_end(launch: Start) -> None:
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
    daemon = await launch(source, **options)
    async with daemon.connect() as client:
        for seconds, obeys in ((0.5, True), (600, True), (600, True), (600, False)):
            payload = {"seconds": seconds, "obeys": obeys}
            await client.send(action="invoke", payload=payload, background=True)
            await client.until(type="accepted")
        daemon.send(signal.SIGTERM)
        line = await daemon.line(given_up=1)
    assert (line["ended"], line["cancelled"], line["level"]) == (1, 2, "INFO")


async def test_what_has_no_effect_is_told_in_the_log(start: Start) -> None:
    daemon = await start(ECHO, server_port=9000)
    line = await daemon.line(level="WARNING")
    assert "'AGENTWS_SERVER_PORT' is not read" in line["message"]
    await daemon.listening()


async def test_what_is_odd_in_what_clients_send_is_not_told_each_time(launch: Start) -> None:
    daemon = await launch(ECHO)
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


async def test_a_process_that_is_forked_off_logs_too(launch: Start) -> None:
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
    daemon = await launch(source)
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke", invocation_id="i"))["payload"] == 0
    line = await daemon.line(message="forked")
    assert line["invocation_id"] == "i"


# --- a log that nobody takes ------------------------------------------------------------------


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
    await daemon.end_well()


TALKING = """\
    @agent.invoke_handler
    async def invoke(payload, context):
        for number in range(10_000):
            log.info("x" * 1000)
"""
"""An agent that writes more than what may wait to be written."""


async def test_nobody_waits_for_whoever_should_read_the_log(launch: Start) -> None:
    daemon = await launch(TALKING)
    async with daemon.connect() as client:
        for _ in range(3):
            assert (await client.ask(action="invoke"))["type"] == "result"
    daemon.send(signal.SIGTERM)
    assert await daemon.exit_code_unread() == 0


async def test_lines_that_were_lost_are_counted_and_told(launch: Start) -> None:
    daemon = await launch(TALKING)
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke"))["type"] == "result"
    read = lost = 0
    while read + lost < 10_000:  # the line of the socket may be among the lost ones, too
        line = await daemon.line()
        if told := re.fullmatch(r"(\d+) log lines were lost, as nobody read them", line["message"]):
            lost += int(told[1])
        read += line["logger"] == "test"
    assert lost > 0


async def test_it_exits_with_0_although_nobody_is_left_to_read_its_log(launch: Start) -> None:
    daemon = await launch(ECHO)
    transport = daemon.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined] # noqa: SLF001
    transport.close()
    async with daemon.connect() as client:
        assert (await client.ask(action="invoke", payload=1))["payload"] == 1
    daemon.send(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await daemon.process.wait() == 0
