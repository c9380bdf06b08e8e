"""Events: what a log holds besides chunks, numbered among them (§4, §5).

A question that the handler asks, and the news that it is closed. Whoever follows the log is told of
both, in their places.
"""

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from agentws.protocol.encoding import encode


class Event(bytes):
    """An entry of a log that is no chunk, as JSON; its class tells it from one."""

    __slots__ = ()


class Question(Struct, tag_field="type", tag="input_required", frozen=True, gc=False):
    """What a handler wants to know. `payload` and `schema` are JSON."""

    request_id: str
    payload: Raw
    schema: Raw | UnsetType = UNSET


class Closed(Struct, tag_field="type", tag="input_received", frozen=True, gc=False):
    """A question was answered, or is not asked any more (`withdrawn`)."""

    request_id: str
    withdrawn: bool | UnsetType = UNSET


_decoder: Final[msgspec.json.Decoder[Question | Closed]] = msgspec.json.Decoder(Question | Closed)


def make_event(event: Question | Closed) -> Event:
    """Return an event as an entry of a log."""
    return Event(encode(event))


def read_event(entry: Event) -> Question | Closed:
    """Return what an entry says. Raises `msgspec.MsgspecError` for one that is not ours."""
    return _decoder.decode(entry)


class Awaiting(Struct, frozen=True, gc=False):
    """A question that is open, as the record of its invocation tells of it (§5)."""

    request_id: str
    sequence_number: int
    payload: Raw
    schema: Raw | UnsetType = UNSET


def awaiting_after(
    awaiting: tuple[Awaiting, ...], event: Question | Closed, number: int
) -> tuple[Awaiting, ...]:
    """Return the open questions once an event with that number has come."""
    others = tuple(each for each in awaiting if each.request_id != event.request_id)
    if isinstance(event, Closed):
        return others
    # The parts must not keep the whole text of the event that they were read from.
    schema = event.schema.copy() if isinstance(event.schema, Raw) else UNSET
    return (*others, Awaiting(event.request_id, number, event.payload.copy(), schema))
