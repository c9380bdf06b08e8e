"""What has been trouble for servers like this one, or might be; fuzzing starts from here."""

from typing import Final

MESSAGES: Final[list[bytes]] = [
    b"",
    b" ",
    b"\x00",
    b"null",
    b"[]",
    b'""',
    b"{}",
    b"{" * 1000,
    b"[" * 100_000,
    b'{"action":' * 2000,
    b'{"action":"invoke","payload":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"action":"invoke","payload":1e999}',
    b'{"action":"invoke","payload":-1e999}',
    b'{"action":"invoke","payload":' + b"9" * 5000 + b"}",
    b'{"action":"invoke","payload":NaN}',
    b'{"action":"invoke","payload":"\\ud800"}',
    b'{"action":"invoke","payload":"\xff"}',
    b'{"action":"invoke","payload":"\xed\xa0\x80"}',
    b'{"action":"invoke","unknown":"\xff"}',
    b'{"action":"invoke","payload":{"__proto__":1,"constructor":{}}}',
    b'{"action":"invoke","invocation_id":"../../etc/passwd"}',
    b'{"action":"invoke","invocation_id":"a\\r\\nSet-Cookie: b=c"}',
    b'{"action":"invoke","invocation_id":"..."}',
    b'{"action":"invoke","invocation_id":"' + b"a" * 257 + b'"}',
    b'{"action":"invoke","session_id":{"$ne":null}}',
    b'{"action":"invoke","on_disconnect":"explode"}',
    b'{"action":"invoke","background":"yes"}',
    b'{"action":"invoke","traceparent":5}',
    b'{"action":"invoke","traceparent":"00-' + b"0" * 32 + b'-0000000000000000-00"}',
    b'{"action":"invoke","baggage":"' + b"a=b," * 5000 + b'"}',
    b'{"action":"invoke","tracestate":"' + b"\\u0000" * 100 + b'"}',
    b'{"action":"\\u0069nvoke"}',
    b'{"action":"INVOKE"}',
    b'{"action":["invoke"]}',
    b'{"action":"' + b"x" * 100_000 + b'"}',
    b'{"action":"ping","action":"invoke"}',
    b'{"action":"invoke","action":5}',
    b'{"action":"attach_invocation","invocation_id":"a","starting_after":-1}',
    b'{"action":"attach_invocation","invocation_id":"a","starting_after":1e3}',
    b'{"action":"attach_invocation","invocation_id":"a","starting_after":' + b"9" * 40 + b"}",
    b'{"action":"get_invocation"}',
    b'{"action":"cancel_invocation","invocation_id":""}',
    b'\xef\xbb\xbf{"action":"ping"}',
    b'{"action":"ping"}{"action":"ping"}',
    b'{"action":"ping",}',
    b"{'action':'ping'}",
]
"""Messages on the framed socket."""

FRAMES: Final[list[bytes]] = [
    b"\x81\x00",  # not masked
    b"\x83\x80\x00\x00\x00\x00",  # an opcode that is reserved
    b"\xc1\x80\x00\x00\x00\x00",  # a bit that is reserved
    b"\x09\x80\x00\x00\x00\x00",  # a ping in fragments
    b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + b"x" * 126,  # a ping that is too long
    b"\x80\x80\x00\x00\x00\x00",  # the continuation of nothing
    b"\x01\x80\x00\x00\x00\x00\x81\x80\x00\x00\x00\x00",  # a message within another
    b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",  # of 2**64 bytes
    b"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x81\xfe\x00\x01\x00\x00\x00\x00x",  # a length that is longer than it need be
    b"\x81\x81\x00\x00\x00\x00\xff",  # no UTF-8
    b"\x88\x81\x00\x00\x00\x00\x03",  # half a close code
    b"\x88\x82\x00\x00\x00\x00\x03\xed",  # a close code that nobody may send
    b"\x88\x82\x00\x00\x00\x00\xff\xff",
    b"\x88\x83\x00\x00\x00\x00\x03\xe8\xff",
]
"""Bytes after the handshake."""

REQUESTS: Final[list[bytes]] = [
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET http://evil.example/readiness HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET //readiness HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /invocations/%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /invocations/%2e%2e HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /invocations/..%2f..%2fetc HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /invocations/%ff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /invocations/a?agent_session_id=%ff&agent_session_id=b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /invocations/a?" + b"a=b&" * 1500 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 500 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\na: " + b"b" * 9000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"TRACE /readiness HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n1",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"FFFFFFFFFFFFFFFFF\r\n",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nExpect: the-moon\r\nContent-Length: 0\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
    b"Content-Length: 0\r\n\r\n",
    b"GET /invocations_ws/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n",
]
"""Bytes on a new connection."""
