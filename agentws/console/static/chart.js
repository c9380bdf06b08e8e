/** Small charts in plain SVG: a line each; of two, one is dashed. */

import { attribute, svg } from "./dom.js"

const WIDTH = 240
const HEIGHT = 40

export class Chart {
	element
	#area
	#lines

	constructor(series = 1) {
		this.#area = svg("path", { class: "area" })
		this.#lines = Array.from({ length: series }, (_, at) => svg("path", { class: `line line-${at}` }))
		this.element = svg(
			"svg",
			{ class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
			svg("path", { class: "ground", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` }),
			this.#area,
			this.#lines,
		)
	}

	/** Draw the samples of the last `span` seconds, the oldest first. */
	draw(samples, told, span) {
		attribute(this.element, "aria-label", told)
		const now = samples.at(-1)?.at ?? 0
		const highest = Math.max(...samples.flatMap(({ values }) => values.map((value) => value ?? 0)), 0) || 1
		const x = (at) => (WIDTH - ((now - at) / span) * WIDTH).toFixed(1)
		const y = (value) => (HEIGHT - 1 - (value / highest) * (HEIGHT - 4)).toFixed(1)
		this.#lines.forEach((line, series) => attribute(line, "d", path(samples, series, x, y)))
		const first = path(samples, 0, x, y)
		const isWhole = samples.every(({ values }) => values[0] !== undefined)
		const begin = samples.length > 0 && x(samples[0].at)
		attribute(this.#area, "d", first && isWhole ? `${first}L${WIDTH} ${HEIGHT}L${begin} ${HEIGHT}Z` : "")
	}
}

/** Where there is no value, the line is broken. */
function path(samples, series, x, y) {
	let d = ""
	let isDown = false
	for (const { at, values } of samples) {
		const value = values[series]
		if (value !== undefined) d += `${isDown ? "L" : "M"}${x(at)} ${y(value)}`
		isDown = value !== undefined
	}
	return d
}
