"""Every error says what to do."""

import pickle

import pytest

from agentws.client.errors import (
    Cancelled,
    ConnectionFailed,
    InvocationFailed,
    Lost,
    ReplayGap,
    failure_of,
    refused,
)
from agentws.protocol.errors import STATUS


@pytest.mark.parametrize("code", [*STATUS, "an_agents_own", "unknown"])
@pytest.mark.parametrize("source", ["user", "upstream", "platform", "of the future"])
@pytest.mark.parametrize("retryable", [True, False])
def test_each_code_comes_with_advice(code: str, source: str, retryable: bool) -> None:
    error = {"code": code, "message": "Why", "retryable": retryable, "source": source}
    failure = failure_of(error)
    assert str(failure) == f"{code}: Why. {failure.advice}"
    assert failure.advice.endswith(".")
    assert (failure.code, failure.message, failure.source) == (code, "Why", source)
    assert failure.retryable is retryable


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("cancelled", Cancelled),
        ("lost", Lost),
        ("replay_gap", ReplayGap),
        ("timeout", InvocationFailed),
    ],
)
def test_some_codes_have_classes_of_their_own(code: str, kind: type[InvocationFailed]) -> None:
    assert type(failure_of({"code": code, "first_available": 3})) is kind


def test_what_a_class_has_more() -> None:
    cancelled = Cancelled({"code": "cancelled", "reason": "superseded", "superseded_by": "b"})
    assert (cancelled.reason, cancelled.error["superseded_by"]) == ("superseded", "b")
    assert Cancelled({}).reason is None
    assert ReplayGap({"first_available": 7}).first_available == 7


def test_an_error_that_says_nothing_is_one_all_the_same() -> None:
    assert str(failure_of({})) == "unknown: no reason was given. The server's log says why."


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "token"), (403, "credentials"), (404, "URL"), (400, "query"), (426, "upgrade")],
)
def test_a_refused_handshake_comes_with_advice(status: int, advice: str) -> None:
    failure = refused(status)
    assert failure.status == status
    assert str(status) in str(failure)
    assert advice in failure.advice


def test_other_failures_of_the_connection_do_too() -> None:
    assert str(refused(999)) == (
        "The server answered the handshake with 999 (no status of HTTP). Check the URL and that the"
        " server runs; more patience is connect()'s to give."
    )
    failure = ConnectionFailed("No connection")
    failure.__cause__ = OSError()
    again = failure.again()
    assert (again.reason, again.status, again.__cause__) == (
        "No connection",
        None,
        failure.__cause__,
    )


@pytest.mark.parametrize(
    "error", [failure_of({"code": "lost", "message": "Gone"}), refused(401)], ids=repr
)
def test_errors_can_be_sent_to_other_processes(error: Exception) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
