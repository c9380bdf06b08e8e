"""Each entry once, in order, whatever comes."""

import random

import pytest

from agentws.client.reception import Reception
from agentws.client.wire import Nonsense


def took(reception: Reception, *numbers: int, has_room: bool = True) -> list[int]:
    """Return which of the numbers are taken."""
    return [number for number in numbers if reception.takes(number, has_room=has_room)]


def is_behind(reception: Reception) -> bool:
    """Tell whether it is behind, which may change from one line to the next."""
    return reception.is_behind


def test_each_number_is_taken_once() -> None:
    reception = Reception()
    assert took(reception, 1, 2, 1, 2, 3, 2) == [1, 2, 3]
    assert reception.received == 3
    assert reception.may_end


def test_it_begins_after_a_number() -> None:
    assert took(Reception(after=5), 1, 5, 6, 7) == [6, 7]


def test_a_number_left_out_is_nonsense() -> None:
    reception = Reception()
    with pytest.raises(Nonsense, match="chunk 3 after 1"):
        took(reception, 1, 3)


def test_what_has_no_room_is_dropped_with_all_that_follows_and_asked_for_anew() -> None:
    reception = Reception()
    assert took(reception, 1, 2) == [1, 2]
    assert took(reception, 3, has_room=False) == []
    assert took(reception, 4, 5) == []
    assert is_behind(reception)
    assert not reception.may_end

    reception.attached(anew=True)
    assert not is_behind(reception)
    assert took(reception, 6, 7) == []  # what was on its way
    assert not reception.may_end
    assert took(reception, 3, 4, 5, 6, 7, 8) == [3, 4, 5, 6, 7, 8]
    assert reception.may_end


def test_room_may_be_gone_again_at_once() -> None:
    reception = Reception()
    took(reception, 1, has_room=False)
    reception.attached(anew=True)
    assert took(reception, 1, has_room=False) == []
    assert reception.is_behind
    assert not reception.may_end


def test_on_a_new_socket_nothing_is_on_its_way() -> None:
    reception = Reception()
    took(reception, 1)
    took(reception, 2, 3, has_room=False)
    reception.attached(anew=False)
    assert reception.may_end
    assert took(reception, 2, 3) == [2, 3]


def test_a_new_follower_on_a_socket_where_nothing_is_left_may_end() -> None:
    reception = Reception(after=3)
    reception.attached(anew=True)
    assert reception.may_end


def test_what_is_gone_is_skipped() -> None:
    reception = Reception()
    reception.skip_to(10)
    assert took(reception, 10) == [10]
    reception.skip_to(5)
    assert took(reception, 11) == [11]


@pytest.mark.parametrize("number", [1, 2, 3, 9])
def test_questions_may_be_told_out_of_their_places(number: int) -> None:
    reception = Reception(after=2)
    assert reception.is_untimely(number) == (number != 3)


def test_a_question_further_on_is_not_out_of_place_where_others_were_dropped() -> None:
    reception = Reception()
    took(reception, 1, has_room=False)
    assert not reception.is_untimely(2)
    reception.attached(anew=True)
    assert not reception.is_untimely(2)


@pytest.mark.parametrize("seed", range(50))
def test_a_slow_reader_gets_all_of_it_whatever_the_order_of_things(seed: int) -> None:
    """A server with a follower, a way that takes its time, and a reader that has little room."""
    chance = random.Random(seed)
    last, room = 60, 3
    reception, queue, read = Reception(), 0, 0
    on_the_way = list(range(1, last + 1))
    while read < last:
        if on_the_way and chance.random() < 0.7:
            queue += reception.takes(on_the_way.pop(0), has_room=queue < room)
        elif queue:
            queue, read = queue - 1, read + 1
            if reception.is_behind and queue <= room // 2:
                reception.attached(anew=True)
                on_the_way += range(reception.received + 1, last + 1)
    assert reception.received == last
    assert reception.may_end
