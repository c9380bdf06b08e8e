/** All frames of the page's sockets, both ways, without the key. */

import { attribute, beforePaint, byId, copy, h, setText, show } from "./dom.js"
import { bytes, clock, number, prettyText, shortId } from "./format.js"
import { WindowedList } from "./windowed_list.js"

/** How many are kept, and how many go at once when there are more. */
const MOST = 120_000
const BATCH = 20_000

/** A frame longer than that is kept in part. */
const LONGEST = 256_000

const MOST_TEXT = 64_000_000

/** Of a longer frame only the beginning is read, where its type is. */
const READABLE = 4_096

/** What the page itself asks for all the time, and what keeps the socket open. */
const HOUSEKEEPING = new Set(["ping", "pong", "list_invocations", "invocations"])

const UTF8 = new TextEncoder()

const PREVIEW = 240

export class Frames {
	#redact
	#all = []
	#shown = []
	#dropped = 0
	#textSize = 0
	#types = new Set()
	#isPaused = false
	#whilePaused = 0
	#selected
	#list
	#type = byId("frame-type")
	#invocation = byId("frame-invocation")
	#housekeeping = byId("frame-housekeeping")
	#draw = () => this.#drawNow()

	constructor(redact) {
		this.#redact = redact
		this.#list = new WindowedList({
			label: "Frames, the newest last",
			rowHeight: 24,
			follows: true,
			draw: (frame) => this.#row(frame),
			onSelect: (frame) => this.#select(frame),
		})
		byId("frame-list").append(this.#list.element)
		for (const field of [this.#type, this.#housekeeping]) field.addEventListener("change", () => this.#filter())
		this.#invocation.addEventListener("input", () => this.#filter())
		byId("pause-frames").addEventListener("click", () => this.#pause(!this.#isPaused))
		byId("copy-frames").addEventListener("click", () => this.#copyShown())
		byId("clear-frames").addEventListener("click", () => this.#clear())
		byId("copy-frame").addEventListener("click", () => copy(this.#redact(this.#selected.text), "the frame"))
		byId("close-frame").addEventListener("click", () => this.#closeDetail())
		this.#drawNow()
	}

	add(direction, data) {
		const whole = typeof data === "string" ? data : new TextDecoder().decode(data)
		const text = whole.length > LONGEST ? whole.slice(0, LONGEST) : whole
		const { type, id } = glance(text)
		const frame = { time: Date.now(), direction, type, id, text, size: UTF8.encode(whole).length, isCut: text !== whole }
		this.#all.push(frame)
		this.#textSize += text.length
		if (!this.#types.has(type)) this.#addType(type)
		if (this.#all.length > MOST || this.#textSize > MOST_TEXT) this.#dropOldest()
		if (this.#isPaused) this.#whilePaused++
		else if (this.#passes(frame)) this.#shown.push(frame)
		beforePaint(this.#draw)
	}

	#addType(type) {
		this.#types.add(type)
		const option = h("option", { value: type }, type)
		const after = [...this.#type.options].slice(1).find((other) => other.value > type)
		this.#type.insertBefore(option, after ?? null)
	}

	#dropOldest() {
		const gone = this.#all.splice(0, Math.min(BATCH, this.#all.length - 1))
		this.#textSize -= gone.reduce((sum, { text }) => sum + text.length, 0)
		this.#dropped += gone.length
		const last = gone.at(-1)
		const kept = this.#shown.findIndex((frame) => frame.time > last.time)
		const dropped = kept < 0 ? this.#shown.length : kept
		this.#shown.splice(0, dropped)
		this.#list.show(this.#shown, dropped)
	}

	#passes(frame) {
		const wanted = this.#invocation.value.trim()
		if (wanted !== "" && !frame.id.includes(wanted)) return false
		if (this.#type.value !== "") return frame.type === this.#type.value
		return this.#housekeeping.checked || !HOUSEKEEPING.has(frame.type)
	}

	#filter() {
		const shown = this.#isPaused ? this.#all.slice(0, this.#all.length - this.#whilePaused) : this.#all
		this.#shown = shown.filter((frame) => this.#passes(frame))
		this.#list.reset(this.#shown)
		this.#drawNow()
	}

	#pause(isPaused) {
		this.#isPaused = isPaused
		attribute(byId("pause-frames"), "aria-pressed", isPaused)
		if (!isPaused) {
			this.#whilePaused = 0
			this.#filter()
		}
		this.#drawNow()
	}

	#clear() {
		this.#all = []
		this.#textSize = this.#dropped = this.#whilePaused = 0
		this.#closeDetail()
		this.#filter()
	}

	#drawNow() {
		this.#list.show(this.#shown)
		const total = this.#all.length + this.#dropped
		const told = [this.#shown.length === total ? `${number(total)}` : `${number(this.#shown.length)} of ${number(total)}`]
		if (this.#dropped) told.push(`${number(this.#dropped)} forgotten`)
		if (this.#isPaused) told.push(`paused, ${number(this.#whilePaused)} more`)
		setText(byId("frame-count"), told.join(" · "))
		show(byId("frame-list"), this.#shown.length > 0)
		show(byId("frames-empty"), this.#shown.length === 0)
		const isFiltered = this.#type.value !== "" || this.#invocation.value.trim() !== ""
		setText(byId("frames-empty"), isFiltered ? "No frame passes the filter." : "What goes over the socket is shown here, both ways.")
	}

	#row({ time, direction, type, id, text, size }) {
		const isOut = direction === "out"
		return [
			h("time", {}, clock(time, true)),
			h("span", { class: `arrow ${direction}` }, h("span", { "aria-hidden": "true" }, isOut ? "↑" : "↓"), h("span", { class: "unseen" }, isOut ? "sent" : "received")),
			h("span", { class: "type", "data-type": type }, type),
			h("span", { class: "faint id" }, shortId(id)),
			h("span", { class: "size" }, bytes(size)),
			h("code", {}, this.#redact(text.slice(0, PREVIEW))),
		]
	}

	#select(frame) {
		this.#selected = frame
		const { time, direction, type, size, isCut } = frame
		const way = direction === "out" ? "sent" : "received"
		setText(byId("frame-title"), `${type}, ${way} ${clock(time, true)}, ${bytes(size)}${isCut ? ", its beginning" : ""}`)
		setText(byId("frame-text"), this.#redact(prettyText(frame.text)))
		show(byId("frame-detail"), true)
	}

	#closeDetail() {
		show(byId("frame-detail"), false)
		this.#list.element.focus()
	}

	#copyShown() {
		const lines = this.#shown.map(({ time, direction, text }) => `${new Date(time).toISOString()} ${direction === "out" ? ">" : "<"} ${text}`)
		copy(this.#redact(lines.join("\n")), `${number(lines.length)} frames`)
	}
}

function glance(text) {
	try {
		if (text.length <= READABLE) {
			const { type, action, invocation_id: id } = JSON.parse(text)
			return { type: String(type ?? action ?? "?"), id: typeof id === "string" ? id : "" }
		}
	} catch {
		return { type: "no JSON", id: "" }
	}
	const head = text.slice(0, READABLE)
	const type = /"(?:type|action)"\s*:\s*"([a-z_]{1,40})"/.exec(head)?.[1] ?? "?"
	return { type, id: /"invocation_id"\s*:\s*"([\w.:-]{1,256})"/.exec(head)?.[1] ?? "" }
}
