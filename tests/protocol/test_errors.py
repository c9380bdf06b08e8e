"""Errors: their codes, statuses and sources, and how they are told (§7)."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given

import agentws
from agentws.protocol.encoding import encode
from agentws.protocol.errors import (
    STATUS,
    InvocationError,
    PlatformCode,
    PlatformError,
    ReplayGap,
    error_body,
    error_source,
)
from tests.protocol.conftest import any_text, patient

ERRORS = {
    # code: (status, source, retryable)
    "invalid_json": (400, "user", False),
    "invalid_message": (400, "user", False),
    "invalid_action": (400, "user", False),
    "invalid_request": (400, "user", False),
    "unauthorized": (401, "user", False),
    "forbidden": (403, "user", False),
    "not_found": (404, "user", False),
    "method_not_allowed": (405, "user", False),
    "upgrade_required": (426, "user", False),
    "already_exists": (409, "user", False),
    "already_finished": (409, "user", False),
    "cancelled": (409, "user", False),
    "session_busy": (409, "user", False),
    "input_not_expected": (409, "user", False),
    "payload_too_large": (413, "user", False),
    "unsupported_media_type": (415, "user", False),
    "too_many_invocations": (429, "platform", True),
    "too_many_inputs": (429, "platform", True),
    "replay_gap": (410, "user", False),
    "internal_error": (500, "upstream", False),
    "not_implemented": (501, "upstream", False),
    "import_failed": (503, "upstream", True),
    "shutting_down": (503, "platform", True),
    "store_unavailable": (503, "platform", True),
    "too_many_connections": (503, "platform", True),
    "timeout": (504, "upstream", True),
    "lost": (502, "platform", False),
}


def test_the_codes_are_those_of_the_protocol() -> None:
    assert set(STATUS) == set(ERRORS)


@pytest.mark.parametrize(("code", "expected"), ERRORS.items())
def test_an_error_of_the_protocol(code: str, expected: tuple[int, str, bool]) -> None:
    status, source, retryable = expected
    kind: Any = PlatformError if source == "platform" else InvocationError
    error = kind(code, "What went wrong")
    assert error.status == status
    assert error_source(error) == source
    assert json.loads(encode(error_body(error))) == {
        "code": code,
        "message": "What went wrong",
        "retryable": retryable,
        "source": source,
    }


@pytest.mark.parametrize("code", STATUS)
def test_what_an_agent_raises_is_never_the_platforms(code: str) -> None:
    status, _, retryable = ERRORS[code]
    body = error_body(InvocationError(code, "m"))
    assert (body.source, body.retryable) == ("upstream" if status >= 500 else "user", retryable)


@pytest.mark.parametrize("code", get_args(PlatformCode))
def test_the_daemon_raises_what_is_the_platforms_as_such(code: str) -> None:
    as_an_agent = re.compile(rf"""InvocationError\(\s*["']{code}["']""")
    for module in Path(agentws.__file__).parent.rglob("*.py"):
        assert as_an_agent.search(module.read_text()) is None, module


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("quota", None, (400, "user", False)),
        ("quota", 400, (400, "user", False)),
        ("quota", 429, (429, "user", True)),
        ("quota", 499, (499, "user", False)),
        ("quota", 500, (500, "upstream", False)),
        ("quota", 501, (501, "upstream", False)),
        ("quota", 503, (503, "upstream", True)),
        ("quota", 504, (504, "upstream", True)),
        ("quota", 599, (599, "upstream", False)),
        ("not_found", 410, (410, "user", False)),
        ("not_found", 503, (503, "upstream", True)),
        ("", None, (400, "user", False)),
    ],
)
def test_an_error_of_the_agents_own(
    code: str, status: int | None, expected: tuple[int, str, bool]
) -> None:
    error = InvocationError(code, "m", status)
    body = error_body(error)
    assert (error.status, body.source, body.retryable) == expected
    assert (body.code, body.message) == (code, "m")


@pytest.mark.parametrize("status", [-1, 0, 200, 302, 399, 600, 1000])
def test_a_status_that_is_no_error_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match=rf"400 and 599, not {status}$"):
        InvocationError("quota", "m", status)


def test_an_error_reads_as_code_and_message() -> None:
    assert str(InvocationError("quota", "No more today")) == "quota: No more today"


def test_an_error_with_half_an_emoji_can_be_told() -> None:
    error = InvocationError("c\ud83d", "m\ude00 é \U0001f600")
    body = json.loads(encode(error_body(error)))
    assert (body["code"], body["message"]) == ("c?", "m? é \U0001f600")


@patient
@given(any_text, any_text)
def test_any_error_can_be_told(code: str, message: str) -> None:
    error = InvocationError(code, message)
    body = json.loads(encode(error_body(error)))
    assert (body["code"], body["message"]) == (error.code, error.message)


def test_a_replay_gap_tells_what_is_held() -> None:
    gap = ReplayGap(17)
    assert gap.status == 410
    assert json.loads(encode(error_body(gap))) == {
        "code": "replay_gap",
        "message": gap.message,
        "retryable": False,
        "source": "user",
        "first_available": 17,
    }
