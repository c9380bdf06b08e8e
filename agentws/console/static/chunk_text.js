/** The text of a chunk, where it has an obvious one: tokens are read joined, not as JSON. */

const FIELDS = ["token", "text", "delta", "content", "message"]

export function textOf(payload) {
	if (typeof payload === "string") return payload
	if (payload === null || typeof payload !== "object" || Array.isArray(payload)) return undefined
	for (const field of FIELDS) {
		const value = payload[field]
		if (typeof value === "string") return value
		// As model providers nest it: {"delta": {"content": "…"}}.
		if (value !== null && typeof value === "object" && !Array.isArray(value)) {
			const nested = textOf(value)
			if (nested !== undefined) return nested
		}
	}
	const choice = payload.choices?.[0]
	return choice === undefined || choice === null ? undefined : textOf(choice)
}
