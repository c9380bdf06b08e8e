/** What a run asks: a form, which goes once it is answered, here or elsewhere. */

import { inlined } from "./agent_schema.js"
import { textOf } from "./chunk_text.js"
import { announce, badge, h, tell } from "./dom.js"
import { pretty, problem } from "./format.js"
import { parseJson } from "./json_text.js"
import { FieldError, readForm, schemaForm } from "./schema_form.js"

/** The refusal of an answer to what is asked no more. */
const TOO_LATE = "input_not_expected"

export class Questions {
	element = h("div", { class: "questions" })
	#open = new Map()
	#onAnswered

	constructor(onAnswered) {
		this.#onAnswered = onAnswered
	}

	get size() {
		return this.#open.size
	}

	ask(question) {
		if (this.#open.has(question.requestId)) return
		const form = answerForm(question.schema)
		const complaint = h("p", { class: "complaint", role: "alert", hidden: true })
		const submit = h("button", { type: "submit", class: "primary" }, "Answer")
		const label = textOf(question.payload) ?? "The agent asks"
		const element = h(
			"form",
			{ class: "question", "aria-label": `Question: ${label}`, novalidate: true },
			h("div", { class: "question-head" }, badge("input_required", "asks"), h("p", {}, label)),
			textOf(question.payload) === undefined && h("pre", { class: "code", tabindex: "0" }, pretty(question.payload)),
			form.element,
			complaint,
			h("div", { class: "actions" }, submit),
		)
		const card = { question, element, mine: false }
		element.addEventListener("submit", (event) => {
			event.preventDefault()
			this.#answer(card, form, complaint, submit)
		})
		element.addEventListener("keydown", (event) => {
			if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element.requestSubmit()
		})
		this.#open.set(question.requestId, card)
		this.element.append(element)
		announce(`The agent asks: ${label}`)
	}

	async #answer(card, form, complaint, submit) {
		const { value, error, field } = readForm(form)
		tell(complaint, error)
		if (error !== undefined) return field?.focus()
		submit.disabled = true
		card.mine = true
		try {
			await card.question.answer(value)
			this.#close(card.question.requestId, "answered here")
		} catch (failure) {
			card.mine = false
			submit.disabled = false
			if (failure.code === TOO_LATE) return this.#close(card.question.requestId, "answered elsewhere")
			tell(complaint, problem(failure))
		}
	}

	answered({ requestId, withdrawn }) {
		const card = this.#open.get(requestId)
		if (card === undefined) return
		this.#close(requestId, withdrawn ? "withdrawn by the agent" : card.mine ? "answered here" : "answered elsewhere")
	}

	closeAll() {
		for (const requestId of [...this.#open.keys()]) this.#close(requestId, "closed with the run")
	}

	#close(requestId, how) {
		const card = this.#open.get(requestId)
		if (card === undefined) return
		this.#open.delete(requestId)
		card.element.remove()
		this.#onAnswered(`Question ${how}`)
	}
}

function answerForm(schema) {
	const plain = schema && typeof schema === "object" ? inlined(schema) : undefined
	if (plain !== undefined && Object.keys(plain).length > 0) return schemaForm(plain)
	const field = h("textarea", { class: "mono", rows: 3, "aria-label": "Answer as JSON", placeholder: "JSON, e.g. true or {\"approve\": true}" })
	return {
		element: field,
		read: () => {
			const { value, error } = parseJson(field.value)
			if (error) throw new FieldError(error, field)
			return value
		},
	}
}
