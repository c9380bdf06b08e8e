"""Records: what is kept of an invocation, and the JSON of it that a poll is answered with (§5)."""

from datetime import UTC, datetime
from typing import Literal, Self, cast

from msgspec import UNSET, Raw, Struct, UnsetType

from agentws.protocol.encoding import encode
from agentws.protocol.errors import (
    Cancelled,
    CancelReason,
    InvocationError,
    PlatformCode,
    PlatformError,
    SessionBusy,
)
from agentws.protocol.events import Awaiting

Status = Literal["running", "completed", "failed", "cancelled", "lost"]
ShownStatus = Literal["running", "input_required", "completed", "failed", "cancelled", "lost"]
"""A status as clients see it: whether a question is open is no state of the run itself."""


class Failure(Struct, frozen=True, gc=False):
    """How an invocation failed, as it is kept: the parts of an error."""

    code: str
    message: str
    status: int
    is_platform: bool
    reason: CancelReason | None = None
    superseded_by: str | None = None
    running_invocation_id: str | None = None

    @classmethod
    def of(cls, error: InvocationError) -> Self:
        """Return what is to be kept of an error."""
        is_platform = isinstance(error, PlatformError)
        parts = error.code, error.message, error.status, is_platform
        if isinstance(error, Cancelled):
            return cls(*parts, error.reason, error.superseded_by)
        if isinstance(error, SessionBusy):
            return cls(*parts, running_invocation_id=error.running_invocation_id)
        return cls(*parts)

    def error(self) -> InvocationError:
        """Return the error again."""
        if self.reason is not None:
            return Cancelled(self.message, self.reason, self.superseded_by)
        if self.running_invocation_id is not None:
            return SessionBusy(self.running_invocation_id)
        if self.is_platform:
            return PlatformError(cast(PlatformCode, self.code), self.message)
        return InvocationError(self.code, self.message, self.status)


class Record(Struct, gc=False):
    """What is kept of one invocation. Times are seconds since the epoch.

    `result` is JSON, and so is `progress`, which the handler reported last.

    Not tracked by the garbage collector: a hundred thousand may be retained, and none of them
    can be part of a cycle.
    """

    invocation_id: str
    session_id: str
    created_at: float
    owner: str | None = None
    streams: bool = False
    status: Status = "running"
    finished_at: float | None = None
    result: bytes | None = None
    failure: Failure | None = None
    progress: bytes | None = None
    awaiting: tuple[Awaiting, ...] = ()
    seen_inputs: tuple[str, ...] = ()
    """The ids of inputs that it was given, the last ones, once it has ended."""

    @property
    def ended(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status != "running"

    @property
    def shown_status(self) -> ShownStatus:
        """The status as clients see it."""
        return "input_required" if self.awaiting and not self.ended else self.status

    @property
    def error(self) -> InvocationError | None:
        """How it failed, None while it runs and when it completed."""
        return None if self.failure is None else self.failure.error()


class RecordError(Struct):
    """How an invocation failed, as a poll is told."""

    code: str
    message: str
    reason: CancelReason | UnsetType = UNSET
    superseded_by: str | UnsetType = UNSET


class StreamState(Struct):
    """Which chunks of a stream are held: `first_available` up to `last_sequence_number`."""

    first_available: int
    last_sequence_number: int


class RecordView(Struct):
    """A record, as a poll is answered with it."""

    invocation_id: str
    session_id: str
    status: ShownStatus
    created_at: datetime
    finished_at: datetime | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: RecordError | UnsetType = UNSET
    awaiting: tuple[Awaiting, ...] | UnsetType = UNSET
    progress: Raw | UnsetType = UNSET
    stream: StreamState | UnsetType = UNSET


def encode_record(record: Record, stream: StreamState | None, *, with_result: bool = True) -> bytes:
    """Encode a record as `get_invocation` answers it; what is unknown or null is left out."""
    return encode(
        RecordView(
            invocation_id=record.invocation_id,
            session_id=record.session_id,
            status=record.shown_status,
            created_at=_utc(record.created_at),
            finished_at=UNSET if record.finished_at is None else _utc(record.finished_at),
            result=_unless_null(record.result) if with_result else UNSET,
            error=_record_error(record.failure),
            awaiting=record.awaiting if record.awaiting and not record.ended else UNSET,
            progress=_unless_null(record.progress),
            stream=UNSET if stream is None else stream,
        )
    )


def _record_error(failure: Failure | None) -> RecordError | UnsetType:
    if failure is None:
        return UNSET
    reason, superseded_by = failure.reason or UNSET, failure.superseded_by or UNSET
    return RecordError(failure.code, failure.message, reason, superseded_by)


def _unless_null(value: bytes | None) -> Raw | UnsetType:
    return UNSET if value is None or value == b"null" else Raw(value)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
