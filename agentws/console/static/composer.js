/** Where a payload is written, as JSON or in a form, and sent. */

import { attribute, button, byId, h, setText, show } from "./dom.js"
import { oneLine, pretty } from "./format.js"
import { forgetAll, payloads, remember } from "./history.js"
import { parseJson } from "./json_text.js"
import { readForm, schemaForm } from "./schema_form.js"

/** For how many ms nothing is typed before an error is told. */
const PAUSE = 500

const EXAMPLE = { message: "hi" }

export class Composer {
	#onRun
	#payload = byId("payload")
	#alert = byId("payload-error")
	#wrap = byId("payload-wrap")
	#formBox = byId("payload-form")
	#modes = byId("payload-modes")
	#session = byId("session")
	#form
	#schemaText = ""
	#isForm = false
	#timer = 0

	constructor(onRun) {
		this.#onRun = onRun
		this.#payload.value = payloads()[0] ?? pretty(EXAMPLE)
		this.#session.value = newSession()
		byId("composer").addEventListener("submit", (event) => {
			event.preventDefault()
			this.run()
		})
		byId("composer").addEventListener("keydown", (event) => {
			if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return
			event.preventDefault()
			this.run()
		})
		byId("new-session").addEventListener("click", () => (this.#session.value = newSession()))
		byId("history").open = matchMedia("(min-width: 1200px)").matches // where there is room
		byId("clear-history").addEventListener("click", () => {
			forgetAll()
			this.#drawHistory()
		})
		this.#payload.addEventListener("input", () => this.#typed())
		byId("as-form").addEventListener("click", () => this.#choose(true))
		byId("as-json").addEventListener("click", () => this.#choose(false))
		this.#drawHistory()
	}

	/** Draw the form for a schema, undefined where there is none. */
	use(schema) {
		const text = JSON.stringify(schema) ?? ""
		if (text === this.#schemaText) return
		this.#schemaText = text
		const typed = this.#isForm ? readForm(this.#form) : undefined // which outlives a reload
		if (typed && !typed.error) this.#payload.value = pretty(typed.value)
		const isFresh = this.#form === undefined
		this.#form = schema && schemaForm(schema)
		this.#formBox.replaceChildren(...(this.#form ? [this.#form.element] : []))
		show(this.#modes, this.#form !== undefined)
		if (!this.#form) return this.#setMode(false)
		const { value, error } = parseJson(this.#payload.value)
		const isOwn = this.#payload.value !== pretty(EXAMPLE)
		const fits = !error && isOwn && this.#form.write(value)
		if (!fits) this.#form.write(undefined)
		this.#setMode(isFresh || this.#isForm)
	}

	/** Say why nothing can be sent; undefined: nothing is wrong. */
	#complain(text, field = this.#payload) {
		const offer = this.#offer(text)
		this.#alert.replaceChildren(...(text ? [h("span", {}, text), ...(offer ? [offer] : [])] : []))
		show(this.#alert, Boolean(text))
		attribute(this.#payload, "aria-invalid", text && field === this.#payload ? "true" : null)
		attribute(this.#payload, "aria-describedby", text ? "payload-error" : null)
	}

	/** A text that is no JSON was meant as a message, as on the command line. */
	#offer(text) {
		const typed = this.#payload.value.trim()
		if (!text || this.#isForm || typed === "" || /^[[{"]/.test(typed)) return undefined
		const wrap = () => {
			this.#payload.value = pretty({ message: typed })
			this.#complain(undefined)
			this.#payload.focus()
		}
		return button("Make it a message", wrap)
	}

	#typed() {
		clearTimeout(this.#timer)
		const { error } = parseJson(this.#payload.value)
		if (!error) return this.#complain(undefined)
		this.#timer = window.setTimeout(() => this.#complain(error), PAUSE)
	}

	#choose(isForm) {
		if (isForm) {
			const { value, error } = parseJson(this.#payload.value)
			const fits = !error && this.#form?.write(value)
			if (!fits) {
				this.#setMode(false)
				return this.#complain(error ?? "The form has no place for this; it stays JSON")
			}
		} else {
			const { value, error } = readForm(this.#form)
			if (!error) this.#payload.value = pretty(value)
		}
		this.#setMode(isForm)
	}

	#setMode(isForm) {
		this.#isForm = isForm
		show(this.#formBox, isForm)
		show(this.#wrap, !isForm)
		attribute(byId("as-form"), "aria-pressed", isForm)
		attribute(byId("as-json"), "aria-pressed", !isForm)
		this.#complain(undefined)
	}

	run() {
		clearTimeout(this.#timer)
		const read = this.#isForm ? readForm(this.#form) : { ...parseJson(this.#payload.value), field: this.#payload }
		this.#complain(read.error, read.field)
		if (read.error) return read.field?.focus()
		this.#send(read.value)
	}

	/** Put a payload, and the session it had, where it can be changed. */
	edit(payload, sessionId) {
		this.#payload.value = pretty(payload)
		if (sessionId) this.#session.value = sessionId
		const fits = this.#form?.write(payload)
		this.#setMode(this.#isForm && fits === true)
		this.focus()
	}

	focus() {
		const first = this.#isForm ? this.#formBox.querySelector("input, select, textarea") : this.#payload
		first?.focus()
		first?.scrollIntoView({ block: "nearest" })
	}

	#send(payload) {
		remember(pretty(payload))
		this.#drawHistory()
		const options = {
			sessionId: this.#session.value.trim() || undefined,
			background: byId("background").checked || undefined,
			onDisconnect: byId("on-disconnect").value || undefined,
			ifSessionBusy: byId("if-session-busy").value || undefined,
		}
		this.#onRun({ payload, options })
	}

	#drawHistory() {
		const texts = payloads()
		setText(byId("history-count"), String(texts.length))
		show(byId("history"), texts.length > 0)
		byId("history-list").replaceChildren(...texts.map((text) => this.#historyRow(text)))
	}

	#historyRow(text) {
		const { value, error } = parseJson(text)
		if (error) return ""
		const preview = oneLine(value, 120)
		const act = (name, action) => button(name, action, "quiet", { "aria-label": `${name}: ${preview}` })
		return h(
			"li",
			{},
			h("code", { title: preview }, preview),
			act("Run again", () => this.#send(value)),
			act("Edit and run", () => this.edit(value)),
		)
	}
}

function newSession() {
	const bytes = crypto.getRandomValues(new Uint8Array(4))
	return `console-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`
}
