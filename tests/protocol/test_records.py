"""Records: what is told of an invocation (§5)."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentws.protocol.errors import InvocationError, error_body, shutting_down
from agentws.protocol.records import Failure, Record, StreamState, encode_record
from tests.protocol.conftest import Fields, patient

CREATED = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
FINISHED = datetime(2025, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC).timestamp()
RUNNING: Fields = {
    "invocation_id": "i",
    "session_id": "s",
    "status": "running",
    "created_at": "2025-01-02T03:04:05Z",
}


def a_record(**fields: Any) -> Record:
    return Record("i", "s", CREATED, **fields)


@pytest.mark.parametrize(
    ("record", "stream", "encoded"),
    [
        (a_record(), None, RUNNING),
        (a_record(owner="alice"), None, RUNNING),  # whose it is, is nobody's business
        (
            a_record(status="completed", finished_at=FINISHED, result=b'{"a":[1,null]}'),
            None,
            {
                **RUNNING,
                "status": "completed",
                "finished_at": "2025-01-02T03:04:05.250000Z",
                "result": {"a": [1, None]},
            },
        ),
        (
            a_record(status="completed", finished_at=CREATED, result=b"null"),
            None,
            {**RUNNING, "status": "completed", "finished_at": "2025-01-02T03:04:05Z"},
        ),
        *(
            (
                a_record(status="completed", finished_at=CREATED, result=result),
                None,
                {
                    **RUNNING,
                    "status": "completed",
                    "finished_at": "2025-01-02T03:04:05Z",
                    "result": json.loads(result),
                },
            )
            for result in (b"false", b"0", b'""', b"[]", b"{}")
        ),
        *(
            (
                a_record(
                    status=status,
                    finished_at=CREATED,
                    failure=Failure("quota", "No more", 429, is_platform=False),
                ),
                None,
                {
                    **RUNNING,
                    "status": status,
                    "finished_at": "2025-01-02T03:04:05Z",
                    "error": {"code": "quota", "message": "No more"},
                },
            )
            for status in ("failed", "cancelled", "lost")
        ),
        (
            a_record(streams=True),
            StreamState(1, 0),
            {**RUNNING, "stream": {"first_available": 1, "last_sequence_number": 0}},
        ),
        (
            a_record(streams=True),
            StreamState(8, 12),
            {**RUNNING, "stream": {"first_available": 8, "last_sequence_number": 12}},
        ),
    ],
)
def test_a_record_is_told_without_what_is_not_known(
    record: Record, stream: StreamState | None, encoded: Fields
) -> None:
    assert json.loads(encode_record(record, stream)) == encoded


@patient
@given(st.floats(0, 4e9))
def test_times_are_rfc_3339_in_utc(seconds: float) -> None:
    told = json.loads(encode_record(Record("i", "s", seconds), None))["created_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", told)
    assert datetime.fromisoformat(told).timestamp() == pytest.approx(seconds, abs=1e-6)


def test_a_record_knows_its_error() -> None:
    assert a_record().error is None
    for error in (
        InvocationError("quota", "m", 429),
        InvocationError("lost", "m"),
        shutting_down(),
    ):
        kept = a_record(status="failed", failure=Failure.of(error)).error
        assert kept is not None
        assert error_body(kept) == error_body(error)
        assert (type(kept), kept.status) == (type(error), error.status)
