"""The OpenAPI 3.1 description of the HTTP routes (§6), generated from the agent's types.

Format: https://spec.openapis.org/oas/v3.1.0. What `Accept` may ask for are the media types of an
answer, as the format has it.
"""

from collections.abc import Mapping
from typing import Any, Final

from agentws.protocol.openapi_parts import (
    CALLER,
    COUNT,
    GIVEN_ID,
    HEADERS,
    ID,
    JSON,
    OF_INVOKE,
    OF_ONE,
    PATH_ID,
    QUOTED_ID,
    STATUS,
    TEXT,
    Part,
    answer,
    errors,
    event,
    header,
    headers_of,
    one_of,
    query,
    schemas,
)
from agentws.protocol.schemas import Components, Contract, Schema, reference, with_references

_INVOKE_PARAMETERS: Final = (
    header("x-agent-invocation-id", GIVEN_ID, "The id that the invocation gets."),
    header(
        "Idempotency-Key",
        {"anyOf": [ID, QUOTED_ID]},
        "The same; where the caller has an invocation of that id, that is attached to.",
    ),
    header("x-agent-if-session-busy", one_of("parallel", "reject", "interrupt")),
    header("x-agent-on-disconnect", one_of("continue", "cancel")),
    header("Prefer", TEXT, "`respond-async`: answer at once, by a record to be polled."),
    query("agent_session_id", GIVEN_ID, "The session that the invocation belongs to."),
    *CALLER,
)

_INVOKE_ERRORS: Final = {
    "400": "invalid_json, invalid_request",
    "409": "already_exists, session_busy, cancelled",
    "413": "payload_too_large",
    "415": "unsupported_media_type",
    "429": "too_many_invocations",
    "502": "lost",
    "504": "timeout",
}


def describe(
    contract: Contract,
    *,
    title: str,
    version: str,
    has_own_polls: bool = False,
    has_own_cancels: bool = False,
) -> Mapping[str, Any]:
    """Return the document for an agent, ready to be encoded as JSON.

    `has_own_polls` and `has_own_cancels` tell whether handlers of the agent's answer these, who
    knows what.
    """
    components = Components()
    components.add(schemas())
    names = components.add(contract.schemas, "Agent")
    taken = with_references(contract.payload or {}, names)
    given = with_references(contract.answer or {}, names)
    if not contract.streams:
        components.schemas["RecordView"]["properties"]["result"] = given
    components.add({"Event": _event(contract, given)})
    record = {} if has_own_polls else reference("RecordView")
    cancellation = {} if has_own_cancels else reference("Cancellation")
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": {
            "/invocations": {"post": _invoke(contract, taken, given), "get": _list()},
            "/invocations/{id}": {"parameters": [PATH_ID], "get": _get(record)},
            "/invocations/{id}/inputs": {"parameters": [PATH_ID], "post": _send_input()},
            "/invocations/{id}/cancel": {"parameters": [PATH_ID], "post": _cancel(cancellation)},
        },
        "components": {"schemas": components.schemas, "headers": HEADERS},
    }


def _event(contract: Contract, given: Schema) -> Schema:
    """Return the schema of the events that a stream is made of."""
    chunk, result = (given, {}) if contract.streams else ({}, given)
    return {
        "description": "One of the Server-Sent Events of a stream. The id of a chunk and of what is"
        " said of questions is its number, that of the last event is `end`.",
        "anyOf": [
            event("stream_chunk", chunk),
            event("input_required", {"type": "object"}),
            event("input_received", {"type": "object"}),
            event("stream_end", {"type": "object"}),
            event("result", result),
            event("error", reference("Error")),
        ],
    }


def _invoke(contract: Contract, taken: Schema, given: Schema) -> Part:
    summary, _, more = contract.description.partition("\n")
    whole = {"type": "array", "items": given} if contract.streams else given
    return {
        "operationId": "invoke",
        "summary": summary or "Invoke the agent.",
        "description": more.strip(),
        "parameters": _INVOKE_PARAMETERS,
        "requestBody": {
            "description": "The payload; an empty body is `{}`.",
            "required": contract.payload is not None,
            "content": {JSON: {"schema": taken}},
        },
        "responses": {
            "200": answer("What the agent answers.", whole, OF_INVOKE, reference("Event")),
            "202": answer(
                "It runs.",
                reference("RecordView"),
                (*OF_INVOKE, "Location", "Preference-Applied"),
            ),
            **errors(_INVOKE_ERRORS),
        },
    }


def _list() -> Part:
    return {
        "operationId": "listInvocations",
        "summary": "List the caller's invocations, the newest first.",
        "parameters": [
            query("session_id", GIVEN_ID),
            query("status", STATUS, "The status that their records have."),
            query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
            query("after", TEXT, "`next` of the page before."),
            *CALLER,
        ],
        "responses": {
            "200": answer("A page of records, without results.", reference("Invocations")),
            **errors({"400": "invalid_request"}),
        },
    }


def _get(record: Schema) -> Part:
    return {
        "operationId": "getInvocation",
        "summary": "Poll an invocation, or follow it.",
        "parameters": [
            header("Last-Event-ID", TEXT, "The number of the chunk to start after, or `end`."),
            query("starting_after", COUNT, "The number of the chunk to start after."),
            *CALLER,
        ],
        "responses": {
            "200": answer("How it stands.", record, OF_ONE, reference("Event")),
            "204": {"description": "It has ended with `end`.", "headers": headers_of(OF_ONE)},
            **errors({"400": "invalid_request", "404": "not_found", "410": "replay_gap"}),
        },
    }


def _send_input() -> Part:
    return {
        "operationId": "sendInput",
        "summary": "Say something to a running invocation, or answer a question of its.",
        "parameters": CALLER,
        "requestBody": {"content": {JSON: {"schema": reference("Input")}}},
        "responses": {
            "202": answer("It is taken.", reference("InputAccepted"), OF_ONE),
            **errors(
                {
                    "400": "invalid_json, invalid_request",
                    "404": "not_found",
                    "409": "already_finished, input_not_expected",
                    "413": "payload_too_large",
                    "415": "unsupported_media_type",
                    "429": "too_many_inputs",
                }
            ),
        },
    }


def _cancel(cancellation: Schema) -> Part:
    return {
        "operationId": "cancelInvocation",
        "summary": "Cancel an invocation.",
        "parameters": CALLER,
        "responses": {
            "200": answer("It has ended, or is about to.", cancellation, OF_ONE),
            **errors({"400": "invalid_request", "404": "not_found", "409": "already_finished"}),
        },
    }
