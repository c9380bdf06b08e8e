"""What the framed socket cannot use is refused, and harms nothing (§7)."""

import re
from typing import Any

import pytest

from tests.conftest import Client, Frame, Serve
from tests.support.agents import Gate, agent_of, soon
from tests.transports.websocket.conftest import assert_alive, told

DEEP = "[" * 10_000 + "]" * 10_000
LONE_SURROGATE = '{"action":"invoke","payload":"%s and so on"}'

NOT_JSON: dict[str, str | bytes] = {
    "empty": "",
    "a word": "hello",
    "cut short": '{"action":"ping"',
    "something after it": '{"action":"ping"} {}',
    "single quotes": "{'action':'ping'}",
    "nan": '{"action":"invoke","payload":NaN}',
    "nested in the payload": '{"action":"invoke","payload":' + DEEP + "}",
    "nested in an unknown field": '{"action":"ping","x":' + DEEP + "}",
    "nested and no object": DEEP,
    "nested and never closed": "[" * 100_000,
    "nested objects": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "number out of range": '{"action":"invoke","payload":1e999}',
    "negative number out of range": '{"action":"invoke","payload":[-1e999]}',
    "high surrogate": LONE_SURROGATE % r"\ud800",
    "low surrogate": LONE_SURROGATE % r"\udc00",
    "surrogates swapped": LONE_SURROGATE % r"\udc00\ud800",
    "high surrogate at the end": r'{"action":"invoke","payload":"\ud83d"}',
    "surrogate in a key": r'{"action":"invoke","payload":{"\ud800 and so on":1}}',
    "control character": '{"action":"invoke","payload":"\x01"}',
    "binary, no UTF-8": b'{"action":"invoke","payload":"\xff"}',
    "binary, no UTF-8 in an unknown field": b'{"action":"ping","x":"\xff"}',
    "binary, overlong": b'{"action":"invoke","payload":"\xc0\xaf"}',
    "binary, a surrogate": b'{"action":"invoke","payload":"\xed\xa0\x80"}',
    "binary, UTF-16": '{"action":"ping"}'.encode("utf-16"),
    "binary, noise": bytes(range(256)),
}

NO_OBJECT: list[str | bytes] = [
    "[]",
    "1",
    "-0.5",
    "true",
    "null",
    '"ping"',
    '[{"action":"ping"}]',
    b"[]",
]

NO_ACTION: list[tuple[Frame, Frame]] = [
    ({}, {}),
    ({"action": None}, {}),
    ({"action": 5}, {}),
    ({"action": ["invoke"]}, {}),
    ({"action": {"invoke": 1}}, {}),
    ({"action": ""}, {}),
    ({"action": "Invoke"}, {}),
    ({"action": "x" * 10_000}, {}),
    ({"action": "result"}, {}),
    ({"type": "invoke"}, {}),
    ({"action": "explode", "invocation_id": "i"}, {"invocation_id": "i"}),
    ({"invocation_id": "i", "session_id": "s"}, {"invocation_id": "i", "session_id": "s"}),
    ({"action": 1, "invocation_id": "..", "session_id": "s"}, {"session_id": "s"}),
]

BAD_IDS: list[Any] = [5, True, {}, ["i"], "a b", "a/b", ".", "..", "a" * 257, "é", "i\n", "\x00"]

WITH_ID = ["get_invocation", "cancel_invocation", "attach_invocation"]

BAD_NUMBERS: list[Any] = ["1", -1, 1.5, True, [], ""]

BAD_REQUESTS: list[tuple[Frame, str]] = [
    *(({"action": "invoke", "invocation_id": bad}, "invocation_id") for bad in BAD_IDS),
    *(({"action": "invoke", "session_id": bad}, "session_id") for bad in BAD_IDS),
    *(({"action": action, "invocation_id": 5}, "invocation_id") for action in WITH_ID),
    *(({"action": action, "invocation_id": "a b"}, "invocation_id") for action in WITH_ID),
    *(({"action": action}, "invocation_id") for action in WITH_ID),
    *(({"action": action, "invocation_id": None}, "invocation_id") for action in WITH_ID),
    *(({"action": action, "invocation_id": ""}, "invocation_id") for action in WITH_ID),
    ({"action": "get_invocation", "invocation_id": "i", "session_id": 5}, "session_id"),
    ({"action": "cancel_invocation", "invocation_id": "i", "session_id": "."}, "session_id"),
    ({"action": "invoke", "invocation_id": "i", "session_id": "a b"}, "session_id"),
    ({"action": "invoke", "invocation_id": "a b", "session_id": "s"}, "invocation_id"),
    ({"action": "invoke", "background": "yes"}, "background"),
    ({"action": "invoke", "background": 1}, "background"),
    ({"action": "invoke", "on_disconnect": "explode"}, "on_disconnect"),
    ({"action": "invoke", "on_disconnect": True, "session_id": "s"}, "on_disconnect"),
    ({"action": "invoke", "on_disconnect": ""}, "on_disconnect"),
    ({"action": "invoke", "traceparent": 5}, "traceparent"),
    ({"action": "invoke", "tracestate": ["a"]}, "tracestate"),
    ({"action": "invoke", "baggage": {}}, "baggage"),
    *(
        (
            {"action": "attach_invocation", "invocation_id": "i", "starting_after": bad},
            "starting_after",
        )
        for bad in BAD_NUMBERS
    ),
]


def is_valid_id(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[a-z]{1,256}", value))


@pytest.fixture
async def bystander(serve: Serve) -> Any:
    """A socket with an invocation that runs beside whatever is sent, and must end as ever."""
    gate = Gate()
    server = await serve(agent_of(gate))
    async with server.connect() as client:
        await client.send(action="invoke", payload="unharmed", invocation_id="bystander")
        await soon(gate.entered)
        yield client
        await assert_alive(client)
        gate.opened.set()
        assert (await client.receive())["payload"] == "unharmed"


@pytest.mark.parametrize("message", NOT_JSON.values(), ids=NOT_JSON)
async def test_what_is_not_json(bystander: Client, message: str | bytes) -> None:
    await bystander.connection.send(message)
    frame = await bystander.receive()
    assert told(frame) == {"type": "error", "error": "invalid_json"}
    assert frame["error"]["source"] == "user"
    assert frame["error"]["retryable"] is False


@pytest.mark.parametrize("message", NO_OBJECT, ids=repr)
async def test_what_is_no_object(bystander: Client, message: str | bytes) -> None:
    await bystander.connection.send(message)
    frame = await bystander.receive()
    assert told(frame) == {"type": "error", "error": "invalid_message"}
    assert frame["error"]["source"] == "user"


@pytest.mark.parametrize(("message", "echoed"), NO_ACTION, ids=lambda value: repr(value)[:60])
async def test_what_has_no_action(bystander: Client, message: Frame, echoed: Frame) -> None:
    frame = await bystander.ask(**message)
    assert told(frame) == {"type": "error", "error": "invalid_action", **echoed}
    assert frame["error"]["source"] == "user"
    assert len(frame["error"]["message"]) < 1000
    action = message.get("action")
    if isinstance(action, str) and action:
        assert action[:64] in frame["error"]["message"]


@pytest.mark.parametrize(("message", "field"), BAD_REQUESTS, ids=lambda value: repr(value)[:80])
async def test_what_has_a_bad_field(bystander: Client, message: Frame, field: str) -> None:
    frame = await bystander.ask(**message)
    assert told(frame) == {
        "type": "error",
        "action": message["action"],
        "error": "invalid_request",
        **{
            name: message[name]
            for name in ("invocation_id", "session_id")
            if is_valid_id(message.get(name))
        },
    }
    assert frame["error"]["source"] == "user"
    assert field in frame["error"]["message"]


async def test_much_bad_input_in_one_burst_is_answered_one_by_one(bystander: Client) -> None:
    messages = [*NOT_JSON.values(), *NO_OBJECT] * 20
    for message in messages:
        await bystander.connection.send(message)
    for _ in messages:
        assert (await bystander.receive())["type"] == "error"
