/**
 * Plays the user of one scenario of tests/client/ against a server that misbehaves, and fails if what
 * the user sees is not what the scenario says: `node scenario.js PORT`, the scenario on standard input.
 */
import assert from "node:assert/strict"
import { text } from "node:stream/consumers"

import * as agentws from "../agentws.js"

const PATIENCE = 10

/** Return a name of the scenarios, which are written in snake case, as it is here. */
function camel(name) {
  return name.replace(/_(.)/g, (_, letter) => letter.toUpperCase())
}

function inCamelCase(fields) {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [camel(name), value]))
}

/** Return the payloads that a scenario lists, or tells by the first and the last number. */
function listOf(payloads) {
  if (Array.isArray(payloads)) return payloads
  const { from, to } = payloads
  return Array.from({ length: to - from + 1 }, (_, index) => from + index)
}

/** Fail unless `found` has the fields of `expected`; null is as good as not there. */
function hasFields(found, expected) {
  for (const [name, value] of Object.entries(expected)) {
    if (value === "*") assert.ok((found[name] ?? null) !== null, `${name} of ${JSON.stringify(found)}`)
    else assert.deepEqual(found[name] ?? null, value, `${name} of ${JSON.stringify(found)}`)
  }
}

class Player {
  #runs = new Map()
  #readings = new Map()
  #questions = new Map()
  #begun = new Map()
  #states = ["connecting"]
  #tokensAsked = 0

  constructor(scenario, port) {
    this.scenario = scenario
    this.http = `http://127.0.0.1:${port}`
    this.client = agentws.connect(this.http, this.#options())
    this.client.addEventListener("state", ({ detail }) => this.#states.push(detail.state))
  }

  #options() {
    const { options = {}, tokens } = this.scenario
    return {
      maxRetryDelay: 0.05,
      connectTimeout: 5,
      giveUpAfter: 5,
      queryParameter: "access_token",
      ...inCamelCase(options),
      ...(tokens && { token: () => tokens[Math.min(this.#tokensAsked++, tokens.length - 1)] }),
    }
  }

  async play() {
    for (const step of this.scenario.user) await this.#do(step)
    await this.client.close()
    const { states, tokens_asked: tokensAsked } = this.scenario
    if (states) assert.deepEqual(this.#states, states)
    if (tokensAsked !== undefined) assert.equal(this.#tokensAsked, tokensAsked)
    const report = await (await fetch(`${this.http}/report`)).json()
    assert.deepEqual(report.failures.filter((failure) => !this.#isExcused(failure)), [])
  }

  /** Tell whether a failure is one that no WebSocket of a browser's kind could avoid. */
  #isExcused(failure) {
    const does = (name) =>
      this.scenario.connections.some(({ steps = [] }) => steps.some((step) => name in step))
    if (does("silent")) return / is not over$/.test(failure) // it waits for the other's close
    // What was sent before the close came is under way.
    return does("close") && / came, and nothing was to come$/.test(failure)
  }

  async #do(step) {
    if (!step.raises) return this.#act(step)
    const { error, object = {}, ...fields } = step.raises
    const raised = await this.#act(step).then(
      (value) => assert.fail(`nothing was raised: ${JSON.stringify(value)}`),
      (caught) => caught,
    )
    assert.equal(raised.constructor, agentws[error], raised.stack)
    hasFields(raised, inCamelCase(fields))
    hasFields(raised.error ?? {}, object)
  }

  async #act(step) {
    const verb = Object.keys(step).find((name) => name in Player.verbs)
    assert.ok(verb, `there is no step ${JSON.stringify(step)}`)
    await Player.verbs[verb].call(this, step[verb], step)
  }

  #read(name, events) {
    const run = this.#runs.get(name)
    const reading = this.#readings.get(name) ?? (events ? run.events() : run[Symbol.asyncIterator]())
    this.#readings.set(name, reading)
    return reading
  }

  async #nextEvent(name, skipReconnected) {
    for (;;) {
      const { value, done } = await this.#read(name, true).next()
      assert.ok(!done, "the events have ended")
      if (value.type === "question") this.#questions.set(name, value)
      if (value.type !== "reconnected" || !skipReconnected) return value
    }
  }

  static verbs = {
    invoke({ payload, ...options }, { as }) {
      this.#runs.set(as, this.client.invoke(payload, inCamelCase(options)))
    },
    attach({ id, ...options }, { as }) {
      this.#runs.set(as, this.client.attach(id, inCamelCase(options)))
    },
    async chunks(name, { are, raises }) {
      for (const payload of raises ? [undefined] : listOf(are)) {
        const { value, done } = await this.#read(name, false).next()
        assert.deepEqual({ value, done }, { value: payload, done: false })
      }
    },
    async events(name, { are = [{}] }) {
      const skipReconnected = !are.some(({ type }) => type === "reconnected")
      for (const expected of are) {
        hasFields(await this.#nextEvent(name, skipReconnected), inCamelCase(expected))
      }
    },
    async end(name) {
      const { done } = await this.#read(name, false).next()
      assert.ok(done, "there is more")
    },
    async result(name, { is }) {
      const result = await this.#runs.get(name)
      if (is !== undefined) assert.deepEqual(result ?? null, is)
    },
    cancel(name) {
      return this.#runs.get(name).cancel()
    },
    async send(name, { payload }) {
      assert.equal(await this.#runs.get(name).send(payload), undefined)
    },
    async answer(name, { payload }) {
      assert.equal(await this.#questions.get(name).answer(payload), undefined)
    },
    async get(id, { gives = {} }) {
      hasFields(await this.client.get(id), gives)
    },
    async list(filter, { ids }) {
      const found = []
      for await (const record of this.client.list(inCamelCase(filter))) {
        found.push(record.invocation_id)
      }
      assert.deepEqual(found, ids)
    },
    detach(name) {
      this.#runs.get(name).detach()
    },
    leave(name) {
      return this.#read(name, false).return()
    },
    close() {
      return this.client.close()
    },
    cursor(name, { is }) {
      assert.equal(this.#runs.get(name).cursor, is)
    },
    status(name, { is }) {
      assert.equal(this.#runs.get(name).status, is)
    },
    state(state) {
      if (this.client.state === state) return
      return new Promise((resolve) => {
        this.client.addEventListener("state", ({ detail }) => detail.state === state && resolve())
      })
    },
    begin(name, step) {
      const outcome = this.#do(step.do)
      outcome.catch(() => {}) // it is told when it is finished
      this.#begun.set(name, outcome)
    },
    finish(name) {
      return this.#begun.get(name)
    },
    signal(name) {
      return fetch(`${this.http}/signal/${name}`)
    },
    await(name) {
      return fetch(`${this.http}/await/${name}`)
    },
  }
}

process.on("unhandledRejection", (error) => {
  console.error("Nobody handled:", error)
  process.exit(1)
})
setTimeout(() => {
  console.error(`The scenario takes longer than ${PATIENCE} s`)
  process.exit(1)
}, PATIENCE * 1000).unref()

await new Player(JSON.parse(await text(process.stdin)), process.argv[2]).play()
process.exit() // a socket whose other side is silent would keep the process
