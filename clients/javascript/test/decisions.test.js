/** What is decided without a socket. */
import assert from "node:assert/strict"
import { test } from "node:test"

import { decisions } from "../agentws.js"

const { socketUrl, routeUrl, retryDelay, delayAfter, verdict, onSilence, encode } = decisions

function urlOf(url, { base, ...options } = {}) {
  return socketUrl(url, { query: {}, sessionId: "s", ...options }, base).href
}

test("the address of a server stands for that of its socket", () => {
  const whole = "ws://host:8088/invocations_ws/ws?agent_session_id=s"
  assert.equal(urlOf("http://host:8088"), whole)
  assert.equal(urlOf("http://host:8088/"), whole)
  assert.equal(urlOf("ws://host:8088/invocations_ws/ws#there"), whole)
  assert.equal(urlOf("https://host/a"), "wss://host/a/invocations_ws/ws?agent_session_id=s")
  assert.equal(urlOf("https://host/invocations_ws"), "wss://host/invocations_ws?agent_session_id=s")
  assert.equal(urlOf("wss://host/a/b"), "wss://host/a/b?agent_session_id=s")
})

test("a relative address begins at the page's", () => {
  const base = "https://host/console/index.html"
  assert.equal(
    urlOf("/invocations_ws/ws", { base }),
    "wss://host/invocations_ws/ws?agent_session_id=s",
  )
})

test("what leads to no server is said to be no URL", () => {
  for (const url of ["", "localhost:8088", "ftp://host", "http://", "/invocations_ws/ws", "ws://host:0"]) {
    assert.throws(() => urlOf(url), {
      name: "TypeError",
      message: `"${url}" is no URL of a server: ws, wss, http or https and a host`,
    })
  }
  assert.throws(() => urlOf("localhost:8088", { base: "https://host/" }), TypeError)
})

test("the query is the user's, with the session", () => {
  assert.equal(
    urlOf("ws://host/ws?a=1", { query: { b: "2 & 3" }, sessionId: "x" }),
    "ws://host/ws?a=1&b=2+%26+3&agent_session_id=x",
  )
})

test("the other routes are beside the socket's", () => {
  const of = (socket) => routeUrl(new URL(socket), "/invocations?limit=1").href
  assert.equal(of("ws://host:1/invocations_ws/ws?x=1"), "http://host:1/invocations?limit=1")
  assert.equal(of("wss://host/a/invocations_ws/ws/"), "https://host/a/invocations?limit=1")
  assert.equal(of("wss://host/a/invocations_ws"), "https://host/a/invocations?limit=1")
  assert.equal(of("wss://host/a/"), "https://host/a/invocations?limit=1")
})

test("delays double up to a bound, and are anything below", () => {
  const bounds = [0, 1, 2, 3, 20, 2000].map((attempt) => retryDelay(attempt, 10, 1))
  assert.deepEqual(bounds, [0.1, 0.2, 0.4, 0.8, 10, 10])
  assert.equal(retryDelay(3, 10, 0), 0)
  assert.equal(retryDelay(0, 0.01, 1), 0.01)
  const some = retryDelay(3, 10)
  assert.ok(some >= 0 && some < 0.8)
})

test("a refused handshake is tried again, but where that is of no use", () => {
  for (const status of [400, 404, 426]) assert.equal(delayAfter({ status }, false, 1), Infinity)
  for (const status of [401, 403]) {
    assert.equal(delayAfter({ status }, true, 1), 0)
    assert.equal(delayAfter({ status }, false, 1), Infinity)
  }
  for (const status of [undefined, 200, 429, 500, 501, 503]) {
    assert.equal(delayAfter({ status }, false, 1), 1)
    assert.equal(delayAfter({ status, retryAfter: 30 }, false, 1), 30)
  }
  assert.equal(delayAfter({ isHopeless: true }, false, 1), Infinity)
})

test("a repetition is tried again when its refusal says nothing of what was asked", () => {
  for (const code of ["store_unavailable", "shutting_down"]) {
    for (const kind of ["invoke", "attach", "cancel", "input", "get", "list"]) {
      assert.equal(verdict(code, kind, false), "raise")
      assert.equal(verdict(code, kind, true), "retry")
    }
  }
  assert.equal(verdict("too_many_inputs", "input", true), "raise")
})

test("what a repetition is refused for may be done already", () => {
  for (const code of ["already_finished", "input_not_expected"]) {
    for (const kind of ["cancel", "input"]) {
      assert.equal(verdict(code, kind, true), "done")
      assert.equal(verdict(code, kind, false), "raise")
    }
    assert.equal(verdict(code, "invoke", true), "raise")
  }
})

test("half of the silence asks for a ping", () => {
  assert.deepEqual(
    [0, 29.9, 30, 59.9, 60, 1e6].map((seconds) => onSilence(seconds, 60)),
    ["wait", "wait", "ping", "ping", "lost", "lost"],
  )
})

test("half characters are mended, for no JSON of Unicode has them", () => {
  assert.equal(encode({ a: "😀".slice(0, 1) + "b" }), '{"a":"\\ufffdb"}')
  assert.equal(encode({ a: "\\" + "😀".slice(1) }), '{"a":"\\\\\\ufffd"}')
  assert.equal(encode({ a: "😀 \\ud83d" }), '{"a":"😀 \\\\ud83d"}')
})
