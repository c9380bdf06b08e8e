"""Log lines that nobody looks up the code of."""

import logging

import pytest

from agentws.telemetry.event_lines import log_event

_logger = logging.getLogger("tests.events")


def test_an_event_is_a_line_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, _logger.name)
    log_event(_logger, logging.INFO, "%s ended", "it", fields={"status": "completed"})
    _logger.info("%s ended", "it", extra={"status": "completed"})
    ours, other = caplog.records
    look_up = {"pathname", "filename", "module", "lineno", "funcName"}
    moment = {"created", "msecs", "relativeCreated"}
    assert {key for key in vars(other) if vars(ours)[key] != vars(other)[key]} <= look_up | moment


def test_a_level_that_is_off_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, _logger.name)
    log_event(_logger, logging.INFO, "It ended", fields={})
    assert caplog.records == []
