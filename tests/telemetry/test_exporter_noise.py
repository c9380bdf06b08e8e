"""What the exporters say to themselves, and how much of it is heard."""

import logging

from agentws.telemetry.export_queue import as_exporter
from agentws.telemetry.exporter_noise import ExportersAside
from tests.support.receivers import KEY


def record(message: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "azure", "msg": message, "levelno": level})


def test_an_exporter_is_heard_once_in_a_while() -> None:
    aside, impatient = ExportersAside(pause=3600), ExportersAside(pause=0)
    with as_exporter():
        assert not aside.filter(record("chatter", logging.INFO))
        assert aside.filter(record("first"))
        assert not aside.filter(record("second", logging.CRITICAL))
        assert all(impatient.filter(record("each")) for _ in range(2))


def test_others_are_always_heard() -> None:
    aside = ExportersAside(pause=3600)
    line = record("mine", logging.DEBUG)
    assert all(aside.filter(line) for _ in range(2))
    assert (line.name, line.getMessage()) == ("azure", "mine")


def test_a_warning_is_short_and_tells_no_secret() -> None:
    line = record(f"Data drop {KEY} at https://u:p@host/v1?api-key=s\n{'x' * 9999}")
    line.exc_info = (ValueError, ValueError("private"), None)
    with as_exporter():
        assert ExportersAside().filter(line)
    assert line.getMessage().startswith(
        "Telemetry does not get through: Data drop *** at https://***@host/v1?*** xxx"
    )
    assert len(line.getMessage()) < 400
    assert line.name == "agentws.telemetry"
    assert logging.Formatter().format(line) == line.getMessage()
