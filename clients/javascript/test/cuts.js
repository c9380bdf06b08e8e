/**
 * Users whose sockets are cut all the time, and who see that nothing is lost, repeated, reordered or
 * done twice: `node cuts.js URL AGENT SOCKETS SEED`. They go on until they have had so many sockets.
 *
 * The server is one of tests/support/cutting.py, whose agent "streams" or "returns".
 */
import assert from "node:assert/strict"

import { Cancelled, connect } from "../agentws.js"

const CLIENTS = 25

const [url, agent, wanted, seed] = process.argv.slice(2)
let sockets = 0
let runs = 0

class CountedSocket extends WebSocket {
  constructor(...given) {
    super(...given)
    sockets++
  }
}

/** Return a source of numbers below a bound, the same for a seed each time (mulberry32). */
function chanceOf(seed) {
  let state = seed
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound
  }
}

/** Return the numbers from `first` to `last`. */
function numbers(first, last) {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index)
}

function invoke(client, payload, options) {
  runs++
  return client.invoke(payload, options)
}

async function chunksOf(run) {
  const chunks = []
  for await (const chunk of run) chunks.push(chunk)
  return chunks
}

async function readAStream(client, chance) {
  const last = chance(60)
  const run = invoke(client, { do: "stream", last })
  const seen = []
  for await (const { type, number } of run.events()) if (type === "chunk") seen.push(number)
  assert.deepEqual(seen, numbers(1, last))
}

async function awaitAStream(client, chance) {
  const last = chance(60)
  const run = invoke(client, { do: "stream", last })
  assert.deepEqual(await run, numbers(1, last))
  assert.equal(run.cursor, last)
}

async function readSeveral(client) {
  const all = numbers(1, 4).map(() => invoke(client, { do: "stream", last: 40 }))
  for (const run of all) assert.deepEqual(await chunksOf(run), numbers(1, 40))
}

async function attachToWhatRuns(client, chance) {
  const started = invoke(client, { do: "stream", last: 50 }, { background: true })
  await started
  const after = chance(51)
  assert.deepEqual(await client.attach(started.id, { after }), numbers(after + 1, 50))
}

async function leaveAndComeBack(client) {
  const run = invoke(client, { do: "stream", last: 50 }, { onDisconnect: "continue" })
  const seen = []
  for await (const chunk of run) {
    seen.push(chunk)
    if (chunk === 20) break
  }
  seen.push(...(await chunksOf(client.attach(run.id, { after: run.cursor }))))
  assert.deepEqual(seen, numbers(1, 50))
}

async function answerQuestions(client) {
  const run = invoke(client, { do: "ask", questions: 3 })
  const told = []
  for await (const event of run.events()) {
    if (event.type === "question") await event.answer(`answer ${event.payload.number}`)
    if (event.type !== "reconnected") told.push([event.type, event.payload])
  }
  const turn = (number) => [
    ["question", { number }],
    ["answered", undefined],
    ["chunk", [number, `answer ${number}`]],
  ]
  assert.deepEqual(told, [0, 1, 2].flatMap(turn))
}

async function sayThings(client) {
  const run = invoke(client, { do: "hear", inputs: 4 })
  const said = numbers(0, 3).map((number) => run.send(number))
  assert.deepEqual(await run, [0, 1, 2, 3])
  await Promise.all(said)
}

async function cancelWhatWaits(client) {
  const controller = new AbortController()
  const run = invoke(client, { do: "wait" }, { signal: controller.signal })
  setTimeout(() => controller.abort(), 5)
  await assert.rejects(run, { constructor: Cancelled, reason: "client" })
}

async function awaitResults(client, chance) {
  const values = numbers(1, 5).map(() => chance(1000))
  const all = values.map((value) => invoke(client, { value }, { sessionId: "s" }))
  assert.deepEqual(await Promise.all(all), values)
}

async function askForRecords(client) {
  const run = invoke(client, { value: 1 })
  assert.equal(await run, 1)
  assert.equal((await client.get(run.id)).result, 1)
}

const USES = {
  streams: [
    readAStream,
    awaitAStream,
    readSeveral,
    attachToWhatRuns,
    leaveAndComeBack,
    answerQuestions,
    sayThings,
    cancelWhatWaits,
  ],
  returns: [awaitResults, askForRecords],
}

async function use(chance) {
  const client = connect(url, {
    maxRetryDelay: 0.02,
    connectTimeout: 60,
    maxQueue: 16,
    WebSocket: CountedSocket,
  })
  const uses = USES[agent]
  while (sockets < wanted) await uses[chance(uses.length)](client, chance)
  await client.close()
}

await Promise.all(numbers(1, CLIENTS).map((number) => use(chanceOf(Number(seed) + number))))
console.log(JSON.stringify({ sockets, runs }))
