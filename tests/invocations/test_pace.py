"""How streams share the event loop whose agents await nothing (§5)."""

import pytest

from agentws.invocations.pace import MOST, next_share


def after(waits: list[float]) -> float:
    share = MOST
    for waited in waits:
        share = next_share(share, waited)
    return share


def test_a_lone_stream_has_all_that_there_is() -> None:
    assert after([0.00005] * 10) == MOST
    assert after([0.0] * 10) == MOST


def test_a_stream_among_hundreds_leaves_the_turn_to_them() -> None:
    assert after([0.05, 0.05, 0.05]) < MOST / 100


def test_a_stream_that_the_others_have_left_is_as_quick_as_before() -> None:
    assert after([0.05] * 100 + [0.00005] * 3) == MOST


def test_streams_of_equal_shares_come_to_rest_where_a_turn_is_a_millisecond() -> None:
    share = MOST
    for _ in range(20):
        share = next_share(share, 20 * share)
    assert 20 * share == pytest.approx(0.001)
