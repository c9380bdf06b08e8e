"""Log lines: what stands in them, and where they go."""

import asyncio
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.context import attach, set_value

from agentws.agent.context import InvocationContext
from agentws.telemetry.log_output import MOST_WAITING, LogOutput
from agentws.telemetry.logs import configure
from agentws.telemetry.trace_context import INVOCATION
from tests.conftest import PATIENCE

Line = dict[str, Any]

LOGGER = logging.getLogger("some.agent")


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    """Let a test configure the logging of the process, and put it back as it was."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers
    root.handlers = []
    yield
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(level)


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def written(capsys: pytest.CaptureFixture[str]) -> str:
    """End the log, and return all of it."""
    for handler in logging.getLogger().handlers:
        assert handler.output.close(PATIENCE)  # type: ignore[attr-defined]
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def lines(capsys: pytest.CaptureFixture[str]) -> list[Line]:
    """End the log, and return its lines."""
    *found, rest = written(capsys).split("\n")
    assert rest == ""
    return [json.loads(line, parse_constant=refuse_constant) for line in found]


def test_a_line_has_time_level_logger_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    LOGGER.warning("It is %d o'clock", 5)
    (line,) = lines(capsys)
    age = datetime.now(UTC) - datetime.fromisoformat(line.pop("timestamp"))
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert line == {"level": "WARNING", "logger": "some.agent", "message": "It is 5 o'clock"}


def test_fields_stand_flat_beside_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    fields = {"azure.ai.close_code": 1000, "duration_ms": 1.5, "nested": {"a": [1]}, "none": None}
    LOGGER.info("closed", extra=fields)
    (line,) = lines(capsys)
    assert {name: line[name] for name in fields} == fields


@pytest.mark.parametrize(
    "value",
    [
        object(),
        datetime.now(UTC),
        ValueError("x"),
        {1, 2},
        b"\xff",
        "\ud800",
        float("nan"),
        [float("inf")],
        2**100,
        {("a", "tuple"): 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_line_is_json_whatever_its_fields(
    capsys: pytest.CaptureFixture[str], value: object
) -> None:
    configure("info", "json")
    LOGGER.info("odd", extra={"value": value})
    (line,) = lines(capsys)
    assert line["message"] == "odd"


def test_a_dict_in_place_of_a_message_gives_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    said = {"step": 3, "exc_info": "mine"}
    LOGGER.info(said, exc_info=ValueError("x"), extra={"model": "m"})
    (line,) = lines(capsys)
    assert (line["message"], line["step"], line["model"]) == ("", 3, "m")
    assert (line["exc_info"], said) == ("mine", {"step": 3, "exc_info": "mine"})


@pytest.mark.parametrize("message", ["one\ntwo\r\nthree", "é \U0001f600 \u2028", "\ud800\n"])
def test_a_message_is_one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    configure("info", "json")
    LOGGER.info(message)
    (line,) = lines(capsys)
    assert line["message"] == message


def test_an_exception_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        raise LookupError("no model")
    except LookupError:
        LOGGER.exception("It failed")
    (line,) = lines(capsys)
    assert line["message"] == "It failed"
    assert line["exc_info"].startswith("Traceback")
    assert line["exc_info"].endswith("LookupError: no model")


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["DEBUG", "INFO", "WARNING", "ERROR"]),
        ("info", ["INFO", "WARNING", "ERROR"]),
        ("warning", ["WARNING", "ERROR"]),
        ("ERROR", ["ERROR"]),
    ],
)
def test_lines_below_the_level_are_not_written(
    capsys: pytest.CaptureFixture[str], level: str, written: list[str]
) -> None:
    configure(level, "json")
    LOGGER.debug("m")
    LOGGER.info("m")
    LOGGER.warning("m")
    LOGGER.error("m")
    assert [line["level"] for line in lines(capsys)] == written


def test_text_for_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    LOGGER.info("It is %d o'clock", 5)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    some\.agent: It is 5 o'clock\n", written(capsys))


UNPRINTABLE = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)]


@pytest.mark.parametrize("line_format", ["json", "text"])
@pytest.mark.parametrize("place", ["message", "argument", "exception", "field", "odd field"])
def test_no_control_character_reaches_the_log(
    capsys: pytest.CaptureFixture[str], line_format: str, place: str
) -> None:
    configure("info", line_format)
    text = "".join(UNPRINTABLE)
    match place:
        case "message":
            LOGGER.info(text)
        case "argument":
            LOGGER.info("It said %s", text)
        case "exception":
            LOGGER.info("It failed", exc_info=ValueError(text), stack_info=True)
        case _:
            LOGGER.info("m", extra={"said": text, "odd": {1, text} if "odd" in place else None})
    log = written(capsys)
    assert not set(UNPRINTABLE) - {"\n"} & set(log)
    first, *rest = log.removesuffix("\n").split("\n")
    assert all(line.startswith("  ") for line in rest)
    assert not rest or (line_format, place) == ("text", "exception")
    if line_format == "json" and "field" in place:
        assert json.loads(first)["said"] == text


def test_text_shows_what_was_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text")
    LOGGER.info("a\n12:00:00 INFO b\x1b[2J\x9b")
    assert written(capsys).endswith(r": a\n12:00:00 INFO b\x1b[2J\x9b" + "\n")


def test_configuring_again_replaces_what_was(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "text").close(PATIENCE)
    configure("info", "json")
    LOGGER.info("once")
    assert [line["message"] for line in lines(capsys)] == ["once"]


def test_warnings_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Mind the gap", UserWarning, stacklevel=1)
    (line,) = lines(capsys)
    assert (line["level"], line["logger"]) == ("WARNING", "py.warnings")
    assert "UserWarning: Mind the gap" in line["message"]


# Whoever reads it


@pytest.fixture
def pipe() -> Iterator[tuple[LogOutput, Callable[[], str]]]:
    """A log that is written to a pipe, and what reads from there."""
    end, written_to = os.pipe()
    with os.fdopen(written_to, "w") as stream:
        yield LogOutput(stream), lambda: os.read(end, 1 << 20).decode()
    os.close(end)


def test_a_log_that_nobody_reads_is_bounded_and_holds_nobody_up(
    pipe: tuple[LogOutput, Callable[[], str]],
) -> None:
    log, read = pipe
    line = "x" * 99_999 + "\n"
    for _ in range(3 * MOST_WAITING // len(line)):
        log.write(line)
    assert not log.close(0.01)
    taken = read()
    while not log.close(0.01):
        taken += read()
    taken += read()
    assert set(taken.splitlines()) == {line[:-1]}
    assert MOST_WAITING <= len(taken) < MOST_WAITING + len(line)


def test_a_line_that_is_longer_than_what_may_wait_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    LOGGER.info("x" * 2 * MOST_WAITING)
    assert lines(capsys)[0]["message"] == "x" * 2 * MOST_WAITING


def test_lines_are_written_at_once_when_the_thread_has_ended(
    pipe: tuple[LogOutput, Callable[[], str]],
) -> None:
    log, read = pipe
    log.write("one\n")
    assert log.close(PATIENCE)
    log.write("two\n")
    assert read() == "one\ntwo\n"


# Inside an invocation


async def test_lines_tell_in_which_invocation_they_were_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    both_run = asyncio.Barrier(2)

    async def serve(invocation_id: str, logger: logging.Logger) -> None:
        context = InvocationContext(invocation_id, f"session of {invocation_id}")
        attach(set_value(INVOCATION, context))
        await both_run.wait()
        logger.info("inside")
        await asyncio.create_task(deeper(logger))

    async def deeper(logger: logging.Logger) -> None:
        logger.info("deeper")

    LOGGER.info("before")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve("a", logging.getLogger("one")))
        tasks.create_task(serve("b", logging.getLogger("another.one")))
    LOGGER.info("after")

    told = {
        (line["logger"], line["message"], line.get("invocation_id"), line.get("session_id"))
        for line in lines(capsys)
    }
    assert told == {
        ("some.agent", "before", None, None),
        ("one", "inside", "a", "session of a"),
        ("one", "deeper", "a", "session of a"),
        ("another.one", "inside", "b", "session of b"),
        ("another.one", "deeper", "b", "session of b"),
        ("some.agent", "after", None, None),
    }


def test_outside_of_an_invocation_the_fields_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    LOGGER.info("outside")
    (line,) = lines(capsys)
    assert not {"invocation_id", "session_id"} & line.keys()
