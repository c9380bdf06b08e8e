/** Numbers, times and values as people read them. */

export function clock(time, isFine = false) {
	const date = new Date(time)
	const pad = (value, digits = 2) => String(value).padStart(digits, "0")
	const text = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`
	return isFine ? `${text}.${pad(date.getMilliseconds(), 3)}` : text
}

export function duration(seconds) {
	if (seconds === undefined || seconds === null || !Number.isFinite(seconds)) return "–"
	if (seconds < 0.0995) return `${number(seconds * 1000)} ms`
	if (seconds < 99.5) return `${seconds.toPrecision(seconds < 9.95 ? 2 : 3)} s`
	if (seconds < 5400) return `${Math.round(seconds / 60)} min`
	return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} d`
}

export function number(value) {
	if (!Number.isFinite(value)) return "–"
	if (Number.isInteger(value)) return value.toLocaleString("en")
	return Math.abs(value) < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")
}

export function count(value, noun) {
	return `${number(value)} ${noun}${value === 1 ? "" : "s"}`
}

export function bytes(size) {
	if (size < 1000) return `${size} B`
	return size < 1_000_000 ? `${number(size / 1000)} kB` : `${number(size / 1_000_000)} MB`
}

/** The beginning of an id that is too long to be read. */
export function shortId(id) {
	return id.length > 12 ? `${id.slice(0, 8)}…` : id
}

export function words(status) {
	return status.replaceAll("_", " ")
}

export function oneLine(value, length = 400) {
	const text = JSON.stringify(value) ?? ""
	return text.length > length ? `${text.slice(0, length)}…` : text
}

export function pretty(value) {
	return JSON.stringify(value, null, 2) ?? ""
}

/** A text of JSON to be read; one that is none stays what it is. */
export function prettyText(text) {
	try {
		return JSON.stringify(JSON.parse(text), null, 2)
	} catch {
		return text
	}
}

export function problem(error) {
	return error.message || String(error)
}
