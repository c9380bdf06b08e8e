"""The AsyncAPI 3.0 description of the framed socket, generated from the frame types.

Format: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

import msgspec

from agentws.protocol.frames import ClientFrame, ServerFrame

_ADDRESS: Final = "/invocations_ws/ws"
_CHANNEL: Final = "framed"


def describe(version: str) -> Mapping[str, Any]:
    """Return the document for a version of the server, ready to be encoded as JSON."""
    received = get_args(ClientFrame)
    sent = get_args(ServerFrame)
    _, schemas = msgspec.json.schema_components(
        (*received, *sent), ref_template="#/components/schemas/{name}"
    )
    for frame in received:  # what it does not know, it ignores (§3)
        del schemas[frame.__name__]["additionalProperties"]
    messages = {frame.__name__: _message(frame) for frame in (*received, *sent)}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "agentws framed socket",
            "version": version,
            "description": "Invoke an agent, follow, poll and cancel it, over one WebSocket.",
        },
        "defaultContentType": "application/json",
        "channels": {
            _CHANNEL: {
                "address": _ADDRESS,
                "description": "One JSON object per WebSocket message.",
                "messages": {name: _ref("components", "messages", name) for name in messages},
            }
        },
        "operations": {
            "act": _operation("receive", "What a client asks for.", received),
            "answer": _operation("send", "What the server says.", sent),
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def _message(frame: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        "name": str(frame.__struct_config__.tag),
        "summary": frame.__doc__,
        "payload": _ref("components", "schemas", frame.__name__),
    }


def _operation(action: str, summary: str, frames: Iterable[type[msgspec.Struct]]) -> dict[str, Any]:
    return {
        "action": action,
        "summary": summary,
        "channel": _ref("channels", _CHANNEL),
        "messages": [_ref("channels", _CHANNEL, "messages", frame.__name__) for frame in frames],
    }


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "/".join(("#", *path))}
