"""What the routes' descriptions are made of: parameters, answers, errors, and their schemas."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from agentws.protocol.errors import ErrorBody
from agentws.protocol.identifiers import Id
from agentws.protocol.records import RecordView, ShownStatus
from agentws.protocol.schemas import REFERENCE, Schema, reference

Part = dict[str, Any]

JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"

ID: Final[Schema] = msgspec.json.schema(Id)
GIVEN_ID: Final[Schema] = {**ID, "pattern": f"^$|{ID['pattern']}"}
"""An id that may be empty, and then counts as not given (§2)."""
QUOTED_ID: Final[Schema] = {"type": "string", "pattern": '^"(?!\\.+"$)[A-Za-z0-9._:-]{1,256}"$'}
TEXT: Final[Schema] = {"type": "string"}
STATUS: Final[Schema] = {"type": "string", **msgspec.json.schema(ShownStatus)}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}


def schemas() -> Mapping[str, Schema]:
    """Return the schemas of what all agents' routes take and answer, by their names."""
    _, generated = msgspec.json.schema_components([RecordView, ErrorBody], ref_template=REFERENCE)
    return {**generated, **_SCHEMAS}


def one_of(*words: str) -> Schema:
    """Return the schema of one of a few words."""
    return {"type": "string", "enum": list(words)}


def _object(**properties: Schema) -> Schema:
    """Return the schema of an object; the fields whose names end in `_` may be left out."""
    return {
        "type": "object",
        "properties": {name.rstrip("_"): schema for name, schema in properties.items()},
        "required": [name for name in properties if not name.endswith("_")],
    }


_SCHEMAS: Final[Mapping[str, Schema]] = {
    "Error": _object(error=reference("ErrorBody")),
    "Invocations": _object(
        invocations={"type": "array", "items": reference("RecordView")},
        next_={**TEXT, "description": "`after` of the page that follows."},
    ),
    "Cancellation": _object(invocation_id=ID, status=one_of("cancelled", "cancelling")),
    "Input": _object(
        payload_={"default": {}},
        request_id_={**ID, "description": "The question that it answers."},
        input_id_={**ID, "description": "The sender's name for it: sent twice, it is taken once."},
    ),
    "InputAccepted": _object(invocation_id=ID, input_id_=ID, status={"const": "accepted"}),
}


# --- parameters ---


def header(name: str, schema: Schema, description: str = "") -> Part:
    """Return a header that a request may have."""
    return {"in": "header", "name": name, "schema": schema, "description": description}


def query(name: str, schema: Schema, description: str = "") -> Part:
    """Return a parameter that a query may have."""
    return {"in": "query", "name": name, "schema": schema, "description": description}


PATH_ID: Final[Part] = {"in": "path", "name": "id", "required": True, "schema": ID}

CALLER: Final[list[Part]] = [
    header("x-agent-user-id", TEXT, "For whom it is called, unless a token says so."),
    header("x-agent-foundry-call-id", TEXT),
    header("x-request-id", TEXT, "The id of the request in logs and answers."),
    header("traceparent", TEXT, "W3C Trace Context"),
]
"""Who calls, and in which trace."""


# --- answers ---

HEADERS: Final[Mapping[str, Part]] = {
    "x-request-id": {"schema": ID, "required": True},
    "x-platform-server": {"schema": TEXT, "required": True},
    "x-agent-session-id": {"schema": ID, "required": True},
    "x-agent-invocation-id": {"schema": ID, "required": True},
    "x-platform-error-source": {"schema": one_of("user", "upstream", "platform")},
    "Location": {"schema": {"type": "string", "format": "uri-reference"}},
    "Preference-Applied": {"schema": one_of("respond-async")},
    "Retry-After": {"schema": COUNT, "description": "Seconds; with 429 and 503."},
}

_ON_ALL: Final = ("x-request-id", "x-platform-server")
OF_ONE: Final = ("x-agent-invocation-id",)
"""The header of an answer about one invocation."""
OF_INVOKE: Final = (*OF_ONE, "x-agent-session-id")

_ANYWHERE: Final = {
    "401": "unauthorized",
    "403": "forbidden",
    "500": "internal_error",
    "503": "shutting_down, store_unavailable",
    "default": "Any other error, an agent's own among them.",
}


def answer(
    description: str,
    schema: Schema,
    headers: Iterable[str] = (),
    events: Schema | None = None,
) -> Part:
    """Return an answer in JSON, with the headers of all answers and these.

    With `events`, the schema of one, it may be a stream of events as well.
    """
    content = {JSON: {"schema": schema}}
    if events is not None:
        content[_EVENTS] = {"schema": events}
    return {"description": description, "headers": headers_of(headers), "content": content}


def event(name: str, data: Schema) -> Schema:
    """Return the schema of a Server-Sent Event, as its fields are called, whose data is JSON."""
    return _object(
        id_=TEXT,
        event={"const": name},
        data={"type": "string", "contentMediaType": JSON, "contentSchema": data},
    )


def errors(codes: Mapping[str, str]) -> Part:
    """Return the answers that are errors: these, by their status, and those of all routes."""
    told = {**codes, **_ANYWHERE}
    headers = ("x-platform-error-source", "Retry-After")
    return {status: answer(said, reference("Error"), headers) for status, said in told.items()}


def headers_of(names: Iterable[str]) -> Part:
    """Return the headers of an answer: those of all, and these."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*_ON_ALL, *names)}
