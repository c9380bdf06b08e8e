/** What a run is to its user, whatever its frames are. */
import assert from "node:assert/strict"
import { test } from "node:test"

import { Cancelled, Closed, InvocationFailed, Lost, ReplayGap } from "../agentws.js"
import { END, chunk, connected, errorFrame, question, read, settled } from "./fake.js"

test("a run can be read as chunks", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke({ a: 1 }, { id: "r", sessionId: "s" })
  assert.equal(run.id, "r")
  assert.equal(run.status, "pending")
  await socket.accept({ payload: { a: 1 }, invocation_id: "r", session_id: "s" })
  socket.sayChunks(1, 3)
  socket.say(END)
  const chunks = []
  for await (const each of run) chunks.push(each)
  assert.deepEqual(chunks, [1, 2, 3])
  assert.equal(run.status, "completed")
  assert.equal(await run, undefined)
})

test("a stream that is awaited is the list of its chunks, each time", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(undefined, { id: "r" })
  const invoke = await socket.accept()
  assert.ok(!("payload" in invoke))
  socket.sayChunks(1, 2)
  socket.say(END)
  assert.deepEqual(await run, [1, 2])
  assert.deepEqual(await run, [1, 2])
})

test("a coroutine's value can be had after its events", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.say({ type: "result", invocation_id: "r", payload: { x: 1 } })
  for await (const event of run.events()) assert.fail(event)
  assert.deepEqual(await run, { x: 1 })
})

test("the cursor is what was read, not what has come", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.sayChunks(1, 5)
  const reading = run[Symbol.asyncIterator]()
  assert.deepEqual(await read(reading, 2), [1, 2])
  assert.equal(run.cursor, 2)
})

test("what comes twice is told once", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  for (const number of [1, 2, 1, 2, 2, 3, 1]) socket.say(chunk(number))
  socket.say(END, END)
  assert.deepEqual(await run, [1, 2, 3])
})

test("questions are told once, and answered under their own name", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.say({ ...question(1, "q"), schema: { type: "boolean" } }, question(1, "q"))
  const events = run.events()
  const { answer, ...asked } = (await events.next()).value
  assert.deepEqual(asked, {
    type: "question",
    number: 1,
    requestId: "q",
    payload: "Sure?",
    schema: { type: "boolean" },
  })
  assert.equal(run.status, "input_required")
  const answered = answer(false)
  const input = await socket.expect({ action: "send_input", request_id: "q", payload: false })
  assert.ok(input.input_id)
  socket.say({ type: "result", action: "send_input", query_id: input.query_id, payload: "ok" })
  assert.equal(await answered, undefined)
  socket.say({ type: "input_received", invocation_id: "r", sequence_number: 2, request_id: "q" })
  assert.deepEqual((await events.next()).value, {
    type: "answered",
    number: 2,
    requestId: "q",
    withdrawn: false,
  })
  assert.equal(run.status, "running")
})

test("a question that was asked before what is attached to is told", async (t) => {
  const { client, socket } = await connected(t)
  const events = client.attach("r", { after: 7 }).events()
  await socket.expect({ action: "attach_invocation", starting_after: 7 })
  socket.say(question(3, "q"), chunk(8))
  const [asked, then] = await read(events, 2)
  assert.equal(asked.requestId, "q")
  assert.equal(then.number, 8)
})

test("leaving a loop detaches, and nothing is cancelled", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.sayChunks(1, 2)
  for await (const each of run) {
    assert.equal(each, 1)
    break
  }
  await socket.expect({ action: "detach_invocation", invocation_id: "r" })
  assert.deepEqual(await run[Symbol.asyncIterator]().next(), { value: undefined, done: true })
  await assert.rejects(run, Closed)
  assert.equal(socket.sent.length, 0)
})

test("a run that is left before it is acknowledged, is left afterwards", async (t) => {
  const { client, socket } = await connected(t)
  client.invoke(1, { id: "r" }).detach()
  await socket.accept()
  await socket.expect({ action: "detach_invocation", invocation_id: "r" })
})

test("a second run of an id takes the place of the first", async (t) => {
  const { client, socket } = await connected(t)
  const first = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.sayChunks(1, 1)
  await settled()
  const second = client.attach("r")
  await socket.expect({ action: "attach_invocation", starting_after: 0 })
  socket.sayChunks(1, 2)
  socket.say(END)
  await assert.rejects(first, Closed)
  assert.deepEqual(await second, [1, 2])
  assert.deepEqual(socket.sent, [])
})

test("in the background, what is awaited is that it was accepted", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r", background: true, onDisconnect: "continue" })
  await socket.accept({ background: true, on_disconnect: "continue" })
  assert.equal(await run, undefined)
  assert.equal(run.status, "running")
})

test("errors are classes, and carry what the server said", async (t) => {
  const { client, socket } = await connected(t)
  const fail = async (code, details) => {
    const run = client.invoke(1, { id: "r" })
    await socket.accept()
    socket.say(errorFrame(code, {}, details))
    const error = await run.catch((caught) => caught)
    return [error, run.status]
  }
  const [failed, status] = await fail("broken", { source: "upstream", retryable: true })
  assert.equal(failed.constructor, InvocationFailed)
  assert.deepEqual(
    [failed.code, failed.error.message, failed.retryable, failed.source, status],
    ["broken", "It is broken", true, "upstream", "failed"],
  )
  const details = { reason: "superseded", superseded_by: "x" }
  const [cancelled, cancelledStatus] = await fail("cancelled", details)
  assert.ok(cancelled instanceof Cancelled)
  assert.equal(cancelled.reason, "superseded")
  assert.equal(cancelled.error.superseded_by, "x")
  assert.equal(cancelledStatus, "cancelled")
  const [lost, lostStatus] = await fail("lost")
  assert.ok(lost instanceof Lost && lost instanceof InvocationFailed)
  assert.equal(lostStatus, "lost")
})

test("errors say what happened, and what to do about it", () => {
  const told = (code, fields) => new InvocationFailed({ code, message: "It is so.", ...fields })
  assert.equal(
    String(told("session_busy", { source: "user" })),
    "InvocationFailed: session_busy: It is so. " +
      'Attach to running_invocation_id, or invoke with ifSessionBusy: "interrupt".',
  )
  assert.equal(told("input_not_expected").advice, "Its question is closed; wait for the next one.")
  const advice = (fields) => told("new", fields).advice
  assert.equal(advice({ source: "upstream", retryable: true }), "Try again in a while.")
  assert.equal(advice({ source: "upstream" }), "The agent failed; its log says why.")
  assert.equal(advice({ source: "user" }), "Correct what was asked.")
  assert.equal(advice({ source: "elsewhere" }), "Try again in a while.")
  const { message } = told("new", { message: "", source: "platform" })
  assert.equal(message, "new: no reason was given. The server's log says why.")
})

test("what has come before an error is read before it", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.sayChunks(1, 2)
  socket.say(errorFrame("broken"))
  const seen = []
  await assert.rejects(async () => {
    for await (const each of run) seen.push(each)
  }, /It is broken/)
  assert.deepEqual(seen, [1, 2])
  await assert.rejects(run, InvocationFailed)
})

test("a refused invoke fails the run, and what was asked of it", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r", ifSessionBusy: "reject" })
  const sent = run.send("more")
  const { query_id } = await socket.expect({ action: "invoke", if_session_busy: "reject" })
  const details = { running_invocation_id: "other" }
  socket.say(errorFrame("session_busy", { action: "invoke", query_id }, details))
  await assert.rejects(run, (error) => error.error.running_invocation_id === "other")
  await assert.rejects(sent, { code: "session_busy" })
  assert.equal(socket.sent.length, 0)
})

test("what belongs to a run is sent once the run is acknowledged", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  run.send("one")
  run.send("two")
  assert.equal(socket.sent.length, 1)
  await socket.accept()
  await socket.expect({ action: "send_input", payload: "one" })
  await socket.expect({ action: "send_input", payload: "two" })
})

test("a run is cancelled by its signal", async (t) => {
  const { client, socket } = await connected(t)
  const controller = new AbortController()
  const run = client.invoke(1, { id: "r", signal: controller.signal })
  await socket.accept()
  controller.abort()
  await socket.expect({ action: "cancel_invocation", invocation_id: "r" })
  socket.say(errorFrame("cancelled", {}, { reason: "client" }))
  await assert.rejects(run, { constructor: Cancelled, reason: "client" })
})

test("what is cancelled before it is invoked, is not invoked", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { signal: AbortSignal.abort() })
  await assert.rejects(run, { constructor: Cancelled, reason: "client" })
  assert.equal(run.status, "cancelled")
  assert.equal(socket.sent.length, 0)
})

test("a gap ends a run, with all that was there before it", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.attach("r", { after: 2 })
  await socket.expect({ action: "attach_invocation" })
  const gap = { first_available: 9 }
  socket.say(errorFrame("replay_gap", { action: "attach_invocation" }, gap))
  await assert.rejects(run, { constructor: ReplayGap, firstAvailable: 9 })
})

test("a gap that may be skipped is told, and the run goes on behind it", async (t) => {
  const { client, socket } = await connected(t)
  const run = client.attach("r", { onGap: "skip" })
  await socket.expect({ starting_after: 0 })
  const gap = { first_available: 9 }
  socket.say(errorFrame("replay_gap", { action: "attach_invocation" }, gap))
  await socket.expect({ action: "attach_invocation", starting_after: 8 })
  const events = run.events()
  assert.deepEqual((await events.next()).value, { type: "gap", firstAvailable: 9 })
  assert.equal(run.cursor, 8)
  socket.say(chunk(9), END)
  assert.equal((await events.next()).value.number, 9)
  assert.ok((await events.next()).done)
})

test("a slow reader's frames are dropped and asked for again, and it misses nothing", async (t) => {
  const { client, socket } = await connected(t, { maxQueue: 4 })
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  const reading = run[Symbol.asyncIterator]()
  socket.sayChunks(1, 9)
  socket.say(END) // the end of what was dropped is not the end
  assert.deepEqual(await read(reading, 1), [1])
  assert.equal(socket.sent.length, 0)
  assert.deepEqual(await read(reading, 1), [2])
  await socket.expect({ action: "attach_invocation", starting_after: 4 })
  socket.say(END) // which may have been under way
  socket.sayChunks(5, 9)
  assert.deepEqual(await read(reading, 2), [3, 4])
  await socket.expect({ action: "attach_invocation", starting_after: 6 })
  assert.deepEqual(await read(reading, 2), [5, 6])
  socket.say(chunk(9))
  socket.sayChunks(7, 9)
  socket.say(END)
  assert.deepEqual(await read(reading, 3), [7, 8, 9])
  assert.ok((await reading.next()).done)
})

test("coming back to a run, the end of the first reading may still be under way", async (t) => {
  const { client, socket } = await connected(t)
  const first = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.sayChunks(1, 2)
  for await (const chunk of first) if (chunk === 2) break
  await socket.expect({ action: "detach_invocation" })
  const second = client.attach("r", { after: first.cursor })
  await socket.expect({ action: "attach_invocation", starting_after: 2 })
  socket.say(END) // of the first, whose chunk 3 came while nobody read
  await socket.expect({ action: "attach_invocation", starting_after: 2 })
  socket.say(chunk(3), END)
  assert.deepEqual(await second, [3])
})

test("coming back to a run that has ended meanwhile, there is nothing more", async (t) => {
  const { client, socket } = await connected(t)
  client.invoke(1, { id: "r" }).detach()
  await socket.accept()
  await socket.expect({ action: "detach_invocation" })
  const second = client.attach("r")
  for (let time = 0; time < 2; time++) {
    await socket.expect({ action: "attach_invocation", starting_after: 0 })
    socket.say(END)
  }
  assert.deepEqual(await second, [])
})

test("nobody has to wait for anything", async (t) => {
  const unhandled = []
  const note = (error) => unhandled.push(error)
  process.on("unhandledRejection", note)
  t.after(() => process.off("unhandledRejection", note))
  const { client, socket } = await connected(t)
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  run.cancel()
  run.send(1)
  client.get("r")
  socket.say(errorFrame("broken"))
  client.invoke(2)
  await client.close()
  client.invoke(3)
  client.get("r")
  run.send(1)
  await settled()
  assert.deepEqual(unhandled, [])
})

test("a payload that is no JSON is told at once", async (t) => {
  const { client } = await connected(t)
  assert.throws(() => client.invoke(1n), TypeError)
})

test("an id that is none is told at once, and null is as good as not given", async (t) => {
  const { client, socket } = await connected(t)
  for (const id of ["", "a b", "..", 5, "x".repeat(257)]) {
    assert.throws(() => client.invoke(1, { id }), { name: "TypeError", message: /^id must be/ })
    assert.throws(() => client.invoke(1, { sessionId: id }), /^TypeError: sessionId must be/)
    assert.throws(() => client.attach(id), TypeError)
  }
  assert.throws(() => client.attach(null), TypeError)
  for (const after of [-1, 1.5, "17", NaN]) assert.throws(() => client.attach("r", { after }), TypeError)
  const run = client.invoke(1, { id: null, sessionId: null })
  assert.ok(!("session_id" in (await socket.accept({ invocation_id: run.id }))))
  assert.match(run.id, /^[\w-]{32,}$/)
})

test("a question from before what is attached to is told to a reader who is behind, too", async (t) => {
  const { client, socket, server } = await connected(t, { maxQueue: 1 })
  const events = client.attach("r", { after: 7 }).events()
  await socket.expect({ action: "attach_invocation" })
  socket.say(chunk(8), chunk(9))
  socket.drop()
  const next = (await server.next()).open()
  await next.expect({ action: "attach_invocation", starting_after: 8 })
  next.say(question(3, "q"))
  const [, asked] = await read(events, 2)
  assert.equal(asked.requestId, "q")
})

test("what cannot be attached to anew is followed no longer", async (t) => {
  const { client, socket } = await connected(t, { maxQueue: 1 })
  const run = client.invoke(1, { id: "r" })
  await socket.accept()
  socket.sayChunks(1, 2)
  const reading = run[Symbol.asyncIterator]()
  assert.deepEqual(await read(reading, 1), [1])
  const { query_id } = await socket.expect({ action: "attach_invocation", starting_after: 1 })
  socket.say(errorFrame("internal_error", { action: "attach_invocation", query_id }))
  await assert.rejects(reading.next(), { code: "internal_error" })
  await socket.expect({ action: "detach_invocation", invocation_id: "r" })
  assert.equal(run.status, "running")
})
