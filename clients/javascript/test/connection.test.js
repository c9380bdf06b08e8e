/** How a connection is lost, and had again. */
import assert from "node:assert/strict"
import { createServer } from "node:http"
import { test } from "node:test"

import { Closed, ConnectionFailed, Lost, connect } from "../agentws.js"
import { END, chunk, connected, errorFrame, fakeServer, question, read, settled } from "./fake.js"

/** Return the next state of a client. */
function nextState(client) {
  return new Promise((resolve) => {
    client.addEventListener("state", ({ detail }) => resolve(detail.state), { once: true })
  })
}

test("runs go on where they were, in their order, and then what else was asked", async (t) => {
  const { client, socket, server } = await connected(t)
  const events = client.invoke(1, { id: "r" }).events()
  await socket.accept()
  const other = client.invoke({ other: true })
  await socket.expect({ payload: { other: true } })
  const record = client.get("r")
  socket.say(chunk(1))
  assert.equal((await events.next()).value.number, 1)
  socket.drop()
  assert.equal(client.state, "reconnecting")
  const next = await server.next()
  next.open()
  assert.equal(client.state, "open")
  await next.expect({ action: "attach_invocation", invocation_id: "r", starting_after: 1 })
  await next.expect({ payload: { other: true }, if_exists: "attach", invocation_id: other.id })
  const { query_id } = await next.expect({ action: "get_invocation", invocation_id: "r" })
  next.say({ type: "result", action: "get_invocation", query_id, payload: { status: "running" } })
  assert.deepEqual(await record, { status: "running" })
  const { type, attempts, seconds } = (await events.next()).value
  assert.deepEqual({ type, attempts }, { type: "reconnected", attempts: 1 })
  assert.ok(seconds >= 0 && seconds < 5)
  next.say(chunk(1), chunk(2), END)
  assert.equal((await events.next()).value.number, 2)
  assert.ok((await events.next()).done)
})

test("an input is repeated under its own name, and done when it was done", async (t) => {
  const { client, socket, server } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  const sent = run.send({ more: 1 })
  const { input_id } = await socket.expect({ action: "send_input" })
  socket.drop()
  const next = (await server.next()).open()
  await next.expect({ action: "attach_invocation" })
  const { query_id } = await next.expect({ action: "send_input", input_id, payload: { more: 1 } })
  next.say(errorFrame("already_finished", { action: "send_input", query_id }))
  assert.equal(await sent, undefined)
})

/** Ask for a record, lose the socket, and refuse the repetition. */
async function refusedRepetition({ client, socket, server }) {
  const record = client.get("r")
  await socket.expect({ action: "get_invocation" })
  socket.drop()
  const next = (await server.next()).open()
  const { query_id } = await next.expect({ action: "get_invocation" })
  next.say(errorFrame("store_unavailable", { action: "get_invocation", query_id }))
  return { record, next }
}

test("a repetition is repeated when its refusal says nothing of what was asked", async (t) => {
  const { record, next } = await refusedRepetition(await connected(t))
  const { query_id } = await next.expect({ action: "get_invocation" })
  next.say({ type: "result", action: "get_invocation", query_id, payload: {} })
  assert.deepEqual(await record, {})
})

test("it is told, in the end, when that takes too long", async (t) => {
  const { record } = await refusedRepetition(
    await connected(t, { giveUpAfter: 0.02, maxRetryDelay: 0.01 }),
  ).then(({ record, next }) => {
    const refuse = async () => {
      for (;;) {
        const { query_id } = await next.expect({ action: "get_invocation" })
        next.say(errorFrame("store_unavailable", { action: "get_invocation", query_id }))
      }
    }
    refuse()
    return { record }
  })
  await assert.rejects(record, { code: "store_unavailable" })
})

test("attaching is tried again, too, and a run that is gone is lost", async (t) => {
  const { client, socket: first, server } = await connected(t)
  const run = client.attach("r")
  await first.expect({ action: "attach_invocation" })
  first.say(chunk(1))
  first.drop()
  const socket = (await server.next()).open()
  for (const code of ["shutting_down", "not_found"]) {
    const { query_id } = await socket.expect({ action: "attach_invocation", starting_after: 1 })
    socket.say(errorFrame(code, { action: "attach_invocation", query_id }))
  }
  await assert.rejects(run, Lost)
  assert.equal(run.status, "lost")
})

test("a refusal that was overcome is forgotten", async (t) => {
  const giveUpAfter = 0.05
  const { client, socket: first, server } = await connected(t, { giveUpAfter })
  const run = client.attach("r")
  await first.expect({ action: "attach_invocation" })
  let socket = first
  for (let number = 1; number <= 3; number++) {
    socket.say(chunk(number))
    socket.drop()
    socket = (await server.next()).open()
    const { query_id } = await socket.expect({ starting_after: number })
    socket.say(errorFrame("store_unavailable", { action: "attach_invocation", query_id }))
    await socket.expect({ starting_after: number })
    await new Promise((resolve) => setTimeout(resolve, 700 * giveUpAfter))
  }
  socket.say(END)
  assert.deepEqual(await run, [1, 2, 3])
})

test("a run that never was there is not found", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.attach("r")
  const { query_id } = await socket.expect({ action: "attach_invocation" })
  socket.say(errorFrame("not_found", { action: "attach_invocation", query_id }))
  await assert.rejects(run, { code: "not_found", name: "InvocationFailed" })
})

test("going away, the old socket is used until there is a new one", async (t) => {
  const { client, socket, server } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.say({ type: "going_away", reason: "max_age", grace_seconds: 0.01 }, chunk(1))
  const next = await server.next()
  socket.say(chunk(2))
  assert.equal(socket.closedWith, undefined)
  next.open()
  assert.equal(socket.closedWith, 1000)
  assert.equal(client.state, "open")
  await next.expect({ action: "attach_invocation", starting_after: 2 })
  next.say(chunk(3), END)
  assert.deepEqual(await run, [1, 2, 3])
})

test("going away with nowhere to go, the old socket is used to its end", async (t) => {
  const { client, socket, server } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.say({ type: "going_away", reason: "shutdown", grace_seconds: 0.01 })
  for (let time = 0; time < 3; time++) (await server.next()).refuse()
  socket.sayChunks(1, 3)
  socket.say(END)
  assert.deepEqual(await run, [1, 2, 3])
  assert.equal(client.state, "open")
  socket.drop(1001)
  assert.equal(client.state, "reconnecting")
})

test("going away, a handshake that is under way when the old socket ends counts as one", async (t) => {
  const { client, socket, server } = await connected(t)
  const events = client.invoke(1, { id: "r" }).events()
  await socket.accept()
  socket.say({ type: "going_away", reason: "shutdown", grace_seconds: 0.01 })
  const next = await server.next()
  socket.drop(1001)
  next.open()
  const { type, attempts } = (await events.next()).value
  assert.deepEqual({ type, attempts }, { type: "reconnected", attempts: 1 })
})

test("what makes no sense ends the socket and not the run", async (t) => {
  const { client, socket, server } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.say(chunk(1), chunk(3))
  const next = (await server.next()).open()
  await next.expect({ action: "attach_invocation", starting_after: 1 })
  next.onmessage({ data: "{" })
  const last = (await server.next()).open()
  await last.expect({ action: "attach_invocation", starting_after: 1 })
  last.say({ type: "from the future" }, { type: "stream_chunk" }, chunk(2), END)
  assert.deepEqual(await run, [1, 2])
})

test("an error that tells none, and a gap before no number, make no sense", async (t) => {
  const { client, socket, server } = await connected(t)
  const run = client.invoke(1, { id: "r", onGap: "skip" })
  await socket.accept()
  const { error, ...none } = errorFrame("broken")
  const nonsense = [
    none,
    { ...none, error: null },
    { ...none, error: "broken" },
    { ...none, error: { ...error, first_available: "x" } },
  ]
  let link = socket
  for (const frame of nonsense) {
    link.say(frame)
    link = (await server.next()).open()
    await link.expect({ action: "attach_invocation", starting_after: 0 })
  }
  link.say(END)
  assert.deepEqual(await run, [])
})

test("binary messages are read like text", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.onmessage({ data: new TextEncoder().encode(JSON.stringify(chunk(1))).buffer })
  socket.say(END)
  assert.deepEqual(await run, [1])
})

test("the server's pings are answered, and its silence is broken, then the end", async (t) => {
  const { client, socket } = await connected(t, { silence: 0.5 })
  socket.say({ type: "ping" })
  await socket.expect({ action: "pong" })
  await socket.expect({ action: "ping" })
  socket.say({ type: "pong" })
  assert.equal(client.state, "open")
  await socket.expect({ action: "ping" })
  assert.equal(await nextState(client), "reconnecting")
})

test("the longest message is refused for its size", async (t) => {
  const { client, socket, server } = await connected(t)
  const short = client.invoke("short", { id: "r" })
  const long = client.invoke("long".repeat(100))
  socket.drop(1009)
  await assert.rejects(long, { code: "payload_too_large" })
  const next = (await server.next()).open()
  await next.accept({ payload: "short" })
  next.say(END)
  await short
  assert.equal(next.sent.length, 0)
})

test("a first connection is given up after its time, and what waits is told", async () => {
  const { WebSocket, next } = fakeServer()
  const client = connect("ws://fake/", { WebSocket, connectTimeout: 0.05 })
  const run = client.invoke(1)
  await next()
  await assert.rejects(run, ConnectionFailed)
  assert.equal(client.state, "closed")
  await assert.rejects(client.get("r"), ConnectionFailed)
  await assert.rejects(client.attach("r"), ConnectionFailed)
  await client.close()
})

test("a connection that was lost is given up after its own time", async (t) => {
  const { client, socket, server } = await connected(t, { giveUpAfter: 0.05 })
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.drop()
  const refuse = async () => {
    for (;;) (await server.next()).refuse()
  }
  refuse()
  await assert.rejects(run, ConnectionFailed)
  assert.equal(client.state, "closed")
})

test("a server that is not there is tried until the time is over", async () => {
  const began = performance.now()
  const client = connect("ws://127.0.0.1:1", { connectTimeout: 0.3, maxRetryDelay: 60 })
  await assert.rejects(client.invoke(1), {
    name: "ConnectionFailed",
    status: undefined,
    message: /^The handshake with ws:\/\/127\.0\.0\.1:1\/ failed, and so does HTTP \(.+\)\. Check the URL and/,
  })
  assert.ok(performance.now() - began > 290)
})

test("a platform that takes no headers is told at once", async () => {
  class Browsers {
    constructor(url, protocols) {
      if (protocols) throw new DOMException("The subprotocol is invalid", "SyntaxError")
    }
  }
  for (const options of [{ apiKey: "secret" }, { token: async () => "secret" }]) {
    const client = connect("ws://fake/", { WebSocket: Browsers, giveUpAfter: Infinity, ...options })
    await assert.rejects(client.invoke(1), {
      name: "ConnectionFailed",
      message: /sends no headers \((api-key|authorization)\)\. Give connect\(\) queryParameter, /,
    })
  }
})

test("a token function that fails is the reason", async () => {
  const token = () => Promise.reject(new Error("no identity here"))
  const client = connect("ws://fake/", { token, connectTimeout: 0.05 })
  await assert.rejects(client.invoke(1), {
    message: "The token function failed: Error: no identity here. Correct it, or try again.",
  })
})

test("credentials go into headers, or under a parameter of the query", async (t) => {
  const inHeaders = await connected(t, { token: "t", apiKey: "k", headers: { a: "b" } })
  assert.deepEqual(inHeaders.socket.options.headers, {
    "a": "b",
    "api-key": "k",
    "authorization": "Bearer t",
  })
  const tokens = ["one", "two"]
  const token = async () => tokens.shift()
  const { socket, server } = await connected(t, { token, queryParameter: "access_token" })
  assert.equal(socket.url.searchParams.get("access_token"), "one")
  assert.equal(socket.options, undefined)
  socket.drop()
  assert.equal((await server.next()).url.searchParams.get("access_token"), "two")
  const byKey = await connected(t, { apiKey: "k", queryParameter: "access_token" })
  assert.equal(byKey.socket.url.searchParams.get("access_token"), "k")
})

test("a token that is null is none", async (t) => {
  for (const token of [null, async () => null]) {
    const { socket } = await connected(t, { token, apiKey: "k" })
    assert.deepEqual(socket.options.headers, { "api-key": "k" })
  }
})

/** Serve a handshake that is refused, and what the other routes answer; return the server's URL. */
async function refusing(t, answer) {
  const server = createServer(answer)
  server.on("upgrade", (_request, socket) => {
    socket.on("error", () => {}) // the client may be gone
    socket.end("HTTP/1.1 503 No\r\n\r\n")
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.after(() => server.close())
  return `http://127.0.0.1:${server.address().port}`
}

/** Fail to connect to a server whose other routes answer with these statuses; return the error. */
async function failureWith(t, { readiness = 200, list = 200 }) {
  const url = await refusing(t, (request, response) => {
    response.writeHead(request.url === "/readiness" ? readiness : list).end("{}")
  })
  const client = connect(url, { connectTimeout: 1.5, maxRetryDelay: 0.3 })
  const error = await client.invoke(1).catch((caught) => caught)
  assert.ok(error instanceof ConnectionFailed)
  assert.equal(error.message, `${error.reason}. ${error.advice}`)
  return { error, socket: `${url.replace("http", "ws")}/invocations_ws/ws` }
}

test("a refusal that the other routes know nothing of has no status, but things to look at", async (t) => {
  const { error, socket } = await failureWith(t, {})
  assert.equal(error.status, undefined)
  assert.equal(error.reason, `The handshake with ${socket} failed, and yet HTTP takes what is given here`)
  assert.match(error.advice, /queryParameter is the server's auth\.query_parameter, its auth\.allowed_origins, /)
  assert.doesNotMatch(error.message, /200/)
})

test("the other routes tell of a wrong address, of what is not ready, and of what is refused", async (t) => {
  const [wrong, draining, refused] = await Promise.all([
    failureWith(t, { readiness: 404, list: 404 }),
    failureWith(t, { readiness: 503 }),
    failureWith(t, { list: 401 }),
  ])
  assert.equal(
    wrong.error.reason,
    `The handshake with ${wrong.socket} failed, and GET /readiness answers 404`,
  )
  assert.equal(wrong.error.advice, "Check the URL: the framed socket is at /invocations_ws/ws.")
  assert.match(draining.error.reason, / failed, and GET \/readiness answers 503$/)
  assert.equal(refused.error.status, 401)
  assert.equal(
    refused.error.message,
    `The handshake with ${refused.socket} failed, and GET /invocations answers 401. ` +
      "Give connect() a token or an apiKey that the server takes.",
  )
})

test("what is refused for good is told at once, however long one would wait", async (t) => {
  const url = await refusing(t, (_request, response) => response.writeHead(401).end("{}"))
  const client = connect(url, { connectTimeout: Infinity })
  await assert.rejects(client.invoke(1), { name: "ConnectionFailed", status: 401 })
})

test("credentials go nowhere but to the server that was named", async (t) => {
  const seen = []
  const elsewhere = await refusing(t, (request, response) => {
    seen.push(request.url)
    response.end("{}")
  })
  const url = await refusing(t, (request, response) => {
    if (request.url === "/readiness") return response.end("{}")
    response.writeHead(307, { location: elsewhere + request.url }).end()
  })
  const client = connect(url, { apiKey: "secret", connectTimeout: 0.2, maxRetryDelay: 0.05 })
  await assert.rejects(client.invoke(1), { name: "ConnectionFailed", status: undefined })
  assert.deepEqual(seen, [])
})

test("what leaves no time, no room or no session is told at once", () => {
  for (const name of ["connectTimeout", "silence", "giveUpAfter", "maxQueue"]) {
    for (const value of [0, -1, NaN, "1"]) {
      assert.throws(() => connect("ws://fake/", { [name]: value }), RangeError)
    }
  }
  assert.throws(() => connect("ws://fake/", { maxRetryDelay: -1 }), RangeError)
  assert.throws(() => connect("ws://fake/", { sessionId: "a b" }), /^TypeError: sessionId must be/)
})

test("times may be endless", async (t) => {
  const warnings = []
  const note = ({ name }) => warnings.push(name)
  process.on("warning", note)
  t.after(() => process.off("warning", note))
  const endless = { connectTimeout: Infinity, silence: Infinity, giveUpAfter: Infinity }
  const { client, socket } = await connected(t, { ...endless, maxRetryDelay: Infinity })
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  await settled()
  socket.say(END)
  assert.deepEqual(await run, [])
  assert.deepEqual([warnings, socket.sent], [[], []])
})

test("a client has one session on all of its sockets", async (t) => {
  const { socket, server } = await connected(t)
  const session = socket.url.searchParams.get("agent_session_id")
  assert.match(session, /^[\w-]{32,}$/)
  socket.drop()
  assert.equal((await server.next()).url.searchParams.get("agent_session_id"), session)
})

test("closing leaves runs as they are, and ends their reading", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.say(question(1, "q"))
  const events = run.events()
  await read(events, 1)
  const states = []
  client.addEventListener("state", ({ detail }) => states.push(detail))
  await client.close()
  await client.close()
  assert.equal(socket.closedWith, 1000)
  assert.deepEqual(socket.sent, [])
  assert.equal(states.length, 1)
  assert.equal(states[0].state, "closed")
  assert.ok(states[0].error instanceof Closed)
  await assert.rejects(events.next(), Closed)
  await assert.rejects(client.invoke(1), Closed)
})

test("closing ends a handshake that is under way", async (t) => {
  const { WebSocket, next } = fakeServer()
  const client = connect("ws://fake/", { WebSocket })
  const socket = await next()
  await client.close()
  assert.equal(socket.readyState, 3)
  socket.open()
  await settled()
  assert.equal(client.state, "closed")
})

test("pages of a list follow one another", async (t) => {
  const { client, socket } = await connected(t)
  const ids = []
  const reading = (async () => {
    for await (const { invocation_id } of client.list({ sessionId: "s", status: "running" })) {
      ids.push(invocation_id)
    }
  })()
  const first = await socket.expect({ session_id: "s", status: "running", limit: 100 })
  const page = (query_id, rest) => socket.say({ type: "invocations", query_id, ...rest })
  page(first.query_id, { invocations: [{ invocation_id: "a" }], next: "c" })
  const { query_id } = await socket.expect({ action: "list_invocations", after: "c" })
  page(query_id, { invocations: [{ invocation_id: "b" }] })
  await reading
  assert.deepEqual(ids, ["a", "b"])
})
