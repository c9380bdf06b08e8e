/**
 * What the client in JavaScript can take: `node javascript.mjs PORT chunks COUNT` reads a stream of so
 * many chunks, `… invokes COUNT IN_FLIGHT` awaits so many results; both print how many a second.
 */
import { connect } from "../clients/javascript/agentws.js"

const [port, what, ...numbers] = process.argv.slice(2)
const [count, inFlight] = numbers.map(Number)
const client = connect(`http://127.0.0.1:${port}`)

async function readStream(length) {
  let read = 0
  for await (const _ of client.invoke({ chunks: length })) read++
  if (read !== length) throw new Error(`${read} chunks of ${length} came`)
}

async function invokeInTurn(times) {
  for (let time = 0; time < times; time++) await client.invoke({ message: "Hello, agent" })
}

const uses = {
  chunks: () => readStream(count),
  invokes: () => Promise.all(Array.from({ length: inFlight }, () => invokeInTurn(count / inFlight))),
}

await uses[what]() // in which the code is compiled
const began = performance.now()
await uses[what]()
console.log((1000 * count) / (performance.now() - began))
await client.close()
