"""The commands, run as processes: what they print where, and how they exit."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agentws import __version__
from agentws.cli.main import main
from agentws.config.options import OPTIONS
from tests.support.ports import taken_port
from tests.support.processes import ROOT

needs_daemon = pytest.mark.skipif(
    importlib.util.find_spec("agentws.daemon") is None, reason="agentws.daemon is not there"
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run Python with `arguments` in an empty folder; keywords add to an environment of ours."""

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": str(ROOT), **environ},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


@pytest.fixture
def agentws(run: Run) -> Run:
    """Run the command line."""
    return lambda *arguments, **environ: run("-m", "agentws", *arguments, **environ)


def assert_refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert (done.returncode, done.stderr) == (2, f"agentws: {sentence}\n")


# Help and usage


def test_help(agentws: Run) -> None:
    done = agentws("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (*main.commands, "Exit codes", "AGENTWS_SERVER__PORT", "_AGENTWS_COMPLETE"):
        assert word in done.stdout


@pytest.mark.parametrize("command", main.commands)
def test_help_of_a_command_has_examples(command: str) -> None:
    done = CliRunner().invoke(main, [command, "--help"])
    assert done.exit_code == 0
    assert re.search(rf"^ +agentws {command}", done.output, re.M)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("agentws inv", "plain,invoke"),
        ("agentws bench --soc", "plain,--sockets"),
        ("agentws dev ./my_ag", "file,./my_ag"),
        ("agentws serve --handler ./my_ag", "file,./my_ag"),
    ],
)
def test_a_shell_completes_commands_options_and_files(run: Run, words: str, found: str) -> None:
    done = run(
        *("-c", "from agentws.cli.main import main; main(prog_name='agentws')"),
        _AGENTWS_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(words.count(" ")),
    )
    assert done.stdout == f"{found}\n"


def test_version(agentws: Run) -> None:
    assert agentws("--version").stdout == f"agentws, version {__version__}\n"


def test_help_imports_nothing_slow(run: Run) -> None:
    program = """if True:
        import json, sys
        from agentws.cli.main import main
        for name in main.commands:
            main([name, "--help"], standalone_mode=False)
        print(json.dumps(list(sys.modules)))
    """
    modules = json.loads(run("-c", program).stdout.splitlines()[-1])
    assert not {"aiohttp", "pydantic", "opentelemetry", "rich"} & set(modules)


def test_invoke_imports_little_more_than_the_client(run: Run) -> None:
    with taken_port() as port:
        arguments = ("invoke", f"localhost:{port}", "--connect-timeout", "0.1")
        done = run("-X", "importtime", "-m", "agentws", *arguments)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "aiohttp" in modules
    assert not {"pydantic", "opentelemetry", "rich", "agentws.daemon.server"} & modules


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["serve", "--prot", "1"], "No such option"),
        (["serve", "--port", "http"], "not a valid integer"),
        (["sevre"], "No such command"),
        (["check", "--config"], "requires an argument"),
    ],
)
def test_wrong_usage(agentws: Run, arguments: list[str], complaint: str) -> None:
    done = agentws(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


@pytest.mark.parametrize("command", ["check", "serve"])
def test_flags_are_those_the_settings_declare(command: str) -> None:
    parameters = main.commands[command].params
    flags = {flag for option in parameters for flag in option.opts} - {"--config", "--connect"}
    assert flags == {option.flag for option in OPTIONS.values() if option.flag}
    helped = [option.help or "" for option in parameters if isinstance(option, click.Option)]
    assert {key for key, option in OPTIONS.items() if option.flag} == {
        key for text in helped for key in re.findall(r"\[(.+)\]", text)
    }


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["invoke", "--help"], ["check"]])
def test_a_disk_that_is_full(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agentws", *arguments],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    sentence = "what is to be printed cannot be written: No space left on device"
    assert (done.returncode, done.stderr) == (1, f"agentws: {sentence}\n")


# check


def test_check_prints_a_line_for_every_key(agentws: Run) -> None:
    done = agentws("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(OPTIONS)
    assert {line.split()[-1] for line in done.stdout.splitlines()} == {"default"}


def test_check_tells_where_values_come_from(agentws: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[store]\nurl = "redis://:hunter2@cache"')
    done = agentws(
        "check", "--config", "config.toml", AGENTWS_SERVER__HOST="::1", WS_KEEPALIVE_INTERVAL="20"
    )
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in done.stdout.splitlines()}
    assert rows["store.url"] == ["redis://***@cache", "config.toml"]
    assert rows["server.host"] == ["::1", "environment AGENTWS_SERVER__HOST"]
    assert rows["websocket.heartbeat"] == ["20", "platform variable WS_KEEPALIVE_INTERVAL"]
    assert "hunter2" not in done.stdout


def test_check_aligns_its_columns_but_for_long_values(agentws: Run) -> None:
    done = agentws("check", AGENTWS_AGENT__NAME="x" * 500)
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert f"  {'x' * 500}  environment" in lines.pop("agent.name")
    assert len(lines) == len(OPTIONS) - 1
    assert len({len(line) for line in lines.values()}) == 1


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_wrong_configuration(agentws: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "config.toml").write_text("[server]\nprot = 1")
    done = agentws(command, "--config", "config.toml")
    assert done.stdout == ""
    assert_refused(
        done, "config.toml: key 'server.prot' is unknown; the nearest known is server.port"
    )


@pytest.mark.parametrize("command", ["check", "serve"])
def test_each_mistake_has_a_line(agentws: Run, command: str) -> None:
    done = agentws(command, AGENTWS_SERVER__PORT="70000", AGENTWS_SERVER__HOTS="x")
    assert done.returncode == 2
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["agentws", "agentws"]


def test_check_takes_the_flags_of_serve(agentws: Run, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("async def invoke(payload, context): ...\n")
    done = agentws("check", "--host", "::1", "--port", "9", "--handler", "./agent.py:invoke")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in done.stdout.splitlines()}
    assert rows["server.host"] == ["::1", "flag --host"]
    assert rows["server.port"] == ["9", "flag --port"]
    assert rows["handler.target"] == ["./agent.py:invoke", "flag --handler"]
    assert done.returncode == 0
    assert agentws("check", "--handler", "./none.py:invoke").returncode == 2


def test_check_tells_what_has_no_effect(agentws: Run) -> None:
    done = agentws("check", AGENTWS_SERVER_PORT="9000")
    assert (done.returncode, done.stderr) == (
        0,
        "agentws: warning: environment: variable 'AGENTWS_SERVER_PORT' is not read; "
        "the nearest known is AGENTWS_SERVER__PORT\n",
    )


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_missing_configuration(agentws: Run, command: str) -> None:
    done = agentws(command, "--config", "none.toml")
    assert_refused(done, "none.toml: cannot be read: No such file or directory")


def test_a_flag_out_of_bounds(agentws: Run) -> None:
    done = agentws("serve", "--port", "70000")
    assert_refused(
        done, "flag --port: server.port should be less than or equal to 65535, not 70000"
    )


# Standard streams that are not there


def test_check_without_stdout_checks(run: Run) -> None:
    assert run("-c", CLOSED.format("1>&-"), "check").returncode == 0


def test_a_refusal_without_stderr_is_an_exit_code(run: Run) -> None:
    assert run("-c", CLOSED.format("2>&-"), "serve", "--port", "70000").returncode == 2


CLOSED = """if True:
    import shlex, subprocess, sys
    command = shlex.join([sys.executable, "-m", "agentws", *sys.argv[1:]])
    sys.exit(subprocess.run(f"exec {{command}} {}", shell=True).returncode)
"""
"""A program that runs the command line with a stream closed, as a shell does it."""


# The handler (agentws.agent)


@pytest.fixture
def broken(tmp_path: Path) -> str:
    (tmp_path / "broken.py").write_text("async def invoke(payload, context): ...\n1 / 0\n")
    return "broken:invoke"


def test_check_imports_the_handler(agentws: Run, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("async def invoke(payload, context): ...\n")
    done = agentws("check", AGENTWS_HANDLER__TARGET="agent:invoke")
    assert (done.returncode, done.stderr) == (0, "")


def test_check_prints_the_configuration_of_a_broken_handler_too(agentws: Run, broken: str) -> None:
    done = agentws("check", AGENTWS_HANDLER__TARGET=broken)
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == len(OPTIONS)


def test_a_broken_handler_is_one_sentence(agentws: Run, broken: str) -> None:
    done = agentws("serve", "--handler", broken)
    assert done.returncode == 2
    assert re.fullmatch(r"agentws: .*broken\.py.*\b2\b.*ZeroDivisionError.*\n", done.stderr)


def test_debug_adds_the_traceback_of_a_broken_handler(agentws: Run, broken: str) -> None:
    done = agentws("serve", "--handler", broken, AGENTWS_SERVER__LOG_LEVEL="debug")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("agentws: ")


# The daemon (agentws.daemon and agentws.server)


@needs_daemon
def test_an_address_in_use_is_one_sentence(agentws: Run) -> None:
    with taken_port() as port:
        done = agentws("serve", "--host", "127.0.0.1", "--port", str(port))
    assert done.returncode == 2
    assert re.fullmatch(rf"agentws: .*{port}.*\n", done.stderr)


@needs_daemon
def test_a_startup_handler_that_raises_is_exit_1(agentws: Run, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(
        "from agentws import Agent\n"
        "agent = Agent()\n"
        "@agent.invoke_handler\n"
        "async def invoke(payload, context): ...\n"
        "@agent.startup_handler\n"
        "async def start(): raise OSError('no model')\n"
    )
    done = agentws("serve", "--host", "127.0.0.1", "--port", "0", "--handler", "agent:agent")
    assert done.returncode == 1
