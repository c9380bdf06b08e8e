"""What a look at Redis shows of an invocation, checked: others may have written there, too."""

import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from agentws.protocol.errors import lost
from agentws.protocol.events import Awaiting, Event, read_event
from agentws.protocol.records import Record
from agentws.stores.log import Log, Outcome, Snapshot

_logger: Final = logging.getLogger("agentws.store")

_records: Final = msgspec.json.Decoder(Record)
_questions: Final = msgspec.json.Decoder(tuple[Awaiting, ...])
_chunk_lists: Final = msgspec.json.Decoder(list[Raw])


class Unreadable(Exception):
    """What stands under the keys of an invocation was not written by us."""


class Entry(NamedTuple):
    """What stands together in the stream, chunks or an event; the first is number `first`."""

    first: int
    entries: Sequence[bytes]


class RecordReply(NamedTuple):
    """The record and the chunks held, as they were at one moment, and some of the chunks."""

    snapshot: Snapshot
    replica: str
    """Which replica runs it, or ran it."""
    entries: Sequence[Entry]
    is_last: bool
    """Whether there were no more chunks than these."""
    is_found_lost: bool
    """Whether this look has found out that it is lost."""


def read_reply(invocation_id: str, reply: Sequence[Any], page: int) -> RecordReply | None:
    """Read the reply of the script `READ`; None where there is nothing. Raises `Unreadable`.

    `page` is the number of entries that were asked for.
    """
    if not reply:
        return None
    fields, entries, is_found_lost = reply
    try:
        snapshot = read_snapshot(invocation_id, fields)
        is_last = len(entries) < page
        replica = fields[2].decode()
        return RecordReply(snapshot, replica, _read_entries(entries), is_last, is_found_lost == 1)
    except NOT_OURS as error:
        raise Unreadable from error


def read_snapshot(invocation_id: str, fields: Sequence[Any]) -> Snapshot:
    """Read the fields that `READ` and `LIST` return, with or without the last, the progress.

    Raises `Unreadable`, and what a value raises that is none of ours.
    """
    status, birth, _, first, last, result, lost_at, _, _, awaiting, *progress = fields
    record = _records.decode(birth)
    if record.invocation_id != invocation_id:
        raise Unreadable
    _note_end(record, status, result, lost_at)
    record.progress = _json(progress[0]) if progress else None
    if awaiting is not None and not record.ended:
        _json(awaiting)
        record.awaiting = _questions.decode(awaiting)
    return Snapshot(record, _number(first), _number(last))


NOT_OURS: Final = (
    Unreadable,
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    AttributeError,
)
"""What reading raises where somebody else has written under our keys."""


def extend(log: Log, seen: RecordReply) -> None:
    """Add to a log what a reply shows beyond it; what Redis no longer holds is skipped."""
    if seen.snapshot.first > log.last + 1:
        log.skip(seen.snapshot.first)
    for first, entries in seen.entries:
        if first > log.last + 1:
            log.skip(first)
        for entry in entries[log.last + 1 - first :]:
            if isinstance(entry, Event):
                log.append_event(read_event(entry))
            else:
                log.append(entry)
    if seen.is_last:  # for what of them was skipped
        log.record.awaiting = seen.snapshot.record.awaiting


def is_json(text: bytes) -> bool:
    """Tell whether `text` is JSON that may be put into a frame as it is."""
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _note_end(record: Record, status: bytes, result: bytes | None, lost_at: bytes | None) -> None:
    match status:
        case b"running" if record.status == "running":
            pass
        case b"ended" if record.status != "running":
            record.result = _json(result)
        case b"lost" if lost_at is not None:
            Outcome("lost", error=lost(), at=int(lost_at) / 1000).note(record)
        case _:
            raise Unreadable


def _json(text: bytes | None) -> bytes | None:
    if text is not None and not is_json(text):
        raise Unreadable
    return text


def _number(text: bytes) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _read_entries(entries: Sequence[Any]) -> list[Entry]:
    """Return the entries that can be read; the others are missing, which shows as a gap."""
    readable = []
    for name, fields in entries:
        try:
            readable.append(_read_entry(name, dict(zip(fields[::2], fields[1::2], strict=True))))
        except (msgspec.MsgspecError, ValueError, KeyError):
            _logger.error("An entry in a stream of chunks is not ours: %r", name)
    return readable


def _read_entry(name: bytes, fields: dict[bytes, bytes]) -> Entry:
    number = int(name.partition(b"-")[0])
    if (data := fields.get(b"event")) is not None:
        data.decode()
        event = Event(data)
        read_event(event)
        return Entry(number, [event])
    data = fields[b"chunks"]
    data.decode()  # msgspec does not look into the strings of what it leaves raw
    chunks = [bytes(chunk) for chunk in _chunk_lists.decode(data)]
    return Entry(number + 1 - len(chunks), chunks)
