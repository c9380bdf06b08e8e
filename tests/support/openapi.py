"""The HTTP routes, described for tools that make up requests (OpenAPI 3.1).

Where a stream is taken up is left out: whether that is looked at depends on other headers.
"""

from typing import Any, Final

ID: Final = {"type": "string", "pattern": r"^(?!\.+$)[A-Za-z0-9._:-]{1,256}$"}
GIVEN_ID: Final = {"type": "string", "pattern": r"^(?!\.+$)[A-Za-z0-9._:-]{0,256}$"}
"""The same where an empty one counts as not given."""

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"

RECORD: Final = {
    "type": "object",
    "required": ["invocation_id", "session_id", "status", "created_at"],
    "properties": {
        "invocation_id": ID,
        "session_id": ID,
        "status": {"enum": ["running", "completed", "failed", "cancelled", "lost"]},
        "created_at": {"type": "string", "format": "date-time"},
        "finished_at": {"type": "string", "format": "date-time"},
    },
}
ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "retryable", "source"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "retryable": {"type": "boolean"},
                "source": {"enum": ["user", "upstream", "platform"]},
                "first_available": {"type": "integer"},
            },
        }
    },
}
CANCELLED: Final = {
    "type": "object",
    "required": ["invocation_id", "status"],
    "properties": {"invocation_id": ID, "status": {"enum": ["cancelled", "cancelling"]}},
}
HEALTH: Final = {"type": "object", "required": ["status"]}
READINESS: Final = {
    "type": "object",
    "required": ["status", "checks"],
    "properties": {
        "status": {"enum": ["healthy", "draining", "unavailable"]},
        "checks": {
            "type": "object",
            "required": ["store"],
            "additionalProperties": {"type": "string"},
        },
    },
}


def _header(name: str, schema: object) -> dict[str, object]:
    return {"in": "header", "name": name, "schema": schema}


def _query(name: str, schema: object) -> dict[str, object]:
    return {"in": "query", "name": name, "schema": schema}


def _answers(*errors: int, **good: dict[str, object]) -> dict[str, object]:
    """Return the answers: `_200={media type: schema}`, and those with the envelope of errors."""
    headers = {
        name: {"required": True, "schema": {"type": "string"}}
        for name in ("x-request-id", "x-platform-server")
    }
    told = {
        status[1:]: {
            "description": "Done",
            "headers": headers,
            "content": {media: {"schema": schema} for media, schema in content.items()},
        }
        for status, content in good.items()
    }
    refused = {
        str(status): {
            "description": "Refused",
            "headers": headers,
            "content": {JSON: {"schema": ERROR}},
        }
        for status in errors
    }
    return {**told, **refused}


_CALLER: Final = [
    _query("agent_session_id", GIVEN_ID),
    _header("x-agent-user-id", {"type": "string"}),
    _header("x-agent-foundry-call-id", {"type": "string"}),
    _header("x-request-id", {"type": "string"}),
    _header("traceparent", {"type": "string"}),
    _header("x-client-anything", {"type": "string"}),
]
_ACCEPT: Final = _header("Accept", {"type": "string", "examples": [JSON, EVENTS]})
_PATH_ID: Final = {"in": "path", "name": "id", "required": True, "schema": ID}

DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {"title": "agentws", "version": "0"},
    "paths": {
        "/invocations": {
            "post": {
                "parameters": [
                    *_CALLER,
                    _ACCEPT,
                    _header("x-agent-invocation-id", GIVEN_ID),
                    _header("Prefer", {"type": "string", "examples": ["respond-async"]}),
                ],
                "requestBody": {"content": {JSON: {"schema": {}}}},
                "responses": _answers(
                    400, 409, 413, 429, _200={JSON: {}, EVENTS: {}}, _202={JSON: RECORD}
                ),
            }
        },
        "/invocations/{id}": {
            "get": {
                "parameters": [
                    _PATH_ID,
                    *_CALLER,
                    _ACCEPT,
                ],
                "responses": _answers(400, 404, 410, _200={JSON: RECORD, EVENTS: {}}),
            }
        },
        "/invocations/{id}/cancel": {
            "post": {
                "parameters": [_PATH_ID, *_CALLER],
                "responses": _answers(400, 404, 409, _200={JSON: CANCELLED}),
            }
        },
        "/readiness": {
            "get": {"responses": _answers(_200={JSON: READINESS}, _503={JSON: READINESS})}
        },
        "/liveness": {"get": {"responses": _answers(_200={JSON: HEALTH})}},
        "/invocations/docs/openapi.json": {"get": {"responses": _answers(404, _200={JSON: {}})}},
        "/invocations_ws/docs/openapi.json": {"get": {"responses": _answers(404, _200={JSON: {}})}},
        "/invocations_ws/docs/asyncapi.json": {"get": {"responses": _answers(_200={JSON: {}})}},
    },
}
