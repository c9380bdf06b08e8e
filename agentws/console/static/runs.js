/** The runs of this page, the newest first, several at once. */

import { byId, show } from "./dom.js"
import { RunView } from "./run_view.js"

/** How many are kept; beyond it the oldest that are over go. */
const MOST = 40

export class Runs {
	isSlow = false
	#daemon
	#edit
	#onChange
	#list = byId("run-list")
	#empty = byId("runs-empty")
	#views = []
	#count = 0

	constructor(daemon, { edit, changed }) {
		this.#daemon = daemon
		this.#edit = edit
		this.#onChange = changed
		byId("clear-runs").addEventListener("click", () => this.#clear())
	}

	start({ payload, options }) {
		this.#add(this.#daemon.client.invoke(payload, { ...options, onGap: "skip" }), { payload, options })
	}

	attach(id, after, sessionId) {
		this.#add(this.#daemon.client.attach(id, { after, onGap: "skip" }), { after, options: { sessionId } })
	}

	disconnected() {
		for (const view of this.#views) view.disconnected()
	}

	stopNewest() {
		this.#views.find((view) => !view.isOver)?.stop()
	}

	#add(run, request) {
		const view = new RunView(run, { ...request, number: ++this.#count }, {
			daemon: this.#daemon,
			isSlow: () => this.isSlow,
			again: (payload, options) => this.start({ payload, options }),
			edit: this.#edit,
			attach: (id, after) => this.attach(id, after, request.options.sessionId),
			remove: (gone) => this.#remove(gone),
			changed: () => this.#changed(),
		})
		this.#views.unshift(view)
		this.#list.prepend(view.element)
		const old = this.#views.slice(MOST).filter((other) => other.isOver)
		for (const other of old) this.#remove(other)
		if (matchMedia("(max-width: 759px)").matches) view.element.scrollIntoView({ block: "nearest" })
		this.#changed()
	}

	#remove(view) {
		const isFocused = view.element.contains(document.activeElement)
		this.#views = this.#views.filter((other) => other !== view)
		view.element.remove()
		if (isFocused) byId("runs").focus()
		this.#changed()
	}

	#clear() {
		for (const view of this.#views.filter((other) => other.isOver)) this.#remove(view)
		byId("runs").focus()
	}

	#changed() {
		show(this.#empty, this.#views.length === 0)
		show(byId("clear-runs"), this.#views.some((view) => view.isOver))
		this.#onChange()
	}
}
