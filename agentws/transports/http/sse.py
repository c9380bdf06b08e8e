"""Server-Sent Events: the log of an invocation as an event stream (§6).

https://html.spec.whatwg.org/multipage/server-sent-events.html

Written here and not with aiohttp-sse, which writes every event by itself: measured on one machine,
that took 38 times the CPU time of writing together what is ready together.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from aiohttp import web
from msgspec.json import format as format_json

from agentws.protocol.encoding import encode
from agentws.protocol.errors import ReplayGap, error_body
from agentws.protocol.events import Awaiting, Event, read_event
from agentws.protocol.frames import InputReceived, InputRequired, event_frame, question_frame
from agentws.protocol.records import Record
from agentws.stores.log_reader import LogReader
from agentws.transports.http.wishes import EVENTS
from agentws.transports.send_deadline import SendDeadline

_HEADERS: Final = {
    "Content-Type": EVENTS,
    "Cache-Control": "no-cache, no-transform",  # what compresses on the way would hold events back
    "X-Accel-Buffering": "no",  # asks nginx to pass events on as they come
}

KEEP_ALIVE: Final = b": keep-alive\n\n"

END_ID: Final = "end"
"""The id of the event that ends an invocation, where chunks have their number."""


class EventStream:
    """One client that follows a log over HTTP."""

    def __init__(
        self,
        reader: LogReader,
        questions: Sequence[Awaiting] = (),
        gap: ReplayGap | None = None,
        *,
        keep_alive: float,
        send_timeout: float,
    ) -> None:
        """Make a stream of what `reader` reads, after `questions`; of these alone, with a `gap`.

        A comment is sent after `keep_alive` seconds of silence, 0 for never; a client that takes
        nothing for `send_timeout` seconds is dropped.
        """
        self._reader = reader
        self._questions = questions
        self._gap = gap
        self._silence = keep_alive or None
        self._send_timeout = send_timeout
        self._ended = False

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send the headers at once, then events until the log ends.

        Raises `ConnectionError` when the client has left.
        """
        response = web.StreamResponse(headers=_HEADERS)
        if request.transport is None:
            raise ConnectionResetError("The client left before the answer")
        deadline = SendDeadline(request.transport, request.protocol, self._send_timeout)
        try:
            await response.prepare(request)
            if beginning := self._beginning():
                with deadline.watch():
                    await response.write(beginning)
            while not self._ended:
                events = await self._next_events()
                with deadline.watch():
                    await response.write(events)
            with deadline.watch():
                await response.write_eof()
        finally:
            deadline.stop()
        return response

    def _beginning(self) -> bytes:
        """Return the events of questions that are open and not in the replay, and of a gap."""
        events = self._told(self._questions)
        if self._gap is not None:
            events += self._gap_event(self._gap)
        return events

    def _told(self, questions: Iterable[Awaiting]) -> bytes:
        record = self._reader.log.record
        ids = record.invocation_id, record.session_id
        return b"".join(_frame_event(question_frame(question, *ids)) for question in questions)

    def _gap_event(self, gap: ReplayGap) -> bytes:
        self._ended = True
        return _event("error", encode({"error": error_body(gap)}))  # the invocation goes on

    async def _next_events(self) -> bytes:
        number = self._reader.position
        try:
            chunks = await self._reader.read(self._silence)
        except TimeoutError:
            return KEEP_ALIVE
        except ReplayGap as gap:
            return self._told(self._reader.log.record.awaiting) + self._gap_event(gap)
        events = _entry_events(chunks, number + 1, self._reader.log.record)
        if self._reader.finished:
            self._ended = True
            events += self._end_event()
        return events

    def _end_event(self) -> bytes:
        record = self._reader.log.record
        if record.error is not None:
            return _end("error", encode({"error": error_body(record.error)}))
        if not record.streams:
            return _end("result", record.result or b"null")
        ids = {"invocation_id": record.invocation_id, "session_id": record.session_id}
        return _end("stream_end", encode(ids))


def _entry_events(entries: Sequence[bytes], first: int, record: Record) -> bytes:
    ids = record.invocation_id, record.session_id
    return b"".join(
        _frame_event(event_frame(read_event(entry), *ids, number))
        if isinstance(entry, Event)
        else b"id: %d\nevent: stream_chunk\ndata: %b\n\n" % (number, _on_one_line(entry))
        for number, entry in enumerate(entries, first)
    )


def _frame_event(frame: InputRequired | InputReceived) -> bytes:
    """Return a frame as an event, numbered as it is (§6)."""
    name = str(frame.__struct_config__.tag)
    return b"id: %d\n%b" % (frame.sequence_number, _event(name, encode(frame)))


def _on_one_line(data: bytes) -> bytes:
    """Return JSON without the line breaks that only `msgspec.Raw` can have brought in."""
    return data if b"\n" not in data and b"\r" not in data else format_json(data, indent=-1)


def _end(name: str, data: bytes) -> bytes:
    return b"id: %b\n%b" % (END_ID.encode(), _event(name, data))


def _event(name: str, data: bytes) -> bytes:
    """Return an event without an id, so that it moves no client's `Last-Event-ID`."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _on_one_line(data))
