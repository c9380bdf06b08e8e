/** What a run has said: its text as it streams, or its chunks one a line. */

import { textOf } from "./chunk_text.js"
import { attribute, beforePaint, button, copy, h, setText, show } from "./dom.js"
import { oneLine, pretty } from "./format.js"
import { WindowedList } from "./windowed_list.js"

/** The text is in blocks of about so many characters: what cannot be seen is not laid out. */
const BLOCK = 2000

/** A line longer than that is broken, so that no block grows without end. */
const LONGEST_LINE = 16_000

export class RunOutput {
	element
	#chunks
	#pending = ""
	#block
	#blockSize = 0
	#hasText = false
	#isText
	#list
	#text = h("div", { class: "text", tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Text of the run" })
	#detail = h("pre", { class: "code", tabindex: "0", hidden: true, "aria-label": "The chunk that is selected" })
	#result = h("pre", { class: "code result", tabindex: "0", hidden: true, "aria-label": "Result" })
	#switch
	#draw = () => this.#drawNow()

	constructor(chunks) {
		this.#chunks = chunks
		this.#list = new WindowedList({
			label: "Chunks",
			rowHeight: 22,
			follows: true,
			draw: ({ number, payload }) => [h("span", { class: "nr" }, String(number)), h("code", {}, oneLine(payload))],
			onSelect: ({ payload }) => {
				setText(this.#detail, pretty(payload))
				show(this.#detail, true)
			},
		})
		const mode = (name, isText) => button(name, () => this.#choose(isText), "quiet", { "aria-pressed": false, prop: { isText } })
		this.#switch = h("div", { class: "segments", role: "group", "aria-label": "Show as", hidden: true }, [
			mode("Text", true),
			mode("Chunks", false),
			button("Copy", () => this.#copyShown()),
		])
		show(this.#text, false)
		show(this.#list.element, false)
		this.element = h("div", { class: "output" }, this.#switch, this.#text, this.#list.element, this.#detail, this.#result)
	}

	add({ payload }) {
		const text = textOf(payload)
		if (text !== undefined) this.#hasText = true
		this.#pending += text ?? `${this.#pending === "" && this.#blockSize === 0 ? "" : "\n"}${oneLine(payload, 4000)}\n`
		beforePaint(this.#draw)
	}

	setResult(value) {
		const text = textOf(value)
		setText(this.#result, typeof value === "string" ? value : text !== undefined && Object.keys(value).length === 1 ? text : pretty(value))
		show(this.#result, true)
	}

	get text() {
		return this.#chunks.map(({ payload }) => textOf(payload) ?? `${JSON.stringify(payload)}\n`).join("")
	}

	#choose(isText) {
		this.#isText = isText
		beforePaint(this.#draw)
	}

	#copyShown() {
		if (this.#shown) copy(this.text, "the text")
		else copy(this.#chunks.map(({ payload }) => JSON.stringify(payload)).join("\n"), "the chunks")
	}

	get #shown() {
		return this.#isText ?? this.#hasText
	}

	#drawNow() {
		const isText = this.#shown
		show(this.#switch, this.#chunks.length > 0)
		show(this.#text, isText)
		show(this.#list.element, !isText)
		if (isText) show(this.#detail, false)
		for (const mode of this.#switch.querySelectorAll("[aria-pressed]")) attribute(mode, "aria-pressed", mode.isText === isText)
		this.#appendText()
		if (!isText) this.#list.show(this.#chunks)
	}

	#appendText() {
		if (this.#pending === "") return
		const { scrollTop, scrollHeight, clientHeight } = this.#text
		const isAtEnd = scrollTop + clientHeight >= scrollHeight - 24
		let rest = this.#pending
		this.#pending = ""
		while (rest !== "") {
			const end = this.#breakIn(rest)
			this.#appendToBlock(rest.slice(0, end))
			rest = rest.slice(end)
		}
		if (isAtEnd) this.#text.scrollTop = this.#text.scrollHeight
	}

	#breakIn(text) {
		const room = Math.max(0, BLOCK - this.#blockSize)
		if (text.length <= room) return text.length
		const newline = text.indexOf("\n", room)
		const most = Math.max(1, LONGEST_LINE - this.#blockSize)
		if (newline >= 0 && newline < most) return newline + 1
		return Math.min(text.length, most)
	}

	/** What is full need not be laid out where it is not seen. It breaks the line by itself. */
	#closeBlock() {
		if (this.#block === undefined) return
		if (this.#block.data.endsWith("\n")) this.#block.deleteData(this.#block.length - 1, 1)
		this.#block.parentNode.className = "block full"
	}

	#appendToBlock(text) {
		const isFull = this.#blockSize >= LONGEST_LINE || (this.#blockSize >= BLOCK && this.#block.data.endsWith("\n"))
		if (this.#block === undefined || isFull) {
			this.#closeBlock()
			this.#block = document.createTextNode("")
			this.#blockSize = 0
			this.#text.append(h("div", { class: "block" }, this.#block))
		}
		this.#block.appendData(text)
		this.#blockSize += text.length
	}
}
