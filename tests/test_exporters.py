"""What the exporters say to themselves, and how much of it is heard."""

import logging

import pytest

from agentws.export_queue import THREAD
from agentws.exporters import ExportersAside
from tests.receivers import KEY


def record(message: str, thread: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "azure", "msg": message, "levelno": level, "threadName": thread}
    )


@pytest.mark.parametrize("thread", [f"{THREAD} spans", "OtelPeriodicExportingMetricReader"])
def test_an_exporter_is_heard_once_in_a_while(thread: str) -> None:
    aside = ExportersAside(pause=3600)
    assert not aside.filter(record("chatter", thread, logging.INFO))
    assert aside.filter(record("first", thread))
    assert not aside.filter(record("second", thread, logging.CRITICAL))
    impatient = ExportersAside(pause=0)
    assert all(impatient.filter(record("each", thread)) for _ in range(2))


def test_others_are_always_heard() -> None:
    aside = ExportersAside(pause=3600)
    line = record("mine", "MainThread", logging.DEBUG)
    assert all(aside.filter(line) for _ in range(2))
    assert (line.name, line.getMessage()) == ("azure", "mine")


def test_a_warning_is_short_and_tells_no_secret() -> None:
    line = record(f"Data drop {KEY} at https://u:p@host/v1?api-key=s\n{'x' * 9999}", THREAD)
    line.exc_info = (ValueError, ValueError("private"), None)
    assert ExportersAside().filter(line)
    assert line.getMessage().startswith(
        "Telemetry does not get through: Data drop *** at https://***@host/v1?*** xxx"
    )
    assert len(line.getMessage()) < 400
    assert line.name == "agentws.telemetry"
    assert logging.Formatter().format(line) == line.getMessage()
