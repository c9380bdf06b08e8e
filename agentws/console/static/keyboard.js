/** Keys of the page, and the dialog that lists them. */

import { byId, h } from "./dom.js"

const SETTING = "agentws.console.keys"

const TYPING = "input, textarea, select, [contenteditable]"

export function bindKeys(keys) {
	const dialog = byId("help")
	const isOn = byId("letters")
	isOn.checked = stored() !== "off"
	isOn.addEventListener("change", () => store(isOn.checked ? "on" : "off"))
	byId("keys").append(...keys.map(({ key, does }) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, does))))
	byId("show-help").addEventListener("click", () => dialog.showModal())
	byId("close-help").addEventListener("click", () => dialog.close())
	document.addEventListener("keydown", (event) => {
		if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return
		if (event.target.closest(TYPING)) return
		if (event.key === "?") {
			event.preventDefault()
			return dialog.showModal()
		}
		const bound = isOn.checked && keys.find(({ key }) => key === event.key)
		if (!bound) return
		event.preventDefault()
		bound.action()
	})
}

function stored() {
	try {
		return localStorage.getItem(SETTING)
	} catch {
		return null
	}
}

function store(value) {
	try {
		localStorage.setItem(SETTING, value)
	} catch {
		// Then it holds until the page is loaded again.
	}
}
