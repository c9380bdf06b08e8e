"""The wire: frames, identifiers, error codes. No I/O, and nothing of ours is imported here.

Section numbers (§) refer to the wire protocol; RFC numbers to the IETF's documents.
"""

import gc
import itertools
import os
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self, TypeVar, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

# --- identifiers (§2) -------------------------------------------------------------------------

_ID: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9._:-]{1,256}\Z")
Id = Annotated[
    str, msgspec.Meta(extra_json_schema={"pattern": r"^(?!\.+$)[A-Za-z0-9._:-]{1,256}$"})
]
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z"
)
ID_RULE: Final = "1 to 256 characters of A-Z a-z 0-9 . _ : - and not dots only"


def is_id(value: object) -> bool:
    """Tell whether `value` is an identifier as §2 defines it."""
    return isinstance(value, str) and _ID.match(value) is not None


def given_id(name: str, value: str | None) -> str | None:
    """Return the caller's identifier, or None where it counts as not given (absent or empty).

    Raises `InvocationError` (`invalid_request`) naming the field when it breaks the rule of §2.
    """
    if not value:
        return None
    if _ID.match(value) is None:
        raise InvocationError("invalid_request", f"{name} must be {ID_RULE}")
    return value


class IdSource:
    """Makes new identifiers: UUIDs, version 4 (RFC 9562 §5.4), that nobody can guess.

    It makes many at a time, digit by digit: for the first of all, then for the second. It asks the
    kernel for the randomness of all of them, because where system calls are dear, such as in
    sandboxes, one for each would be a fifth of the cost of an invocation.
    """

    BATCH: Final = 256

    # The 4 is the version, the "a" has the bits of the variant.
    _FORM: Final = b"xxxxxxxx-xxxx-4xxx-axxx-xxxxxxxxxxxx"
    _RANDOM: Final = tuple(place for place, sign in enumerate(_FORM) if sign == ord("x"))

    def __init__(self) -> None:
        self._unused: list[str] = []

    def __call__(self) -> str:
        """Return a new identifier."""
        if not self._unused:
            self._unused = self._make()
        return self._unused.pop()

    def _make(self) -> list[str]:
        width, count = len(self._FORM), len(self._RANDOM)
        digits = os.urandom(count * self.BATCH // 2).hex().encode()
        text = bytearray(self._FORM * self.BATCH)
        for number, place in enumerate(self._RANDOM):
            text[place::width] = digits[number::count]
        ids = text.decode()
        return [ids[at : at + width] for at in range(0, len(ids), width)]


def new_id() -> str:
    """Return a new identifier, where one is needed now and then."""
    return str(uuid.uuid4())


def trace_id(traceparent: str | None) -> str | None:
    """Return the trace id of a W3C `traceparent`, None where that is absent or malformed."""
    match = _TRACEPARENT.match(traceparent) if traceparent else None
    if match is None or (match[1] == "00" and match[3] is not None):
        return None
    return match[2]


# --- errors (§7) ------------------------------------------------------------------------------

Source = Literal["user", "upstream", "platform"]
PlatformCode = Literal[
    "too_many_invocations", "too_many_connections", "shutting_down", "store_unavailable", "lost"
]

STATUS: Final[Mapping[str, int]] = {
    "invalid_json": 400,
    "invalid_message": 400,
    "invalid_action": 400,
    "invalid_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "upgrade_required": 426,
    "already_exists": 409,
    "already_finished": 409,
    "cancelled": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "too_many_invocations": 429,
    "replay_gap": 410,
    "internal_error": 500,
    "not_implemented": 501,
    "shutting_down": 503,
    "store_unavailable": 503,
    "too_many_connections": 503,
    "timeout": 504,
    "lost": 502,
}
_RETRYABLE: Final = {429, 503, 504}


class InvocationError(Exception):
    """A failure that the client is meant to see: a code, a message, and an HTTP status.

    `status` is 400 to 599; without one it is the code's own status in §7, else 400.
    Raises `ValueError` for a status outside that range.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        if status is not None and not 400 <= status <= 599:
            raise ValueError(f"status must be between 400 and 599, not {status}")
        self.code = _encodable(code)
        self.message = _encodable(message)
        self.status = STATUS.get(self.code, 400) if status is None else status
        super().__init__(self.code, self.message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class PlatformError(InvocationError):
    """A failure of the daemon's own, or of its backend's.

    An agent may take the same code, and raises an `InvocationError` with it. So the class tells
    whose fault it is, and the code does not (§7).
    """

    def __init__(self, code: PlatformCode, message: str) -> None:
        super().__init__(code, message)


def shutting_down() -> PlatformError:
    """Return the answer to what comes too late, and the reason of what is ended for it."""
    return PlatformError("shutting_down", "The server is shutting down")


def internal_error() -> InvocationError:
    """Return all that a client sees of an exception."""
    return InvocationError("internal_error", "Internal server error")


class ReplayGap(InvocationError):
    """Chunks that a listener asked for are no longer held (§5)."""

    def __init__(self, first_available: int) -> None:
        super().__init__("replay_gap", "Some of the chunks asked for are no longer held")
        self.first_available = first_available


def _encodable(text: object) -> str:
    """Return `text` as a string that UTF-8 can hold: an agent may have cut an emoji in half."""
    return str(text).encode("utf-8", "replace").decode()


class ErrorBody(Struct):
    """The error object of frames and HTTP envelopes (§6)."""

    code: str
    message: str
    retryable: bool
    source: Source
    first_available: int | UnsetType = UNSET


def error_body(error: InvocationError) -> ErrorBody:
    """Translate an error to what the client sees of it."""
    return ErrorBody(
        code=error.code,
        message=error.message,
        retryable=error.status in _RETRYABLE,
        source=error_source(error),
        first_available=error.first_available if isinstance(error, ReplayGap) else UNSET,
    )


def error_source(error: InvocationError) -> Source:
    """Tell whose fault an error is: the caller's, the handler's, or the daemon's (§7)."""
    if isinstance(error, PlatformError):
        return "platform"
    return "upstream" if error.status >= 500 else "user"


# --- records (§5) -----------------------------------------------------------------------------

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


# --- frames from the client (§3) --------------------------------------------------------------


OnDisconnect = Literal["continue", "cancel"]


class _ClientFrame(Struct, tag_field="action", forbid_unknown_fields=True):
    """What all frames from the client have in common.

    That it forbids what it does not know, costs a frame nothing where there is nothing of the kind;
    where there is, `_decode_with_diagnosis` tells what is ignored from what is misspelt.
    """


class Invoke(_ClientFrame, tag="invoke"):
    """Run the agent on `payload`."""

    payload: Any = msgspec.field(default_factory=dict)
    invocation_id: Id | None = None
    session_id: Id | None = None
    background: bool | None = None
    on_disconnect: OnDisconnect | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    baggage: str | None = None


class GetInvocation(_ClientFrame, tag="get_invocation"):
    """Ask for the record of an invocation, or what the agent's own handler says of it."""

    invocation_id: Id
    session_id: Id | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    baggage: str | None = None


class CancelInvocation(_ClientFrame, tag="cancel_invocation"):
    """Cancel an invocation."""

    invocation_id: Id
    session_id: Id | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    baggage: str | None = None


class AttachInvocation(_ClientFrame, tag="attach_invocation"):
    """Replay the chunks after `starting_after` and follow the invocation to its end."""

    invocation_id: Id
    starting_after: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Ping(_ClientFrame, tag="ping"):
    """Ask for a pong."""


class Pong(_ClientFrame, tag="pong"):
    """Answer to the server's ping."""


ClientFrame = Invoke | GetInvocation | CancelInvocation | AttachInvocation | Ping | Pong
CLIENT_FRAMES: Final[Mapping[str, type[ClientFrame]]] = {
    "invoke": Invoke,
    "get_invocation": GetInvocation,
    "cancel_invocation": CancelInvocation,
    "attach_invocation": AttachInvocation,
    "ping": Ping,
    "pong": Pong,
}


def action_of(frame: ClientFrame) -> str:
    """Return the name of the action that a frame asks for."""
    return str(frame.__struct_config__.tag)


class BadFrame(Exception):
    """A message that is no frame of §3, with what is known of it.

    `action`, `invocation_id` and `session_id` are those that the message itself carried, where
    they are valid; they are echoed in the answer.
    """

    def __init__(
        self,
        error: InvocationError,
        action: str | UnsetType = UNSET,
        invocation_id: str | UnsetType = UNSET,
        session_id: str | UnsetType = UNSET,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.action = action
        self.invocation_id = invocation_id
        self.session_id = session_id


_frame_decoder: Final[msgspec.json.Decoder[ClientFrame]] = msgspec.json.Decoder(ClientFrame)


def decode_frame(message: str | bytes) -> ClientFrame:
    """Decode and validate one message; empty identifiers become None.

    Raises `BadFrame` with `invalid_json`, `invalid_message`, `invalid_action` or
    `invalid_request`.
    """
    try:
        # msgspec passes over fields that it does not know without looking at their encoding.
        text = message if isinstance(message, str) else message.decode()
        if len(text) < _LARGE:
            frame = _frame_decoder.decode(text)
        else:
            frame = _decode_large(text, _frame_decoder.decode)
        _check_ids(frame)
    except (msgspec.ValidationError, InvocationError):
        return _decode_with_diagnosis(message)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadFrame(InvocationError("invalid_json", _why_not_json(error))) from None
    return frame


def decode_payload(body: bytes) -> Any:
    """Decode the body of an HTTP invoke; an empty one is `{}` (§6).

    Raises `InvocationError` (`invalid_json`).
    """
    if not body:
        return {}
    try:
        return _decode_large(body, msgspec.json.decode)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvocationError("invalid_json", _why_not_json(error)) from None


_LARGE: Final = 64 * 1024
"""From how many characters on a text may make so many values that collecting garbage counts."""

_Decoded = TypeVar("_Decoded")


def _decode_large(text: str | bytes, decode: Callable[[str | bytes], _Decoded]) -> _Decoded:
    """Decode JSON without garbage collection in between.

    A text of brackets makes a million lists; looking through them again and again as they become
    more would take three times as long as to decode them, with everybody waiting.
    """
    if not gc.isenabled():
        return decode(text)
    gc.disable()
    try:
        return decode(text)
    finally:
        gc.enable()


def _check_ids(frame: ClientFrame) -> None:
    """Apply what the types do not say: the rule of identifiers.

    Raises `InvocationError` (`invalid_request`).
    """
    match frame:
        case Invoke(invocation_id=None, session_id=None):
            pass
        case Invoke():
            frame.invocation_id = given_id("invocation_id", frame.invocation_id)
            frame.session_id = given_id("session_id", frame.session_id)
        case GetInvocation() | CancelInvocation():
            frame.invocation_id = _required_id(frame.invocation_id)
            frame.session_id = given_id("session_id", frame.session_id)
        case AttachInvocation():
            frame.invocation_id = _required_id(frame.invocation_id)
        case Ping() | Pong():
            pass


def _required_id(value: str) -> str:
    invocation_id = given_id("invocation_id", value)
    if invocation_id is None:
        raise InvocationError("invalid_request", "invocation_id is required")
    return invocation_id


def _bad_frame(
    fields: Mapping[str, object], error: InvocationError, action: object = UNSET
) -> BadFrame:
    known = {
        name: value
        for name in ("invocation_id", "session_id")
        if isinstance(value := fields.get(name), str) and is_id(value)
    }
    return BadFrame(error, action if isinstance(action, str) else UNSET, **known)


def _decode_with_diagnosis(message: str | bytes) -> ClientFrame:
    """Find out what is wrong with a message that the typed decoder refused, and say it.

    Where it only has fields that nobody knows, nothing is wrong.
    """
    try:
        fields = _decode_large(message, msgspec.json.decode)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadFrame(InvocationError("invalid_json", _why_not_json(error))) from None
    if not isinstance(fields, dict):
        raise BadFrame(InvocationError("invalid_message", "A message must be a JSON object"))
    action = fields.get("action")
    frame_type = CLIENT_FRAMES.get(action) if isinstance(action, str) else None
    if frame_type is None:
        raise _bad_frame(fields, InvocationError("invalid_action", _why_no_action(action)))
    try:
        frame: ClientFrame = msgspec.convert(_known_fields(fields, frame_type), frame_type)
        _check_ids(frame)
    except msgspec.ValidationError as error:
        refusal = InvocationError("invalid_request", _why_no_field(error))
        raise _bad_frame(fields, refusal, action) from None
    except InvocationError as refusal:
        raise _bad_frame(fields, refusal, action) from None
    return frame


def _folded(name: str) -> str:
    """Return what is left of a name when it may be spelt in any way."""
    return name.replace("_", "").replace("-", "").lower()


_SPELLINGS: Final = {
    kind: {_folded(name): name for name in ("action", *kind.__struct_fields__)}
    for kind in CLIENT_FRAMES.values()
}

_MOST_FIELDS: Final = 1000
"""How many fields are looked through: who sends more has not misspelt one of a dozen."""


def _known_fields(
    fields: Mapping[str, object], frame_type: type[ClientFrame]
) -> Mapping[str, object]:
    """Leave out what an action does not know (§3).

    Raises `InvocationError` (`invalid_request`) for a field that it knows in another spelling.
    """
    spellings = _SPELLINGS[frame_type]
    for name in itertools.islice(fields, _MOST_FIELDS):
        meant = spellings.get(_folded(name), name)
        if meant != name:
            shown = name[:_LONGEST_ECHO]
            raise InvocationError("invalid_request", f"Unknown field {shown!r}; it is {meant}")
    return {name: fields[name] for name in spellings.values() if name in fields}


_LONGEST_ECHO: Final = 64
"""How many characters of a wrong value are told back."""


def _why_not_json(error: Exception) -> str:
    match error:
        case RecursionError():
            return "The text nests too deeply"
        case UnicodeError():
            return "The text is not UTF-8"
        case msgspec.ValidationError():
            return "The text holds a number out of range"
        case _:
            return "The text is not JSON"


def _why_no_action(action: object) -> str:
    known = ", ".join(CLIENT_FRAMES)
    match action:
        case None:
            return f"action is missing; expected one of {known}"
        case str():
            return f"Unknown action {action[:_LONGEST_ECHO]!r}; expected one of {known}"
        case _:
            return f"action must be a string, one of {known}"


def _why_no_field(error: msgspec.ValidationError) -> str:
    """Turn msgspec's "Expected `str`, got `int` - at `$.name`" into "name: expected …"."""
    what, _, path = str(error).partition(" - at `$.")
    if not path:  # "Object missing required field `name`"
        return what.replace("Object missing required", "Missing")
    return f"{path.rstrip('`')}: {what[:1].lower()}{what[1:_LONGEST_ECHO]}"


# --- frames from the server (§4) --------------------------------------------------------------


class Result(Struct, tag_field="type", tag="result"):
    """What a coroutine handler returned; with `action`, and no session, the answer to that one."""

    invocation_id: str
    payload: Raw
    session_id: str | UnsetType = UNSET
    action: str | UnsetType = UNSET


class StreamChunk(Struct, tag_field="type", tag="stream_chunk"):
    """One value that a generator handler yielded, numbered 1, 2, 3 and so on."""

    invocation_id: str
    session_id: str
    sequence_number: int
    payload: Raw


class StreamEnd(Struct, tag_field="type", tag="stream_end"):
    """The generator finished."""

    invocation_id: str
    session_id: str


class Accepted(Struct, tag_field="type", tag="accepted"):
    """A background invocation was taken on."""

    invocation_id: str
    session_id: str


class ErrorFrame(Struct, tag_field="type", tag="error"):
    """A failed invocation, or (with `action`) a refused action."""

    error: ErrorBody
    action: str | UnsetType = UNSET
    invocation_id: str | UnsetType = UNSET
    session_id: str | UnsetType = UNSET


Farewell = Literal["shutdown", "max_age"]


class GoingAway(Struct, tag_field="type", tag="going_away"):
    """The socket will be closed with 1001 within `grace_seconds`; reconnect and attach."""

    reason: Farewell
    grace_seconds: float


class ServerPing(Struct, tag_field="type", tag="ping"):
    """Keep-alive (§8)."""


class ServerPong(Struct, tag_field="type", tag="pong"):
    """Answer to a ping."""


ServerFrame = (
    Result | StreamChunk | StreamEnd | Accepted | ErrorFrame | GoingAway | ServerPing | ServerPong
)


# --- JSON -------------------------------------------------------------------------------------


def _encode_foreign(value: object) -> object:
    """Make pydantic models encodable, without importing pydantic for those who have none."""
    model_dump = getattr(type(value), "model_dump", None)
    if model_dump is None:
        raise TypeError(f"JSON cannot hold a {type(value).__name__}")
    return model_dump(value, mode="json")


_encoder: Final = msgspec.json.Encoder(enc_hook=_encode_foreign)
encode: Final = _encoder.encode
"""Encode a frame or any value that a handler may return; non-finite numbers become null.

Raises an ordinary exception (its class depends on the value) for what JSON cannot hold.
"""

MOST_PROGRESS: Final = 64 * 1024
"""How many bytes of JSON an invocation may report as its progress."""


def encode_progress(value: object) -> bytes:
    """Encode what a handler reports as its progress (§5).

    Raises `ValueError` for what JSON cannot hold, and for more than `MOST_PROGRESS`.
    """
    try:
        progress = encode(value)
        msgspec.json.decode(progress)  # a `Raw` is encoded as it is
    except Exception as error:
        raise ValueError(f"Progress must be a value that JSON can hold: {error}") from error
    if len(progress) > MOST_PROGRESS:
        raise ValueError(f"Progress takes {len(progress)} bytes of JSON; {MOST_PROGRESS} may be")
    return progress
