/**
 * A WebSocket that is connected to nothing: a test says what the server does. `fakeServer()` returns
 * the constructor, and the sockets that were made with it.
 */
import assert from "node:assert/strict"

import { connect } from "../agentws.js"

class FakeSocket {
  readyState = 0
  sent = []
  #waiting = []

  constructor(url, options) {
    this.url = new URL(url)
    this.options = options
  }

  // --- what the client does ---

  send(text) {
    if (this.readyState === 1) this.sent.push(JSON.parse(text))
    this.#waiting.splice(0).forEach((look) => look())
  }

  close(code) {
    this.readyState = 3
    this.closedWith = code
    queueMicrotask(() => this.onclose?.({ code }))
    this.#waiting.splice(0).forEach((look) => look())
  }

  // --- what the server does ---

  open() {
    this.readyState = 1
    this.onopen?.({})
    return this
  }

  refuse() {
    this.readyState = 3
    this.onerror?.({})
    this.onclose?.({ code: 1006 })
  }

  drop(code = 1006) {
    this.readyState = 3
    this.onclose?.({ code })
  }

  say(...frames) {
    for (const frame of frames) this.onmessage?.({ data: JSON.stringify(frame) })
  }

  /** Say numbered chunks of the run "r", each with its number as payload. */
  sayChunks(from, to) {
    for (let number = from; number <= to; number++) this.say(chunk(number))
  }

  /** Wait for the next message of the client, and see that it has these fields. */
  async expect(fields) {
    while (!this.sent.length) await new Promise((resolve) => this.#waiting.push(resolve))
    const message = this.sent.shift()
    assert.partialDeepStrictEqual(message, fields)
    return message
  }

  /** Wait for an invoke, and accept it. */
  async accept(fields = {}) {
    const invoke = await this.expect({ action: "invoke", ...fields })
    const { invocation_id, query_id } = invoke
    this.say({ type: "accepted", invocation_id, session_id: "s", query_id })
    return invoke
  }
}

export function chunk(number, payload = number) {
  return { type: "stream_chunk", invocation_id: "r", sequence_number: number, payload }
}

export function question(number, requestId) {
  const ids = { invocation_id: "r", sequence_number: number, request_id: requestId }
  return { type: "input_required", ...ids, payload: "Sure?" }
}

export const END = { type: "stream_end", invocation_id: "r" }

export function errorFrame(code, fields = {}, details = {}) {
  const error = { code, message: `It is ${code}`, retryable: false, source: "user", ...details }
  return { type: "error", invocation_id: "r", error, ...fields }
}

export function fakeServer() {
  const sockets = []
  const waiting = []
  class WebSocket extends FakeSocket {
    constructor(...given) {
      super(...given)
      sockets.push(this)
      waiting.splice(0).forEach((look) => look())
    }
  }
  let taken = 0
  /** Wait for the next socket that the client makes. */
  const next = async () => {
    while (sockets.length === taken) await new Promise((resolve) => waiting.push(resolve))
    return sockets[taken++]
  }
  return { WebSocket, sockets, next }
}

/** Connect to a fake server; return the client, its first socket, open, and the server. */
export async function connected(t, options = {}) {
  const server = fakeServer()
  const client = connect("ws://fake/", {
    WebSocket: server.WebSocket,
    maxRetryDelay: 0.001,
    ...options,
  })
  t.after(() => client.close())
  const socket = await server.next()
  socket.open()
  return { client, socket, server }
}

/** Read `count` values of an async iterator. */
export async function read(iterator, count) {
  const values = []
  while (values.length < count) values.push((await iterator.next()).value)
  return values
}

/** Let everything happen that is only waiting for its turn. */
export function settled() {
  return new Promise((resolve) => setImmediate(resolve))
}
