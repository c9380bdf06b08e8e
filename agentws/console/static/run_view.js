/** One run: what it was given, what it says and asks, and what became of it. */

import { ConnectionFailed, InvocationFailed } from "./agentws.js"
import { announce, attribute, badge, beforePaint, button, copy, h, menu, saveAs, setText, show, tell } from "./dom.js"
import { clock, count, duration, number, oneLine, problem, shortId, words } from "./format.js"
import { Questions } from "./questions.js"
import { RunOutput } from "./run_output.js"
import { asCommand, asCurl, asJavaScript, asPython } from "./snippets.js"

/** How many chunks a second a slow reader takes. */
const SLOW_RATE = 20

const ENDED = new Set(["completed", "failed", "cancelled", "lost"])

export class RunView {
	element
	isOver = false
	chunks = []
	#run
	#request
	#around
	#number
	#status = "pending"
	#after
	#startedAt = Date.now()
	#started = performance.now()
	#firstAt
	#lastAt
	#last
	#gaps = 0
	#reconnections = 0
	#error
	#result
	#notes = []
	#output = new RunOutput(this.chunks)
	#questions = new Questions((text) => this.#note(text))
	#parts
	#draw = () => this.#drawNow()

	constructor(run, request, around) {
		this.#run = run
		this.#request = { options: {}, ...request }
		this.#around = around
		this.#number = request.number
		this.#after = this.#last = request.after ?? 0
		this.#build()
		this.#read()
		this.#drawNow()
	}

	get id() {
		return this.#run.id
	}

	get sessionId() {
		return this.#request.options.sessionId
	}

	get #isAttached() {
		return this.#request.after !== undefined
	}

	// --- what it looks like ---

	#build() {
		const title = `Run ${this.#number}`
		const parts = (this.#parts = {
			state: h("span", { class: "state" }),
			stop: button("Stop", () => this.stop(), "danger"),
			attach: button("Attach", () => this.#around.attach(this.id, this.#run.cursor)),
			again: button("Run again", () => this.#around.again(this.#request.payload, this.#request.options)),
			edit: button("Edit and run", () => this.#around.edit(this.#request.payload, this.sessionId)),
			remove: button("×", () => this.#around.remove(this), "quiet", { "aria-label": `Remove run ${this.#number}` }),
			numbers: h("p", { class: "numbers" }),
			notes: h("ul", { class: "notes", hidden: true }),
			error: h("p", { class: "complaint", hidden: true }),
		})
		const id = button(shortId(this.id), () => copy(this.id, "the id"), "quiet id", { "aria-label": `Copy the id ${this.id}`, title: this.id })
		const given = this.#isAttached ? `attached after ${this.#after}` : oneLine(this.#request.payload, 300)
		this.element = h(
			"article",
			{ class: "run", "aria-label": title },
			h(
				"header",
				{},
				h("div", { class: "run-title" }, parts.state, h("h3", {}, title), id),
				h("div", { class: "actions" }, [
					parts.stop,
					parts.attach,
					...(this.#isAttached ? [] : [parts.again, parts.edit]),
					this.#menu(),
					parts.remove,
				]),
			),
			h("p", { class: "given" }, h("code", { title: given }, given), this.sessionId && h("span", { class: "faint" }, this.sessionId)),
			parts.numbers,
			parts.notes,
			parts.error,
			this.#questions.element,
			this.#output.element,
		)
	}

	#menu() {
		const { daemon } = this.#around
		const call = { payload: this.#request.payload, options: this.#request.options, url: daemon.url, hasKey: daemon.hasKey }
		const save = ["Export as JSON", () => saveAs(`run-${this.id}.json`, this.toJson())]
		if (this.#isAttached) return menu("More", [save])
		return menu("Copy as", [
			["agentws invoke", () => copy(asCommand(call), "the command")],
			["curl", () => copy(asCurl(call), "the curl command")],
			["Python", () => copy(asPython(call), "the Python code")],
			["JavaScript", () => copy(asJavaScript(call), "the JavaScript code")],
			save,
		])
	}

	toJson() {
		return {
			invocation_id: this.id,
			session_id: this.sessionId,
			status: this.#status,
			payload: this.#request.payload,
			started_at: new Date(this.#startedAt).toISOString(),
			time_to_first_chunk: this.#firstAt && (this.#firstAt - this.#started) / 1000,
			reconnections: this.#reconnections,
			chunks: this.chunks,
			result: this.#result,
			error: this.#error,
			notes: this.#notes,
		}
	}

	#drawNow() {
		const { state, stop, attach, again, edit, remove, numbers, error } = this.#parts
		const status = this.#shownStatus
		if (state.dataset.state !== status) {
			state.dataset.state = status
			state.replaceChildren(badge(status, status === "left" ? "left running" : words(status)))
			attribute(this.element, "data-state", status)
		}
		show(stop, !this.isOver)
		show(attach, this.isOver && !ENDED.has(status))
		for (const action of [again, edit, remove]) show(action, this.isOver)
		setText(numbers, this.#numbers())
		tell(error, this.#error && this.#errorText())
	}

	#numbers() {
		const chunks = this.chunks.length
		const from = this.#firstAt && (this.#firstAt - this.#started) / 1000
		const told = [count(chunks, "chunk")]
		if (from !== undefined) told.push(`first after ${duration(from)}`)
		const span = (this.#lastAt - this.#firstAt) / 1000
		if (chunks > 1 && span > 0) told.push(`${number((chunks - 1) / span)} per second`)
		if (this.isOver) told.push(`${duration((this.#lastAt - this.#started) / 1000)} in all`)
		if (this.#reconnections > 0) told.push(count(this.#reconnections, "reconnect"))
		if (chunks > 0) told.push(this.#gaps ? `${count(this.#gaps, "gap")}` : "nothing missing")
		return told.join(" · ")
	}

	#errorText() {
		const { code, message, reason, superseded_by: by, running_invocation_id: running } = this.#error
		const more = [reason && `reason: ${reason}`, by && `superseded by ${by}`, running && `running: ${running}`].filter(Boolean)
		return `${code}: ${message}${more.length ? ` (${more.join(", ")})` : ""}`
	}

	get #shownStatus() {
		if (this.#error && !this.#wasLeft) return ENDED.has(this.#status) ? this.#status : "failed"
		if (!this.isOver && this.#questions.size > 0) return "input_required"
		return this.#wasLeft ? "left" : this.#status
	}

	/** The connection went for good; the invocation may run on. */
	#wasLeft = false

	#note(text) {
		const time = Date.now()
		this.#notes.push({ time: new Date(time).toISOString(), text })
		this.#parts.notes.append(h("li", {}, h("time", {}, clock(time)), ` ${text}`))
		show(this.#parts.notes, true)
		announce(text)
		beforePaint(this.#draw)
	}

	// --- what happens ---

	/** The socket was lost under the run. */
	disconnected() {
		if (!this.isOver) this.#note(`Socket lost after chunk ${this.#last}`)
	}

	async stop() {
		const { stop } = this.#parts
		stop.disabled = true
		try {
			const answer = await this.#run.cancel()
			if (answer?.status === "cancelling") this.#note("The agent is told to stop, and has not ended yet")
		} catch (error) {
			if (error.code !== "already_finished") this.#note(`Not stopped: ${problem(error)}`)
		}
		stop.disabled = false
	}

	async #read() {
		try {
			for await (const event of this.#run.events()) {
				this.#take(event)
				if (event.type === "chunk" && this.#around.isSlow()) await this.#rest()
			}
			this.#result = await this.#run
			if (this.#result !== undefined && !this.#request.options.background) this.#output.setResult(this.#result)
			this.#status = this.#request.options.background ? "background" : "completed"
		} catch (error) {
			this.#fail(error)
		}
		this.isOver = true
		this.#lastAt = performance.now()
		this.#questions.closeAll()
		announce(`Run ${this.#number} ${words(this.#shownStatus)}`)
		this.#drawNow()
		this.#around.changed()
	}

	#rest() {
		return new Promise((resolve) => setTimeout(resolve, 1000 / SLOW_RATE))
	}

	#take(event) {
		if (event.type === "chunk") this.#takeChunk(event)
		else if (event.type === "question") this.#questions.ask(event)
		else if (event.type === "answered") this.#questions.answered(event)
		else if (event.type === "gap") this.#takeGap(event)
		else if (event.type === "reconnected") this.#takeReconnection(event)
		if (event.number > this.#last) this.#last = event.number
		this.#status = this.#run.status
		beforePaint(this.#draw)
	}

	#takeChunk({ number: at, payload }) {
		const now = performance.now()
		this.#firstAt ??= now
		this.#lastAt = now
		const chunk = { number: at, payload }
		this.chunks.push(chunk)
		this.#output.add(chunk)
		if (at !== this.#last + 1) this.#gaps++
	}

	#takeGap({ firstAvailable }) {
		this.#note(`Chunks ${this.#last + 1} to ${firstAvailable - 1} are no longer held by the server`)
		this.#gaps++
		this.#last = firstAvailable - 1
	}

	#takeReconnection({ attempts, seconds }) {
		this.#reconnections++
		const again = attempts > 1 ? `, at attempt ${attempts}` : ""
		this.#note(`Reconnected after ${duration(seconds)}${again}; attached after chunk ${this.#last}, nothing is missing`)
	}

	#fail(error) {
		this.#status = this.#run.status
		if (error instanceof InvocationFailed) {
			this.#error = error.error
		} else {
			this.#wasLeft = true
			if (error instanceof ConnectionFailed) this.#error = { code: "no connection", message: error.message }
			else this.#note("Followed no longer here; it may run on")
		}
		if (error.code === "replay_gap") this.#wasLeft = true
	}
}
