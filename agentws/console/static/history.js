/** The payloads that were run, the newest first; kept in this browser. */

const KEY = "agentws.console.payloads"
const MOST = 50
const LONGEST = 64_000

export function payloads() {
	try {
		const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]")
		return Array.isArray(kept) ? kept.filter((text) => typeof text === "string") : []
	} catch {
		return [] // kept by somebody else, or the browser keeps nothing
	}
}

export function remember(text) {
	if (text.length > LONGEST) return
	const others = payloads().filter((other) => other !== text)
	keep([text, ...others].slice(0, MOST))
}

export function forgetAll() {
	try {
		localStorage.removeItem(KEY)
	} catch {
		// Then there is nothing kept.
	}
}

function keep(texts) {
	try {
		localStorage.setItem(KEY, JSON.stringify(texts))
	} catch {
		if (texts.length > 1) keep(texts.slice(0, texts.length >> 1)) // it is full
	}
}
