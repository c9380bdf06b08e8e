"""What waits to be exported: bounded in number, and in time at the end."""

import logging
import threading
import time
from collections.abc import Sequence

import pytest

from agentws.telemetry.export_queue import ExportQueue, Limits

PATIENCE = 10.0


class Exporter:
    """Takes records, when it is let."""

    def __init__(self, *, takes: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.called = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._takes = takes

    def export(self, records: Sequence[int]) -> bool:
        """Take a batch."""
        self.batches.append(list(records))
        self.called.release()
        self.may_go_on.wait(PATIENCE)
        return self._takes

    def await_call(self) -> None:
        """Wait for the next batch."""
        assert self.called.acquire(timeout=PATIENCE)


def test_records_go_in_their_order_when_their_time_has_come() -> None:
    exporter = Exporter()
    queue = ExportQueue("numbers", exporter.export, Limits(delay=0.01))
    for number in range(3):
        queue.put(number)
    exporter.await_call()
    queue.close()
    queue.join(PATIENCE)
    assert [number for batch in exporter.batches for number in batch] == [0, 1, 2]
    assert queue.lost == 0


def test_a_full_batch_goes_at_once() -> None:
    exporter = Exporter()
    queue = ExportQueue("numbers", exporter.export, Limits(batch=2, delay=3600))
    for number in range(2):
        queue.put(number)
    exporter.await_call()
    assert exporter.batches == [[0, 1]]
    queue.close()


def test_what_came_while_a_batch_was_sent_waits_for_others() -> None:
    exporter = Exporter()
    exporter.may_go_on.clear()
    queue = ExportQueue("numbers", exporter.export, Limits(batch=2, delay=3600))
    for number in range(2):
        queue.put(number)
    exporter.await_call()  # which holds these two
    queue.put(2)
    exporter.may_go_on.set()
    queue.put(3)
    exporter.await_call()
    queue.close()
    queue.join(PATIENCE)
    assert exporter.batches == [[0, 1], [2, 3]]


def test_what_comes_to_a_full_queue_is_dropped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = Exporter()
    exporter.may_go_on.clear()
    queue = ExportQueue("numbers", exporter.export, Limits(most_held=3, batch=1, delay=3600))
    queue.put(0)
    exporter.await_call()  # which holds the first one
    for number in range(1, 10):
        queue.put(number)
    assert queue.lost == 6
    exporter.may_go_on.set()
    queue.close()
    queue.join(PATIENCE)
    assert exporter.batches == [[0], [1], [2], [3]]


def test_what_is_not_taken_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter(takes=False)
    with caplog.at_level(logging.WARNING):
        queue = ExportQueue("numbers", exporter.export, Limits(delay=3600))
        queue.put(1)
        queue.close()
        queue.join(PATIENCE)
    assert queue.lost == 1
    assert caplog.messages == ["Telemetry is lost: 1 numbers so far"]


def test_an_exporter_that_raises_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def export(records: Sequence[int]) -> bool:
        raise OSError("no way")

    queue = ExportQueue("numbers", export, Limits(batch=1, delay=0.01))
    queue.put(1)
    queue.put(2)
    queue.close()
    queue.join(PATIENCE)
    assert queue.lost == 2


def test_an_exporter_that_hangs_is_not_waited_for() -> None:
    exporter = Exporter()
    exporter.may_go_on.clear()
    queue = ExportQueue("numbers", exporter.export, Limits(batch=1, delay=3600))
    queue.put(1)
    exporter.await_call()
    queue.close()
    began = time.monotonic()
    queue.join(0.05)
    assert time.monotonic() - began < PATIENCE / 2
    queue.put(2)
    assert queue.lost == 1
    exporter.may_go_on.set()


def test_the_sdks_variables_set_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits.of("OTEL_BSP").most_held == 50_000
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "7")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "250")
    assert Limits.of("OTEL_BSP") == Limits(most_held=7, batch=3, delay=0.25)
    assert Limits.of("OTEL_BLRP") == Limits()
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", wrong)
        with pytest.raises(ValueError, match="environment OTEL_BSP_SCHEDULE_DELAY should be"):
            Limits.of("OTEL_BSP")
