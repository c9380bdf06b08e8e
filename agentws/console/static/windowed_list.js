/** A listbox of equally high rows, of which only those that can be seen are in the document. */

import { attribute, beforePaint, h } from "./dom.js"

const MARGIN = 8

let lists = 0

export class WindowedList {
	element
	/** The number of the selected row, -1 where there is none. */
	selected = -1
	/** Whether the end stays in view: until the user scrolls away from it. */
	#follows
	#isFollowing
	#drawn = 0
	#rowHeight
	#draw
	#onSelect
	#items = []
	#rows = new Map()
	#canvas
	#id = `list-${lists++}`
	#render = () => this.#renderNow()

	/** `draw(item)` returns the children of a row, which is `rowHeight` pixels high. */
	constructor({ label, rowHeight, draw, onSelect, follows = false }) {
		this.#rowHeight = rowHeight
		this.#draw = draw
		this.#onSelect = onSelect
		this.#follows = this.#isFollowing = follows
		this.#canvas = h("div", { class: "canvas", role: "presentation" })
		this.element = h(
			"div",
			{
				class: "windowed",
				role: "listbox",
				tabindex: "0",
				"aria-label": label,
				on: {
					scroll: () => this.#scrolled(),
					keydown: (event) => this.#move(event),
					click: (event) => this.#clicked(event),
				},
			},
			this.#canvas,
		)
		new ResizeObserver(() => beforePaint(this.#render)).observe(this.element)
	}

	/** Show these items; so many were `dropped` at the beginning. */
	show(items, dropped = 0) {
		this.#items = items
		if (dropped > 0) this.#shift(dropped)
		beforePaint(this.#render)
	}

	/** Forget what was drawn, as the items are others. */
	reset(items) {
		for (const row of this.#rows.values()) row.remove()
		this.#rows.clear()
		this.mark(-1)
		this.show(items)
	}

	/** Rows keep what they show when those before them go. */
	#shift(dropped) {
		const rows = new Map()
		for (const [index, row] of this.#rows) {
			if (index < dropped) row.remove()
			else rows.set(index - dropped, this.#place(row, index - dropped))
		}
		this.#rows = rows
		if (!this.#follows) this.element.scrollTop -= dropped * this.#rowHeight
		this.mark(this.selected < dropped ? -1 : this.selected - dropped)
	}

	#scrolled() {
		const { scrollTop, clientHeight } = this.element
		// By the height that was drawn: items may have come since.
		this.#follows = this.#isFollowing && scrollTop + clientHeight >= this.#drawn - this.#rowHeight
		beforePaint(this.#render)
	}

	#renderNow() {
		const height = this.#rowHeight
		this.#drawn = this.#items.length * height
		this.#canvas.style.height = `${this.#drawn}px`
		if (this.#follows) this.element.scrollTop = this.#drawn
		const { scrollTop, clientHeight } = this.element
		const first = Math.max(0, Math.floor(scrollTop / height) - MARGIN)
		const last = Math.min(this.#items.length, Math.ceil((scrollTop + clientHeight) / height) + MARGIN)
		for (const [index, row] of this.#rows) {
			if (index >= first && index < last) continue
			row.remove()
			this.#rows.delete(index)
		}
		for (let index = first; index < last; index++) this.#ensure(index)
	}

	#ensure(index) {
		const item = this.#items[index]
		const row = this.#rows.get(index)
		if (row?.item === item) return attribute(row, "aria-setsize", this.#items.length)
		const fresh = h("div", { class: "row", role: "option", prop: { item } }, this.#draw(item))
		if (row) row.replaceWith(this.#place(fresh, index))
		else this.#insert(this.#place(fresh, index), index)
		this.#rows.set(index, fresh)
	}

	#insert(row, index) {
		const next = this.#rows.get(index + 1)
		if (next) next.before(row)
		else this.#canvas.append(row)
	}

	#place(row, index) {
		row.index = index
		row.id = `${this.#id}-${index}`
		row.style.transform = `translateY(${index * this.#rowHeight}px)`
		row.style.height = `${this.#rowHeight}px`
		attribute(row, "aria-posinset", index + 1)
		attribute(row, "aria-setsize", this.#items.length)
		attribute(row, "aria-selected", index === this.selected)
		return row
	}

	#clicked(event) {
		const row = event.target.closest(".row")
		if (row && this.element.contains(row)) this.select(row.index)
	}

	#move(event) {
		const page = Math.max(1, Math.floor(this.element.clientHeight / this.#rowHeight) - 1)
		const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }
		const step = steps[event.key]
		if (step === undefined || this.#items.length === 0 || event.altKey || event.ctrlKey || event.metaKey) return
		event.preventDefault()
		const from = this.selected < 0 ? Math.floor(this.element.scrollTop / this.#rowHeight) - Math.sign(step) : this.selected
		this.select(Math.min(this.#items.length - 1, Math.max(0, from + step)))
	}

	/** Select a row, bring it into view, and tell of it. */
	select(index) {
		this.#bringIntoView(index)
		this.mark(index)
		this.#onSelect(this.#items[index])
	}

	/** Mark a row as the selected one, -1 for none, and tell nobody. */
	mark(index) {
		const mark = (at, is) => attribute(this.#rows.get(at) ?? h("i"), "aria-selected", is)
		mark(this.selected, false)
		this.selected = index
		mark(index, true)
		attribute(this.element, "aria-activedescendant", index >= 0 ? `${this.#id}-${index}` : null)
	}

	#bringIntoView(index) {
		const { element } = this
		const top = index * this.#rowHeight
		if (top < element.scrollTop) element.scrollTop = top
		const bottom = top + this.#rowHeight - element.clientHeight
		if (bottom > element.scrollTop) element.scrollTop = bottom
		this.#follows &&= index === this.#items.length - 1
		this.#renderNow()
	}
}
