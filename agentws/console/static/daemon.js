/** The daemon behind the page: its socket and its routes. The key is kept here, in memory, and nowhere else. */

import { connect } from "./agentws.js"
import { SocketTap } from "./socket_tap.js"

/** How long a lost connection is tried again: a developer may be away over night. */
const PATIENCE = 86_400

/** How long an answer over HTTP may take, in ms. */
const PATIENCE_HTTP = 10_000

/** After how many seconds a first connection that failed is tried anew. */
const AGAIN = 5

/** How many chunks wait for a reader; few, so that a slow one shows what then happens. */
const QUEUE = 256

/** A shorter key would be found everywhere in what is shown. */
const SHORTEST_SECRET = 4

const ROOT = new URL("../", location.href)

function meta(name) {
	return document.querySelector(`meta[name="${name}"]`)?.getAttribute("content") ?? ""
}

/** Dispatches "state" when the state changes. Frames go to a callback, as there are many. */
export class Daemon extends EventTarget {
	needsKey = meta("agentws-auth") === "required"
	isDevelopment = meta("agentws-dev") !== ""
	client
	failure
	tap
	#key = ""
	#retry = 0

	constructor(onFrame) {
		super()
		this.tap = new SocketTap(onFrame)
	}

	/** "connecting", "open", "reconnecting", "closed", or "locked" while a key is asked for. */
	get state() {
		return this.client?.state ?? "locked"
	}

	get url() {
		return ROOT
	}

	unlock(key) {
		this.#key = key.trim()
		this.connect()
	}

	get hasKey() {
		return this.#key !== ""
	}

	/** Connect by a new client; runs of the one before end. */
	connect() {
		clearTimeout(this.#retry)
		const earlier = this.client
		this.failure = undefined
		const credentials = this.#key ? { token: this.#key, queryParameter: meta("agentws-query-parameter") || undefined } : {}
		const client = connect(new URL("invocations_ws/ws", ROOT), {
			...credentials,
			WebSocket: this.tap.WebSocket,
			giveUpAfter: PATIENCE,
			maxRetryDelay: AGAIN,
			maxQueue: QUEUE,
		})
		client.addEventListener("state", (event) => this.#changed(client, event.detail))
		this.client = client
		earlier?.close()
		this.dispatchEvent(new Event("state"))
	}

	#changed(client, { state, error }) {
		if (client !== this.client) return
		if (state === "closed") this.#lost(error)
		this.dispatchEvent(new Event("state"))
	}

	#lost(error) {
		const status = error?.status
		this.failure = { message: error?.reason ?? error?.message ?? "The connection is closed", status }
		if (status === 401 || status === 403) this.needsKey = true
		else if (status === undefined) this.#retry = window.setTimeout(() => this.connect(), AGAIN * 1000)
	}

	get isRefused() {
		return this.failure?.status === 401 || this.failure?.status === 403
	}

	async fetch(path, options = {}) {
		const headers = this.#key ? { authorization: `Bearer ${this.#key}` } : {}
		const response = await fetch(new URL(path, ROOT), { ...options, headers, signal: AbortSignal.timeout(PATIENCE_HTTP) })
		const answer = await response.json().catch(() => undefined)
		if (response.ok && answer !== undefined) return answer
		throw new Error(answer?.error?.message ?? `${path}: the daemon answers ${response.status}`)
	}

	/** Blot the key out of a text that is shown or copied: an agent may send back what it got. */
	redact(text) {
		if (this.#key.length < SHORTEST_SECRET) return text
		const redacted = text.replaceAll(this.#key, "•••")
		const encoded = encodeURIComponent(this.#key)
		return encoded === this.#key ? redacted : redacted.replaceAll(encoded, "•••")
	}
}
