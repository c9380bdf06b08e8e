"""Every code that clients see is told, as it is sent."""

from typing import get_args

import pytest

from agentws.protocol.errors import (
    STATUS,
    InvocationError,
    PlatformCode,
    PlatformError,
    error_body,
)
from tests.docs.conftest import names, page, rows, section
from tests.support.snippets import is_there

ERRORS = page("errors.md")

ROWS = [row for row in rows(ERRORS) if len(row) == 6 and row[0] not in ("code", "---")]

BUILT = [row for row in ROWS if names(row[0]) != ["import_failed"] or is_there("agentws dev")]


def test_all_codes_are_told() -> None:
    assert {names(row[0])[0] for row in BUILT} == STATUS.keys()


@pytest.mark.parametrize("row", BUILT, ids=lambda row: names(row[0])[0])
def test_status_and_source_are_those_that_are_sent(row: list[str]) -> None:
    (code,) = names(row[0])
    error = (
        PlatformError(code, "")  # type: ignore[arg-type]
        if code in get_args(PlatformCode)
        else InvocationError(code, "")
    )
    assert (row[1], row[2]) == (str(error.status), error_body(error).source)


def test_what_is_worth_another_try_is_told_as_such() -> None:
    told = {names(row[0])[0] for row in rows(section(ERRORS, "## Try again")) if names(row[0])}
    retryable = {code for code in STATUS if error_body(InvocationError(code, "")).retryable}
    assert told - {"import_failed"} == retryable - {"import_failed"}
