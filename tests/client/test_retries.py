"""What an answer leads to, decided without socket or clock."""

import pytest

from agentws.client.retries import (
    Handshake,
    Kind,
    Opening,
    Refused,
    judge_handshake,
    judge_refusal,
    opening_of,
)

RETRYABLE = ["store_unavailable", "shutting_down"]
KINDS: list[Kind] = ["invoke", "attach", "cancel", "get", "input", "list"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", RETRYABLE)
def test_what_the_client_repeats_is_borne_with_and_what_the_user_asks_is_told(
    kind: Kind, code: str
) -> None:
    assert judge_refusal(kind, code, repeated=True) is Refused.REPEAT
    assert judge_refusal(kind, code, repeated=False) is Refused.FAIL


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", ["invalid_request", "too_many_invocations", "of_the_future", None])
def test_other_refusals_are_told(kind: Kind, code: str | None) -> None:
    assert judge_refusal(kind, code, repeated=True) is Refused.FAIL


@pytest.mark.parametrize(
    ("kind", "code", "is_done"),
    [
        ("cancel", "already_finished", True),
        ("input", "already_finished", True),
        ("input", "input_not_expected", True),
        ("cancel", "input_not_expected", False),
        ("get", "already_finished", False),
        ("cancel", "not_found", False),
        ("input", "too_many_inputs", False),
    ],
)
def test_a_repetition_may_learn_that_it_is_done(kind: Kind, code: str, is_done: bool) -> None:
    repeated = judge_refusal(kind, code, repeated=True)
    assert repeated is (Refused.DONE if is_done else Refused.FAIL)
    assert judge_refusal(kind, code, repeated=False) is Refused.FAIL


@pytest.mark.parametrize("repeated", [True, False])
def test_what_was_heard_of_and_is_not_found_is_lost(repeated: bool) -> None:
    lost = judge_refusal("attach", "not_found", repeated=repeated, known=True)
    assert lost is Refused.LOST
    assert judge_refusal("attach", "not_found", repeated=repeated) is Refused.FAIL
    assert judge_refusal("cancel", "not_found", repeated=repeated, known=True) is Refused.FAIL


@pytest.mark.parametrize("status", [400, 404, 426])
@pytest.mark.parametrize("can_refresh", [True, False])
def test_some_handshakes_are_final(status: int, can_refresh: bool) -> None:
    assert judge_handshake(status, can_refresh=can_refresh) is Handshake.FINAL


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_get_one_more_chance(status: int) -> None:
    assert judge_handshake(status, can_refresh=True) is Handshake.AT_ONCE
    assert judge_handshake(status, can_refresh=False) is Handshake.FINAL


@pytest.mark.parametrize("status", [None, 200, 302, 408, 429, 500, 502, 503, 504, 999])
@pytest.mark.parametrize("can_refresh", [True, False])
def test_everything_else_is_tried_again(status: int | None, can_refresh: bool) -> None:
    assert judge_handshake(status, can_refresh=can_refresh) is Handshake.LATER


@pytest.mark.parametrize(
    ("known", "sent", "over", "opening"),
    [
        (False, False, False, Opening.INVOKE),
        (False, True, False, Opening.INVOKE_AGAIN),
        (True, True, False, Opening.ATTACH),
        (True, False, False, Opening.ATTACH),
        (True, True, True, Opening.NOTHING),
        (False, False, True, Opening.NOTHING),
    ],
)
def test_how_a_run_goes_on(known: bool, sent: bool, over: bool, opening: Opening) -> None:
    assert opening_of(known=known, sent=sent, over=over) is opening
