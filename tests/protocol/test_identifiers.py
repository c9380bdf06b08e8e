"""Identifiers: which are taken, how new ones are made, and the one of a trace (§2)."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentws.protocol.errors import InvocationError
from agentws.protocol.identifiers import IdSource, given_id, is_id, new_id, trace_id
from tests.protocol.conftest import BAD_IDS, ID_CHARACTERS, TRACE, TRACEPARENT, any_text, patient


@patient
@given(st.text(ID_CHARACTERS, max_size=300) | st.text("./", max_size=3) | any_text)
def test_an_id_is_what_the_protocol_says(value: str) -> None:
    allowed = 1 <= len(value) <= 256 and set(value) <= set(ID_CHARACTERS) and set(value) != {"."}
    assert is_id(value) == allowed


@pytest.mark.parametrize("value", [None, 5, b"a", ["a"]])
def test_what_is_no_string_is_no_id(value: object) -> None:
    assert not is_id(value)


@pytest.mark.parametrize(("value", "given"), [(None, None), ("", None), ("a", "a")])
def test_an_id_is_given_or_not(value: str | None, given: str | None) -> None:
    assert given_id("x-id", value) == given


@pytest.mark.parametrize("value", BAD_IDS)
def test_a_given_id_that_is_bad_is_refused(value: str) -> None:
    with pytest.raises(InvocationError, match=r"invalid_request: x-id must be") as caught:
        given_id("x-id", value)
    assert caught.value.status == 400


def test_new_ids_are_random_uuids() -> None:
    source = IdSource()
    made = [source() for _ in range(3 * IdSource.BATCH)] + [new_id() for _ in range(100)]
    assert len(set(made)) == len(made)
    for value in made:
        assert is_id(value)
        read = uuid.UUID(value)
        assert (str(read), read.version, read.variant) == (value, 4, uuid.RFC_4122)
    # Every digit varies but the version's and, in one of the two makes, the variant's.
    fixed = [index for index, digits in enumerate(zip(*made, strict=True)) if len({*digits}) == 1]
    assert fixed == [8, 13, 14, 18, 23]


def test_sources_do_not_make_the_same_ids() -> None:
    first, second = IdSource(), IdSource()
    assert not {first() for _ in range(100)} & {second() for _ in range(100)}


# Trace context


@pytest.mark.parametrize(
    ("traceparent", "found"),
    [
        (TRACEPARENT, TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-00", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-ff", TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"fe-{TRACE}-00f067aa0ba902b7-01-of-the-future", TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-01-more", None),
        (f"00-{TRACE}-00f067aa0ba902b7-01-", None),
        (f"01-{TRACE}-00f067aa0ba902b7-01more", None),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE[:-1]}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE[:-1]}g-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}0-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-00f067aa0ba902b7", None),
        (f"00-{TRACE}-00f067aa0ba902b7-1", None),
        (f"0-{TRACE}-00f067aa0ba902b7-01", None),
        (f" {TRACEPARENT}", None),
        (f"{TRACEPARENT}\n", None),
        ("", None),
        (None, None),
        ("nonsense", None),
    ],
)
def test_the_trace_id_of_a_traceparent(traceparent: str | None, found: str | None) -> None:
    assert trace_id(traceparent) == found
