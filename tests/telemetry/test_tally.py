"""A tally of the last minute: how well it knows what it was told."""

import pytest

from agentws.telemetry.tally import RecentTimes, Tally


def test_percentiles_are_known_to_a_percent() -> None:
    times = RecentTimes()
    for milliseconds in range(1, 1001):
        times.add(milliseconds / 1000)
    found = times.percentiles(50, 99)
    assert found == {"p50": pytest.approx(0.5, rel=0.011), "p99": pytest.approx(0.99, rel=0.011)}


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.000_3, 7.0, 86_400.0])
def test_one_is_all_there_is(seconds: float) -> None:
    times = RecentTimes()
    times.add(seconds)
    assert times.percentiles(50, 99)["p99"] == pytest.approx(max(seconds, 1e-6), rel=0.011)


def test_what_is_older_than_a_minute_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    times = RecentTimes()
    times.add(1.0)
    now += 30
    times.add(2.0)
    assert times.percentiles(50)["p50"] == pytest.approx(1.0, rel=0.011)
    now += 31
    assert times.percentiles(50)["p50"] == pytest.approx(2.0, rel=0.011)
    now += 61
    assert times.percentiles(50) == {"p50": None}


def test_it_counts_by_how_they_ended() -> None:
    tally = Tally()
    for code in (None, None, "cancelled", "timeout"):
        tally.invocation_ended(0.1, code)
    assert tally.ended == {"completed": 2, "failed": 1, "cancelled": 1}
