"""The AsyncAPI 3.0 description of the framed socket, generated from frames and the agent's types.

Format: https://www.asyncapi.com/docs/reference/specification/v3.0.0. Its schemas are of JSON Schema
draft-07. Generators make one type of the messages of a channel, so each direction is a channel, and
call by a number what has no name, so each enumeration has one.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final, get_args

import msgspec

from agentws.protocol.frames import ClientFrame, Invoke, Result, ServerFrame, StreamChunk
from agentws.protocol.schemas import (
    REFERENCE,
    UNTYPED,
    Components,
    Contract,
    Schema,
    changed_throughout,
    reference,
    with_references,
)

Frames = Collection[type[msgspec.Struct]]

_ADDRESS: Final = "/invocations_ws/ws"
_CHANNELS: Final[Mapping[str, Frames]] = {
    "ClientFrame": get_args(ClientFrame),
    "ServerFrame": get_args(ServerFrame),
}


def describe(version: str, contract: Contract = UNTYPED) -> Mapping[str, Any]:
    """Return the document for a version of the server, ready to be encoded as JSON.

    It has no servers: where they are, only those know who reach them.
    """
    frames = [frame for channel in _CHANNELS.values() for frame in channel]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "agentws framed socket",
            "version": version,
            "description": "Invoke an agent, follow, poll and cancel it, over one WebSocket.",
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(messages) for name, messages in _CHANNELS.items()},
        "operations": {
            "act": _operation("receive", "What a client asks for.", "ClientFrame"),
            "answer": _operation("send", "What the server says.", "ServerFrame"),
        },
        "components": {
            "messages": {frame.__name__: _message(frame, contract) for frame in frames},
            "schemas": _schemas(frames, contract),
        },
    }


def servers(host: str, *, is_secure: bool) -> Mapping[str, Any]:
    """Return the field `servers` of a document: the one at `host`, which may name a port."""
    return {"this": {"host": host, "protocol": "wss" if is_secure else "ws"}}


def _channel(messages: Frames) -> dict[str, Any]:
    return {
        "address": _ADDRESS,
        "description": "One JSON object per WebSocket message.",
        "messages": {
            frame.__name__: _ref("components", "messages", frame.__name__) for frame in messages
        },
    }


def _message(frame: type[msgspec.Struct], contract: Contract) -> dict[str, Any]:
    message = {
        "name": str(frame.__struct_config__.tag),
        "summary": frame.__doc__,
        "payload": reference(frame.__name__),
    }
    if frame is Invoke and contract.description:
        message["description"] = contract.description
    return message


def _operation(action: str, summary: str, channel: str) -> dict[str, Any]:
    return {
        "action": action,
        "summary": summary,
        "channel": _ref("channels", channel),
        "messages": [
            _ref("channels", channel, "messages", frame.__name__) for frame in _CHANNELS[channel]
        ],
    }


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "/".join(("#", *path))}


# --- schemas ---


def _schemas(frames: Frames, contract: Contract) -> Mapping[str, Schema]:
    """Return the schemas of frames, the agent's payloads in them, and all that these refer to."""
    _, named = msgspec.json.schema_components(frames, ref_template=REFERENCE)
    components = Components(reserved=_CHANNELS)
    components.add(named)
    for frame in get_args(ClientFrame):  # what it does not know, it ignores (§3)
        del components.schemas[frame.__name__]["additionalProperties"]
    _name_enumerations(components)
    names = components.add(contract.schemas, "Agent")
    answer = StreamChunk if contract.streams else Result
    for frame, payload in ((Invoke, contract.payload), (answer, contract.answer)):
        if payload is not None:
            fields = components.schemas[frame.__name__]["properties"]
            fields["payload"] = with_references(payload, names)
    _name_enumerations(components)
    return {
        name: changed_throughout(schema, _in_draft_07)
        for name, schema in components.schemas.items()
    }


def _name_enumerations(components: Components) -> None:
    """Have a name for each enumeration that fields have: that of their class, and their own."""

    def named(wished: str, part: Schema) -> Schema:
        match part:
            case {"enum": [value], **more}:
                return {**more, "const": value}
            case {"enum": values, **more}:
                names = components.add({wished: {"title": wished, "enum": values}})
                return {**more, **reference(names[wished])}
            case _:
                return part

    for name, schema in list(components.schemas.items()):
        for field, part in schema.get("properties", {}).items():
            wished = name + "".join(word.capitalize() for word in field.split("_"))
            schema["properties"][field] = changed_throughout(part, partial(named, wished))


def _in_draft_07(part: Schema) -> Schema:
    """Say what draft 2020-12 and OpenAPI say of tuples and of tagged unions as draft-07 does."""
    told = {keyword: value for keyword, value in part.items() if keyword != "discriminator"}
    if "prefixItems" in told:
        if "items" in told:
            told["additionalItems"] = told["items"]
        told["items"] = told.pop("prefixItems")
    return told
