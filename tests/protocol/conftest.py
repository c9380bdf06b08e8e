"""What tests of the wire share: texts that are no frames, ids good and bad, and any JSON."""

import json
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from agentws.protocol.decoding import BadFrame, decode_frame
from agentws.protocol.encoding import encode
from agentws.protocol.errors import error_body
from agentws.protocol.frames import ErrorFrame

Fields = dict[str, Any]

ACTIONS = (
    "invoke",
    "get_invocation",
    "cancel_invocation",
    "attach_invocation",
    "detach_invocation",
    "send_input",
    "list_invocations",
    "ping",
    "pong",
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
IDS = {"invocation_id": "i", "session_id": "s"}

OPTIONAL_IDS = [
    ("invoke", "invocation_id"),
    ("invoke", "session_id"),
    ("get_invocation", "session_id"),
    ("cancel_invocation", "session_id"),
]

ID_CHARACTERS = string.ascii_letters + string.digits + "._:-"

BAD_IDS = [
    ".",
    "..",
    "." * 256,
    "a" * 257,
    "a\n",
    "\n",
    "a\nb",
    "a b",
    " a",
    "a ",
    "a/b",
    "../a",
    "a%20",
    "a\x00",
    "é",
    "e\u0301",
    "日本",
    "\U0001f600",
    "\u0661",  # a digit, but an Arabic one
    "\uff41",  # a letter, but a wide one
    "\u212a",  # the sign of the kelvin: a K when its case is ignored
]

GOOD_IDS = [
    "a",
    "Z",
    "0",
    "-",
    "_",
    ":",
    ".a",
    "a.",
    "..-",
    "." * 255 + ":",
    "a" * 256,
    ID_CHARACTERS,
    "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)


# Tables of Unicode are built on the first draw, and machines that test are busy.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
any_text = st.text(st.characters())  # lone surrogates, too


def nested(depth: int) -> str:
    """Return lists in lists."""
    return "[" * depth + "]" * depth


NOT_JSON = {
    "empty": "",
    "blank": " \n",
    "byte order mark": '\ufeff{"action":"ping"}',
    "words": "action: ping",
    "not a number": "NaN",
    "infinity": '{"action":"invoke","payload":Infinity}',
    "single quotes": "{'action':'ping'}",
    "cut off": '{"action":"ping"',
    "cut off in a string": '{"action":"pi',
    "trailing comma": '{"action":"ping",}',
    "two values": '{"action":"ping"}{"action":"ping"}',
    "comment": '{"action":"ping"/**/}',
    "control character": '{"action":"ping","x":"\x01"}',
    "unknown escape": '{"action":"ping","x":"\\q"}',
    "leading zero": '{"action":"invoke","payload":01}',
    "number without digits": '{"action":"invoke","payload":1.}',
    "lone surrogate": '{"action":"invoke","payload":"\\ud800"}',
    "lone low surrogate": '{"action":"invoke","payload":"\\udc00"}',
    "surrogates in the wrong order": '{"action":"invoke","payload":"\\ude00\\ud83d"}',
    "lone surrogate in a key": '{"action":"invoke","payload":{"\\ud800":1}}',
    "lone surrogate in an unknown field": '{"action":"ping","x":"\\ud800"}',
    "lone surrogate as unknown field": '{"action":"ping","\\ud800":1}',
    "lone surrogate in the action": '{"action":"\\ud800"}',
    "lone surrogate in an id": '{"action":"invoke","invocation_id":"\\ud800"}',
    "lone surrogate beside a wrong type": '{"action":"invoke","background":1,"payload":"\\ud800"}',
    "number out of range": '{"action":"invoke","payload":1e999}',
    "negative number out of range": '{"action":"invoke","payload":[-1e999]}',
    "number out of range beside a wrong type": '{"action":7,"payload":1e999}',
    "5,000 digits": '{"action":"invoke","payload":' + "9" * 5_000 + "}",
    "starting after 5,000 digits": (
        '{"action":"attach_invocation","invocation_id":"i","starting_after":' + "9" * 5_000 + "}"
    ),
    "10,000 deep": '{"action":"invoke","payload":' + nested(10_000) + "}",
    "1,000,000 deep": '{"action":"invoke","payload":' + nested(1_000_000) + "}",
    "objects 10,000 deep": '{"action":"invoke","payload":' + '{"":' * 10_000 + "0" + "}" * 10_001,
    "10,000 deep in an unknown field": '{"action":"ping","x":' + nested(10_000) + "}",
    "10,000 deep instead of an object": nested(10_000),
    "10,000 deep beside a wrong type": '{"action":7,"x":' + nested(10_000) + "}",
}


def dumps(**fields: Any) -> str:
    """Return the text of a message."""
    return json.dumps(fields)


def refusal(message: str | bytes) -> BadFrame:
    """Return what a message, which must be bad, is refused with."""
    with pytest.raises(BadFrame) as caught:
        decode_frame(message)
    return caught.value


def echo(bad: BadFrame) -> Fields:
    """Return what the answer tells of the message that it refuses."""
    ids = bad.invocation_id, bad.session_id, bad.query_id
    fields = json.loads(encode(ErrorFrame(error_body(bad.error), bad.action, *ids)))
    return {name: value for name, value in fields.items() if name not in ("type", "error")}
