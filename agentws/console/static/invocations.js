/** One's own invocations, on all replicas, as the server lists them; live. */

import { announce, badge, beforePaint, button, byId, copy, h, setText, show, showText, tell } from "./dom.js"
import { clock, count, number, pretty, problem, words } from "./format.js"
import { WindowedList } from "./windowed_list.js"

/** How often the list is asked for, and how soon after a change, in ms. */
const EVERY = 4000
const SOON = 250

const PAGE = 100

const RUNNING = new Set(["running", "input_required"])

export class Invocations {
	#daemon
	#attach
	#records = []
	#most = PAGE
	#hasMore = false
	#isAsking = false
	#isStale = false
	#timer = 0
	#texts = ""
	#selected
	#list
	#status = byId("invocation-status")
	#session = byId("invocation-session")

	constructor(daemon, attach) {
		this.#daemon = daemon
		this.#attach = attach
		this.#list = new WindowedList({
			label: "Invocations, the newest first",
			rowHeight: 46,
			draw: (record) => this.#row(record),
			onSelect: (record) => this.#select(record),
		})
		byId("invocation-list").append(this.#list.element)
		this.#status.addEventListener("change", () => this.#again())
		this.#session.addEventListener("input", () => this.#again())
		byId("more-invocations").addEventListener("click", () => {
			this.#most += PAGE
			this.refresh()
		})
		byId("open-invocation").addEventListener("click", () => this.#open())
		byId("attach-form").addEventListener("submit", (event) => {
			event.preventDefault()
			const { invocation_id: id, session_id: session } = this.#selected
			this.#attach(id, Number(byId("attach-after").value) || 0, session)
		})
		byId("cancel-invocation").addEventListener("click", () => this.#cancel())
		document.addEventListener("visibilitychange", () => this.refresh())
		this.refresh()
	}

	#again() {
		this.#most = PAGE
		this.#select(undefined)
		this.refresh()
	}

	/** Ask for the list soon; once for all that asks for it until then. */
	refresh(after = SOON) {
		clearTimeout(this.#timer)
		this.#timer = window.setTimeout(() => this.#ask(), after)
	}

	async #ask() {
		if (document.hidden || this.#daemon.state !== "open") return this.#drawEmpty()
		if (this.#isAsking) return void (this.#isStale = true)
		this.#isAsking = true
		this.#isStale = false
		const most = this.#most
		try {
			const filter = { sessionId: this.#session.value.trim() || undefined, status: this.#status.value || undefined }
			const records = []
			this.#hasMore = false
			for await (const record of this.#daemon.client.list(filter)) {
				if (records.length === most) {
					this.#hasMore = true
					break
				}
				records.push(record)
			}
			this.#take(records)
		} catch (error) {
			this.#take([], problem(error))
		}
		this.#isAsking = false
		this.refresh(this.#isStale ? SOON : EVERY)
	}

	#take(records, trouble) {
		tell(byId("invocation-trouble"), trouble)
		setText(byId("invocation-count"), this.#hasMore ? `${number(records.length)} newest` : number(records.length))
		show(byId("more-invocations"), this.#hasMore)
		// Rows stay where they are unless something is different, so that nobody's click misses.
		const text = JSON.stringify(records)
		if (text !== this.#texts) {
			this.#texts = text
			this.#records = records
			beforePaint(() => this.#drawList())
		}
		this.#drawEmpty(trouble)
	}

	#drawList() {
		const id = this.#selected?.invocation_id
		this.#list.reset(this.#records)
		const index = this.#records.findIndex((record) => record.invocation_id === id)
		if (index >= 0) this.#list.mark(index)
		this.#select(index >= 0 ? this.#records[index] : this.#selected)
	}

	#drawEmpty(trouble) {
		const isEmpty = this.#records.length === 0
		show(byId("invocation-list"), !isEmpty)
		show(byId("invocations-empty"), isEmpty && trouble === undefined)
		const isFiltered = this.#status.value !== "" || this.#session.value.trim() !== ""
		setText(byId("invocations-empty"), isFiltered ? "No invocation passes the filter." : "Your invocations are listed here, also those of other sockets and replicas.")
	}

	#row(record) {
		const { invocation_id: id, session_id: session, status, created_at: created, stream, awaiting } = record
		const told = [
			stream && count(stream.last_sequence_number, "chunk"),
			awaiting?.length && count(awaiting.length, "question"),
			record.progress !== undefined && "has progress",
			record.error && record.error.code !== status && record.error.code,
		].filter(Boolean)
		return [
			h("span", { class: "first" }, badge(status, words(status)), h("code", { title: id }, id), h("time", { datetime: created }, clock(Date.parse(created)))),
			h("span", { class: "second" }, h("span", { class: "faint session", title: session }, session), h("span", { class: "faint" }, told.join(" · "))),
		]
	}

	#select(record) {
		this.#selected = record
		show(byId("invocation-detail"), record !== undefined)
		if (record === undefined) return
		setText(byId("invocation-title"), record.invocation_id)
		byId("cancel-invocation").disabled = !RUNNING.has(record.status)
	}

	async #open() {
		const { invocation_id: id } = this.#selected
		try {
			const text = this.#daemon.redact(pretty(await this.#daemon.client.get(id)))
			showText(`Invocation ${id}`, text, button("Copy the record", () => copy(text, "the record"), ""))
		} catch (error) {
			this.#tell(problem(error))
		}
	}

	async #cancel() {
		const { invocation_id: id } = this.#selected
		byId("cancel-invocation").disabled = true
		try {
			// Not by the client, which would have to attach first, and so end a run that follows it.
			const answer = await this.#daemon.fetch(`invocations/${encodeURIComponent(id)}/cancel`, { method: "POST" })
			announce(`${id} ${words(answer?.status ?? "cancelled")}`)
		} catch (error) {
			this.#tell(problem(error))
		}
		this.refresh(0)
	}

	#tell(text) {
		tell(byId("invocation-trouble"), text)
		announce(text)
	}
}
