"""Delays and patience."""

import random
from datetime import UTC, datetime

import pytest

from agentws.client.backoff import Backoff, Patience, parse_retry_after


def test_bounds_double_up_to_the_longest() -> None:
    backoff = Backoff(1, chance=lambda: 1.0)
    assert [backoff.next() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1, 1]
    backoff.reset()
    assert backoff.next() == 0.1


def test_the_jitter_is_full() -> None:
    chance = random.Random(7)
    backoff = Backoff(10, chance=chance.random)
    delays = [Backoff(10, chance=chance.random).next() for _ in range(1000)]
    assert min(delays) < 0.001
    assert 0.045 < sum(delays) / len(delays) < 0.055
    assert max(delays) <= 0.1
    assert all(backoff.next() <= 10 for _ in range(100))


def test_a_longest_delay_below_the_shortest() -> None:
    backoff = Backoff(0.05, chance=lambda: 1.0)
    assert [backoff.next() for _ in range(3)] == [0.05, 0.05, 0.05]


def test_what_the_server_says_wins() -> None:
    backoff = Backoff(1, chance=lambda: 0.0)
    assert backoff.next(30) == 30
    assert backoff.next(0) == 0
    assert backoff.next() == 0


def test_patience_counts_from_where_it_begins() -> None:
    patience = Patience(10)
    assert patience.left(100) == 10
    patience.begin(100)
    patience.begin(105)
    assert patience.left(107) == 3
    assert patience.left(111) == -1
    patience.reset()
    assert patience.left(200) == 10


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 01:00:30 +0100", 30),
        ("Thu, 01 Jan 2026 00:00:30 -0000", 30),
        ("Thu, 01 Jan 2025 00:00:00 GMT", 0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 400, None),
        ("Thu, 99 Jan 2026 00:00:30 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds
