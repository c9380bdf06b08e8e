"""`agentws invoke` without a terminal, against real servers: what it prints, and how it exits."""

import array
import asyncio
import fcntl
import json
import os
import re
import select
import signal
import termios
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentws import InvocationContext, InvocationError
from agentws.cli.main import main
from tests.cli.conftest import Agentws, Done, started
from tests.conftest import PATIENCE, Serve
from tests.support.agents import Gate, agent_of, each, echo, soon
from tests.support.certificates import certificate
from tests.support.cutting import cutting
from tests.support.issuer import Issuer, new_ec
from tests.support.misbehaving import Misbehaving
from tests.support.ports import taken_port
from tests.support.proxy import fronted


def said(done: Done) -> tuple[int, str]:
    """Return the exit code and what was printed, where there was nothing to complain of."""
    assert done.err == ""
    return done.code, done.out


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- payloads and what is printed ---


async def test_a_result_is_a_line_of_json(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(echo))
    assert said(await agentws("invoke", server.http, '{"a": 1}')) == (0, '{"a":1}\n')
    assert said(await agentws("invoke", server.http, "hi")) == (0, '{"message":"hi"}\n')
    assert said(await agentws("invoke", server.http)) == (0, "{}\n")
    assert said(await agentws("invoke", server.http, '"just text"')) == (0, "just text\n")


async def test_a_payload_comes_from_stdin(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(echo))
    assert said(await agentws("invoke", server.http, "-", stdin="[1, 2]\n")) == (0, "[1,2]\n")
    done = await agentws("invoke", server.http, "-", stdin="what is\nnew\n")
    assert said(done) == (0, '{"message":"what is\\nnew"}\n')


async def test_texts_are_joined_and_all_else_is_a_line(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(each))
    chunks = ["Owls ", {"token": "see "}, {"text": "at "}, {"delta": "nig"}, {"content": "ht"}]
    done = await agentws("invoke", server.http, json.dumps([*chunks, {"usage": 5}, 7, "end"]))
    assert said(done) == (0, 'Owls see at night\n{"usage":5}\n7\nend\n')


@pytest.mark.parametrize(
    "form",
    [
        *("127.0.0.1:{}", "LOCALHOST:{}", "localhost:{}?a=b", "ws://127.0.0.1:{}"),
        "{ws}/invocations_ws/ws",
    ],
)
async def test_forms_of_the_url(agentws: Agentws, serve: Serve, form: str) -> None:
    server = await serve(agent_of(echo))
    url = form.format(server.port, ws=server.ws)
    assert said(await agentws("invoke", url, "7")) == (0, "7\n")


async def test_json_has_a_line_for_each_chunk_and_one_for_the_end(
    agentws: Agentws, serve: Serve
) -> None:
    server = await serve(agent_of(each))
    done = await agentws("invoke", server.http, '["a", {"b": 1}]', "--json", "--id", "i1")
    assert lines(said(done)[1]) == [
        {"type": "chunk", "number": 1, "payload": "a"},
        {"type": "chunk", "number": 2, "payload": {"b": 1}},
        {
            "type": "end",
            "number": 2,
            "payload": None,
            "status": "completed",
            "invocation_id": "i1",
        },
    ]


async def test_frames_are_printed_both_ways(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(each))
    done = await agentws("invoke", server.http, '["a"]', "--frames", "--session", "s1")
    frames = [(line[0], json.loads(line[1:])) for line in said(done)[1].splitlines()]
    assert [(way, frame.get("action") or frame["type"]) for way, frame in frames] == [
        ("→", "invoke"),
        ("←", "accepted"),
        ("←", "stream_chunk"),
        ("←", "stream_end"),
    ]
    assert {frame["session_id"] for _, frame in frames} == {"s1"}


async def test_it_says_how_an_invocation_failed(agentws: Agentws, serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        yield "half"
        raise InvocationError("out_of_owls", "There are none left")

    server = await serve(agent_of(invoke))
    done = await agentws("invoke", server.http)
    assert done == (
        1,
        "half\n",
        "agentws: out_of_owls: There are none left. Correct what was asked.\n",
    )
    done = await agentws("invoke", server.http, "--json")
    assert (done.code, lines(done.out)[-1]["status"]) == (1, "failed")
    assert lines(done.out)[-1]["error"]["code"] == "out_of_owls"


HOSTILE = "\x1b]0;title\x07\x1b[31mred\r\x00\x9b2J\x7f"


async def hostile(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    """Say what a terminal would obey."""
    yield {"token": f"{HOSTILE}\n"}
    raise InvocationError("bad", f"{HOSTILE}\nagentws: all is well")


async def test_output_that_goes_elsewhere_is_as_it_came(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(hostile))
    done = await agentws("invoke", server.http)
    assert (done.code, done.out.encode()) == (1, f"{HOSTILE}\n".encode())
    assert done.err.count("\n") == 1  # a message makes no line that looks like one of ours
    assert not set("\x1b\x07\x00\x9b\x7f\r") & set(done.err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("flags", [["--json"], [], ["--list"]])
async def test_a_disk_that_is_full(serve: Serve, tmp_path: Path, flags: list[str]) -> None:
    server = await serve(agent_of(echo))
    full = os.open("/dev/full", os.O_WRONLY)
    async with started("invoke", server.http, *flags, folder=tmp_path, stdout=full) as process:
        os.close(full)
        async with asyncio.timeout(PATIENCE):
            _, err = await process.communicate()
    sentence = "what is to be printed cannot be written: No space left on device"
    nothing_listed = flags == ["--list"]
    assert (process.returncode, err.decode()) == (
        (0, "") if nothing_listed else (1, f"agentws: {sentence}\n")
    )


# --- invocations that there are ---


async def test_in_the_background_and_back(agentws: Agentws, serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate.stream))
    done = await agentws("invoke", server.http, '["a", "b", "c"]', "--background", "--id", "i1")
    assert (done.code, done.out) == (0, "i1\n")
    assert (
        done.err == f"agentws: it runs; follow it with: agentws invoke {server.http} --attach i1\n"
    )
    await soon(gate.entered)
    gate.opened.set()
    assert said(await agentws("invoke", server.http, "--attach", "i1")) == (0, "abc\n")
    done = await agentws("invoke", server.http, "--attach", "i1", "--starting-after", "2")
    assert said(done) == (0, "c\n")

    code, record = said(await agentws("invoke", server.http, "--get", "i1"))
    assert (code, json.loads(record)["status"]) == (0, "completed")
    code, listed = said(await agentws("invoke", server.http, "--list"))
    assert (code, listed.split()[:2]) == (0, ["i1", "completed"])
    code, listed = said(await agentws("invoke", server.http, "--list", "--json"))
    assert [record["invocation_id"] for record in lines(listed)] == ["i1"]
    assert said(await agentws("invoke", server.http, "--list", "--session", "other")) == (0, "")


async def test_cancel(agentws: Agentws, serve: Serve) -> None:
    gate = Gate()
    server = await serve(agent_of(gate))
    await agentws("invoke", server.http, "--background", "--id", "i1")
    code, answer = said(await agentws("invoke", server.http, "--cancel", "i1"))
    assert (code, json.loads(answer)["status"]) == (0, "cancelled")
    assert gate.cancelled.is_set()
    done = await agentws("invoke", server.http, "--cancel", "i1")
    assert (done.code, done.err.split(": ")[1]) == (1, "already_finished")
    done = await agentws("invoke", server.http, "--attach", "i1")
    assert (done.code, done.err.split(": ")[1]) == (1, "cancelled")


async def test_an_id_that_is_taken_says_what_to_do(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(echo))
    await agentws("invoke", server.http, "--id", "i1")
    done = await agentws("invoke", server.http, "--id", "i1")
    assert done.code == 1
    assert "already_exists" in done.err
    assert "--attach i1" in done.err


async def test_a_gap_says_where_to_go_on(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(each), invocations={"replay_bytes": 10})
    payload = json.dumps(["x" * 8] * 3)
    await agentws("invoke", server.http, payload, "--background", "--id", "i1")
    done = await agentws("invoke", server.http, "--attach", "i1")
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith("Go on from what is left with --starting-after 2.\n")
    done = await agentws("invoke", server.http, "--attach", "i1", "--starting-after", "2")
    assert said(done) == (0, f"{'x' * 8}\n")


# --- questions, with nobody there ---


async def ask_twice(_: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    """Ask two questions, and stream the answers."""
    yield "Well. "
    yield await context.ask({"text": "May I?"}, schema={"type": "string"})
    yield await context.ask("Really?", type=str)


async def test_a_question_prints_the_command_that_answers_it(
    agentws: Agentws, serve: Serve
) -> None:
    server = await serve(agent_of(ask_twice))
    done = await agentws("invoke", server.http, "--id", "i1")
    assert (done.code, done.out) == (1, "Well. \n"[:-1])
    asked, command = done.err.splitlines()
    assert asked == "agentws: the agent asks: May I?"
    words = command.removeprefix("agentws: answer with: agentws ").split()
    assert words[:5] == ["invoke", server.http, "--attach", "i1", "--answer"]
    assert words[6:] == ["--starting-after", "2", "PAYLOAD"]

    done = await agentws(*words[:-1], '"Yes, "')
    assert (done.code, done.out) == (1, "Yes, ")
    command = done.err.splitlines()[1]
    words = command.removeprefix("agentws: answer with: agentws ").split()
    assert said(await agentws(*words[:-1], '"you may."')) == (0, "you may.\n")

    # What was asked and answered is asked nobody any more who follows from the beginning.
    done = await agentws("invoke", server.http, "--attach", "i1")
    assert said(done) == (0, "Well. Yes, you may.\n")
    done = await agentws(*words[:-1], '"late"')
    assert (done.code, done.err.split(": ")[1]) == (1, "already_finished")


async def test_a_question_is_a_line_of_json(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(ask_twice))
    done = await agentws("invoke", server.http, "--json")
    assert done.code == 1
    _, question = lines(done.out)
    assert question == {
        "type": "question",
        "number": 2,
        "payload": {"text": "May I?"},
        "request_id": question["request_id"],
        "schema": {"type": "string"},
    }
    assert f"--answer {question['request_id']}" in done.err


# --- what breaks ---


async def test_a_stream_that_is_cut_is_resumed(agentws: Agentws, serve: Serve) -> None:
    async def invoke(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
        for number in range(1, 10):
            yield number
            if number in (3, 6):
                cutter.cut_all()

    server = await serve(agent_of(invoke))
    async with cutting([server], seed=1) as cutter:
        cutter.is_calm = True  # but for what the agent does
        done = await agentws("invoke", cutter.http)
    assert (done.code, done.out) == (0, "".join(f"{number}\n" for number in range(1, 10)))
    assert "agentws: the connection was lost; reconnecting\n" in done.err
    assert re.search(r"agentws: reconnected after \d\.\d s and \d attempts?; resuming\n", done.err)


async def test_a_server_that_does_not_come_back(agentws: Agentws) -> None:
    """The run is left to the server, and it is said how to get back to it."""
    scenario = {
        "name": "gone",
        "connections": [
            {
                "steps": [
                    {"expect": {"action": "invoke"}},
                    {"send": {"type": "accepted", "invocation_id": "i1", "query_id": "1"}},
                    {"chunks": {"id": "i1", "from": 1, "to": 2}},
                    {"drop": True},
                ]
            },
            {"refuse": {"status": 401}},
        ],
    }
    server = Misbehaving(scenario)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        done = await agentws("invoke", f"localhost:{server.port}", "--id", "i1", "--json")
    assert server.failures == []
    assert (done.code, [line["payload"] for line in lines(done.out)]) == (1, [1, 2])
    command = f"agentws invoke localhost:{server.port} --attach i1 --starting-after 2"
    assert "401 (Unauthorized)" in done.err
    assert done.err.endswith(f"Attach with: {command}\n")


async def endless(payload: Any, context: InvocationContext) -> AsyncGenerator[Any, None]:
    """Stream lines without end."""
    while True:
        yield {"line": 1}
        await asyncio.sleep(0)


async def test_a_reader_that_has_enough(serve: Serve, tmp_path: Path) -> None:
    server = await serve(agent_of(endless))
    reader, writer = os.pipe()
    async with started("invoke", server.http, folder=tmp_path, stdout=writer) as process:
        os.close(writer)
        assert await asyncio.to_thread(os.read, reader, 11) == b'{"line":1}\n'
        os.close(reader)
        async with asyncio.timeout(PATIENCE):
            _, err = await process.communicate()
        assert err == b""
        assert process.returncode == 1


async def test_interrupts_reach_it_while_nobody_reads_what_it_prints(
    serve: Serve, tmp_path: Path
) -> None:
    server = await serve(agent_of(endless))
    reader, writer = os.pipe()
    async with started("invoke", server.http, folder=tmp_path, stdout=writer) as process:
        os.close(writer)
        assert process.stderr is not None
        await asyncio.to_thread(wait_until_full, reader)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            assert b"cancelling" in await process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert b"left running; attach with: agentws invoke" in await process.stderr.readline()
            assert await process.wait() == 1
    os.close(reader)


def wait_until_full(reader: int) -> None:
    """Wait until a pipe has no room for another page."""
    size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
    ready = array.array("i", [0])
    while ready[0] <= size - 2 * select.PIPE_BUF:
        fcntl.ioctl(reader, termios.FIONREAD, ready)
        time.sleep(0.01)


async def test_an_interrupt_before_anything_is_done(tmp_path: Path) -> None:
    """It ends by the signal, without a word, so that the loop of a shell ends, too."""
    async with started("invoke", "localhost:1", "-", folder=tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(b" " * 1_000_000)
        async with asyncio.timeout(PATIENCE):
            await process.stdin.drain()  # it reads, then
            process.send_signal(signal.SIGINT)
            assert await process.wait() == -signal.SIGINT
            assert process.stderr is not None
            assert await process.stderr.read() == b""


# --- no connection, and who may ---


async def test_no_connection(agentws: Agentws) -> None:
    with taken_port() as port:
        pass
    done = await agentws("invoke", f"localhost:{port}", "--connect-timeout", "0.3")
    assert done == (
        2,
        "",
        f"agentws: No connection: localhost:{port} cannot be reached (Connection refused). "
        "Check the URL and that the server runs.\n",
    )


async def test_nobody_answers(agentws: Agentws) -> None:
    with taken_port() as port:
        done = await agentws("invoke", f"http://127.0.0.1:{port}", "--connect-timeout", "0.3")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("agentws: No answer within 0.3")


async def test_a_server_that_speaks_no_tls(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(echo))
    url = f"https://localhost:{server.port}"
    done = await agentws("invoke", url, "--connect-timeout", "0.3")
    assert (done.code, done.out) == (2, "")
    assert f"localhost:{server.port} speaks no TLS that we understand (" in done.err


async def test_a_certificate_that_nobody_has_signed(
    agentws: Agentws, serve: Serve, tmp_path: Path
) -> None:
    server = await serve(agent_of(echo))
    async with fronted(server, ssl=certificate(tmp_path)) as front:
        url = f"https://localhost:{front.port}"
        done = await agentws("invoke", url, "--connect-timeout", "0.3")
        assert (done.code, done.out) == (2, "")
        assert "does not convince (self-signed certificate)" in done.err
        done = await agentws("invoke", url, "7", SSL_CERT_FILE=str(tmp_path / "server.pem"))
    assert said(done) == (0, "7\n")


async def test_a_key(agentws: Agentws, serve: Serve) -> None:
    server = await serve(agent_of(echo), auth={"api_keys": ["key1"]})
    assert said(await agentws("invoke", server.http, "7", "--api-key", "key1")) == (0, "7\n")
    header = "authorization: Bearer key1"
    assert said(await agentws("invoke", server.http, "7", "--header", header)) == (0, "7\n")
    done = await agentws("invoke", server.http, "7", "--api-key", "key2")
    assert done == (
        2,
        "",
        "agentws: The server answered the handshake with 401 (Unauthorized). "
        "Give a key or token that it takes: --api-key, --token-command.\n",
    )


async def test_a_token_command(agentws: Agentws, serve: Serve, tmp_path: Path) -> None:
    issuer = await Issuer.start({"first": new_ec()})
    server = await serve(agent_of(echo), auth=issuer.settings)
    (tmp_path / "token").write_text(issuer.token() + "\n")
    done = await agentws("invoke", server.http, "7", "--token-command", "cat token")
    await issuer.stop()
    assert said(done) == (0, "7\n")
    done = await agentws("invoke", server.http, "7", "--token-command", "echo oh >&2; exit 3")
    assert done == (2, "", "oh\nagentws: --token-command ended with exit code 3\n")
    done = await agentws("invoke", server.http, "7", "--token-command", "true")
    assert (done.code, done.err) == (
        2,
        "agentws: --token-command should print a token, on one line\n",
    )


# --- usage ---


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--attach a --get b", "--attach and --get exclude one another"),
        ("--json --frames", "--json and --frames exclude one another"),
        ("--starting-after 3", "--starting-after can only be given with --attach"),
        ("7 --answer q", "--answer can only be given with --attach"),
        ("--attach a --answer q", "--answer and PAYLOAD are given together"),
        ("7 --attach a", "--answer and PAYLOAD are given together"),
        ("--attach a --background", "--background cannot be given with --attach"),
        ("7 --get a --session s", "PAYLOAD and --session cannot be given with --get"),
        ("--id ..", "an id has 1 to 256 characters"),
        ("--starting-after -1 --attach a", "-1 is not in the range"),
        ("--header nonsense", "'nonsense' does not look like 'Name: value'"),
        ("--connect-timeout 0", "0.0 is not in the range"),
    ],
)
def test_bad_usage(arguments: str, complaint: str) -> None:
    done = CliRunner().invoke(main, ["invoke", "localhost:1", *arguments.split()])
    assert (done.exit_code, done.stdout) == (2, "")
    assert complaint in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        *("", "ftp://host", "example.com", "example.com:80", "http://", "ws://h:x", "http://h:0"),
        *("localhost:99999", "http://[::1", "http://..", f"http://{'a' * 64}.example"),
    ],
)
def test_a_url_that_is_none(url: str) -> None:
    done = CliRunner().invoke(main, ["invoke", url])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("agentws: URL")
    assert repr(url) in done.stderr
