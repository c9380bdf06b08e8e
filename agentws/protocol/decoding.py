"""From a message to a frame, or to a word on what is wrong with the message (§3)."""

import itertools
import re
from collections.abc import Mapping
from typing import Final, TypeVar, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from agentws.protocol.encoding import NOT_JSON, decode, invalid_json
from agentws.protocol.errors import InvocationError
from agentws.protocol.frames import ClientFrame, action_of
from agentws.protocol.identifiers import is_id

CLIENT_FRAMES: Final[Mapping[str, type[ClientFrame]]] = {
    action_of(frame): frame for frame in get_args(ClientFrame)
}
"""The frames by the actions that they ask for."""

_Frame = TypeVar("_Frame", bound=ClientFrame)

_LONGEST_ECHO: Final = 64
"""How many characters of a wrong value are told back."""

_IDS: Final = ("invocation_id", "session_id", "query_id")

_LONGEST_HEAD: Final = 4096
"""How many characters of a message that is no JSON are looked at for its ids."""

_SIMPLE_MEMBER: Final = re.compile(r'[{,]\s*"(\w*)"\s*:\s*(?:"([^"\\]*)"|[\w.+-]+)\s*(?=[,}])')
"""A name, and a text without escapes, or a number, true, false or null."""

_MOST_FIELDS: Final = 1000
"""How many fields are looked through: who sends more has not misspelt one of a dozen."""


class BadFrame(Exception):
    """A message that is no frame of §3, with what is known of it.

    `action` and the ids are those that the message itself carried, where they are valid; they are
    echoed in the answer.
    """

    def __init__(
        self,
        error: InvocationError,
        action: str | UnsetType = UNSET,
        invocation_id: str | UnsetType = UNSET,
        session_id: str | UnsetType = UNSET,
        query_id: str | UnsetType = UNSET,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.action = action
        self.invocation_id = invocation_id
        self.session_id = session_id
        self.query_id = query_id


_decoder: Final[msgspec.json.Decoder[ClientFrame]] = msgspec.json.Decoder(ClientFrame)


def decode_frame(message: str | bytes) -> ClientFrame:
    """Decode and validate one message; empty identifiers become None.

    Raises `BadFrame` with `invalid_json`, `invalid_message`, `invalid_action` or
    `invalid_request`.
    """
    try:
        # msgspec passes over fields that it does not know without looking at their encoding.
        text = message if isinstance(message, str) else message.decode()
        return decode(text, _decoder.decode)
    except (msgspec.ValidationError, InvocationError):
        return _decode_with_diagnosis(message)
    except NOT_JSON as error:
        raise _no_json(message, error) from None


def _decode_with_diagnosis(message: str | bytes) -> ClientFrame:
    """Find out what is wrong with a message that the typed decoder refused, and say it.

    Where it only has fields that nobody knows, nothing is wrong.
    """
    try:
        fields = decode(message, msgspec.json.decode)
    except NOT_JSON as error:
        raise _no_json(message, error) from None
    if not isinstance(fields, dict):
        raise BadFrame(InvocationError("invalid_message", "A message must be a JSON object"))
    action = fields.get("action")
    frame_type = CLIENT_FRAMES.get(action) if isinstance(action, str) else None
    if frame_type is None:
        raise _bad_frame(fields, InvocationError("invalid_action", _why_no_action(action)))
    try:
        return frame_of(fields, frame_type)
    except InvocationError as refusal:
        raise _bad_frame(fields, refusal, action) from None


def frame_of(
    fields: Mapping[str, object], frame_type: type[_Frame], *, as_text: bool = False
) -> _Frame:
    """Return the action that the fields make, wherever they come from.

    With `as_text`, numbers may come as text. Raises `InvocationError` (`invalid_request`).
    """
    try:
        return msgspec.convert(_known_fields(fields, frame_type), frame_type, strict=not as_text)
    except msgspec.ValidationError as error:
        raise InvocationError("invalid_request", _why_no_field(error)) from None


def _no_json(message: str | bytes, error: Exception) -> BadFrame:
    head = message[:_LONGEST_HEAD]
    fields = _texts_at(head if isinstance(head, str) else head.decode(errors="replace"))
    action = fields.get("action")
    if action not in CLIENT_FRAMES or fields.keys().isdisjoint(_IDS):
        return BadFrame(invalid_json(error))
    # Ids without the action would tell that the invocation has ended (§4).
    return _bad_frame(fields, invalid_json(error), action)


def _texts_at(head: str) -> Mapping[str, str]:
    """Return the texts among the first fields of a message, up to one that is not simple.

    So the ids are told that stand in front of a payload which is no JSON, as half an emoji is.
    """
    texts: dict[str, str] = {}
    place = len(head) - len(head.lstrip())
    while (member := _SIMPLE_MEMBER.match(head, place)) is not None:
        name, text = member.groups()
        if text is not None:
            texts[name] = text
        place = member.end()
    return texts


def _bad_frame(
    fields: Mapping[str, object], error: InvocationError, action: object = UNSET
) -> BadFrame:
    known = {
        name: value for name in _IDS if isinstance(value := fields.get(name), str) and is_id(value)
    }
    return BadFrame(error, action if isinstance(action, str) else UNSET, **known)


def _folded(name: str) -> str:
    """Return what is left of a name when it may be spelt in any way."""
    return name.replace("_", "").replace("-", "").lower()


_SPELLINGS: Final[Mapping[type[Struct], Mapping[str, str]]] = {
    kind: {_folded(name): name for name in ("action", *kind.__struct_fields__)}
    for kind in CLIENT_FRAMES.values()
}


def _known_fields(fields: Mapping[str, object], frame_type: type[_Frame]) -> Mapping[str, object]:
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
