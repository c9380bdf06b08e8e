/** JSON as people type it: what it is, or in a sentence why it is none, and where. */

export function parseJson(text) {
	try {
		return { value: JSON.parse(text) }
	} catch (error) {
		return explain(String(error.message), text)
	}
}

function explain(message, text) {
	if (text.trim() === "") return { error: "There is no JSON yet; an empty payload is {}", position: 0 }
	const position = positionOf(message, text)
	const reason = message
		.replace(/^JSON\.parse: |^SyntaxError: /, "")
		.replace(/ in JSON.*$|, ?".*" is not valid JSON$|, ?\.\.\..* is not valid JSON$| at line \d+ column \d+.*$| \(line .*$/s, "")
	if (position === undefined) return { error: `No JSON: ${reason}` }
	const before = text.slice(0, position).split("\n")
	return { error: `Line ${before.length}, column ${(before.at(-1)?.length ?? 0) + 1}: ${reason}`, position }
}

function positionOf(message, text) {
	const position = /at position (\d+)/.exec(message)
	if (position) return Number(position[1])
	const place = /line (\d+) column (\d+)/.exec(message)
	if (place) {
		const lines = text.split("\n").slice(0, Number(place[1]) - 1)
		return lines.reduce((sum, line) => sum + line.length + 1, 0) + Number(place[2]) - 1
	}
	return /end of JSON/.test(message) ? text.length : undefined
}
