"""Records: what is kept of an invocation, and the JSON of it that a poll is answered with (§5)."""

from datetime import UTC, datetime
from typing import Literal, Self, cast

from msgspec import UNSET, Raw, Struct, UnsetType

from agentws.protocol.encoding import encode
from agentws.protocol.errors import InvocationError, PlatformCode, PlatformError

Status = Literal["running", "completed", "failed", "cancelled", "lost"]


class Failure(Struct, frozen=True, gc=False):
    """How an invocation failed, as it is kept: the parts of an error."""

    code: str
    message: str
    status: int
    is_platform: bool

    @classmethod
    def of(cls, error: InvocationError) -> Self:
        """Return what is to be kept of an error."""
        return cls(error.code, error.message, error.status, isinstance(error, PlatformError))

    def error(self) -> InvocationError:
        """Return the error again."""
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

    @property
    def error(self) -> InvocationError | None:
        """How it failed, None while it runs and when it completed."""
        return None if self.failure is None else self.failure.error()


class _RecordError(Struct):
    code: str
    message: str


class StreamState(Struct):
    """Which chunks of a stream are held: `first_available` up to `last_sequence_number`."""

    first_available: int
    last_sequence_number: int


class _RecordView(Struct):
    invocation_id: str
    session_id: str
    status: Status
    created_at: datetime
    finished_at: datetime | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: _RecordError | UnsetType = UNSET
    progress: Raw | UnsetType = UNSET
    stream: StreamState | UnsetType = UNSET


def encode_record(record: Record, stream: StreamState | None) -> bytes:
    """Encode a record as `get_invocation` answers it; what is unknown or null is left out."""
    failure = record.failure
    return encode(
        _RecordView(
            invocation_id=record.invocation_id,
            session_id=record.session_id,
            status=record.status,
            created_at=_utc(record.created_at),
            finished_at=UNSET if record.finished_at is None else _utc(record.finished_at),
            result=_unless_null(record.result),
            error=UNSET if failure is None else _RecordError(failure.code, failure.message),
            progress=_unless_null(record.progress),
            stream=UNSET if stream is None else stream,
        )
    )


def _unless_null(value: bytes | None) -> Raw | UnsetType:
    return UNSET if value is None or value == b"null" else Raw(value)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
