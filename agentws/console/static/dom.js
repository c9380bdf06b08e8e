/** Elements of the page. What an agent says is put in as text, never as markup. */

const SVG = "http://www.w3.org/2000/svg"

/** Make an element. `props` are attributes; `on` holds listeners by event, `prop` properties. */
export function h(tag, props = {}, ...children) {
	return fill(document.createElement(tag), props, children)
}

export function svg(tag, props, ...children) {
	return fill(document.createElementNS(SVG, tag), props, children)
}

function fill(element, { on = {}, prop = {}, ...attributes }, children) {
	for (const [name, value] of Object.entries(attributes)) attribute(element, name, value)
	for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener)
	Object.assign(element, prop)
	element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false))
	return element
}

/** Set an attribute, or take it away (false, null); those of ARIA are true or false in words. */
export function attribute(element, name, value) {
	if (name.startsWith("aria-") && typeof value === "boolean") element.setAttribute(name, value)
	else if (value === false || value === null || value === undefined) element.removeAttribute(name)
	else element.setAttribute(name, value === true ? "" : value)
}

export function button(label, action, kind = "quiet", props = {}) {
	return h("button", { type: "button", class: kind, on: { click: action }, ...props }, label)
}

/** Set a text where it has changed: nothing is laid out for nothing. */
export function setText(element, text) {
	if (element.textContent !== text) element.textContent = text
}

export function show(element, isShown) {
	if (element.hidden === isShown) element.hidden = !isShown
}

/** Show a text, if there is one. */
export function tell(element, text) {
	setText(element, text || "")
	show(element, Boolean(text))
}

export function byId(id) {
	return document.getElementById(id)
}

const CIRCLE = "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11"

/** The shapes of states: none is told by its colour alone. */
const SHAPES = {
	pending: CIRCLE,
	running: `${CIRCLE}M6.6 5.6v4.8l4-2.4z`,
	input_required: "M5.6 6.2a2.4 2.4 0 1 1 3.5 2.1c-.8.4-1.1.8-1.1 1.6M8 12.2v.4",
	completed: "M3 8.5l3.4 3.4L13 4.8",
	failed: "M4 4l8 8M12 4l-8 8",
	cancelled: `${CIRCLE}M4.2 4.2l7.6 7.6`,
	lost: "M8 2.6l6 10.8H2zM8 6.6v3M8 11.4v.3",
	background: "M3 5.5h7.5v7.5H3zM5.5 3h7.5v7.5",
	left: "M9.5 3.5H13v9H9.5M9 8H2.5M5 5.2L2.2 8L5 10.8",
}

export function badge(state, word) {
	const path = svg("path", { d: SHAPES[state] ?? CIRCLE, "stroke-dasharray": state === "pending" && "2.2 2.12" })
	const shape = svg("svg", { class: "shape", viewBox: "0 0 16 16", "aria-hidden": "true" }, path)
	return h("span", { class: "badge", "data-state": state }, shape, word)
}

let later = new Set()

/** Do something once before the next frame is painted. */
export function beforePaint(task) {
	if (later.size === 0) requestAnimationFrame(runLater)
	later.add(task)
}

function runLater() {
	const tasks = later
	later = new Set()
	for (const task of tasks) task()
}

export function announce(text) {
	byId("announcer").textContent = text
}

export function menu(label, entries) {
	const details = h("details", { class: "menu" })
	const summary = h("summary", { class: "button quiet" }, label)
	const leave = () => {
		details.open = false
		summary.focus()
	}
	const act = (action) => () => {
		leave()
		action()
	}
	details.append(
		summary,
		h(
			"div",
			{ class: "menu-list" },
			entries.map(([name, action]) => button(name, act(action), "")),
		),
	)
	details.addEventListener("keydown", (event) => {
		if (event.key !== "Escape" || !details.open) return
		event.stopPropagation()
		leave()
	})
	details.addEventListener("focusout", (event) => {
		if (event.relatedTarget && !details.contains(event.relatedTarget)) details.open = false
	})
	return details
}

document.addEventListener("pointerdown", (event) => {
	for (const open of document.querySelectorAll("details.menu[open]")) {
		if (!open.contains(event.target)) open.open = false
	}
})

/** Copy a text; where the browser does not let us, show it. */
export async function copy(text, what) {
	try {
		await navigator.clipboard.writeText(text)
		toast(`Copied ${what}`)
	} catch {
		showText(`Copy ${what}`, text)
	}
}

let toastTimer = 0

export function toast(text) {
	const box = byId("toast")
	box.textContent = text
	box.hidden = false
	announce(text)
	clearTimeout(toastTimer)
	toastTimer = window.setTimeout(() => (box.hidden = true), 2500)
}

export function showText(title, text, ...actions) {
	const dialog = h(
		"dialog",
		{ class: "sheet", "aria-label": title },
		h(
			"div",
			{ class: "sheet-head" },
			h("h2", {}, title),
			button("Close", () => dialog.close()),
		),
		h("pre", { class: "code", tabindex: "0" }, text),
		actions.length > 0 && h("div", { class: "actions" }, actions),
	)
	dialog.addEventListener("close", () => dialog.remove())
	document.body.append(dialog)
	dialog.showModal()
	return dialog
}

export function saveAs(name, value) {
	const url = URL.createObjectURL(new Blob([JSON.stringify(value, null, 2)], { type: "application/json" }))
	h("a", { href: url, download: name }).click()
	setTimeout(() => URL.revokeObjectURL(url), 10_000)
}
