/** What `console/state` tells every two seconds, and the 15 minutes of it, kept here. */

import { Chart } from "./chart.js"
import { byId, h, setText, tell } from "./dom.js"
import { count, duration, number } from "./format.js"

/** Between two questions, in ms; without a connection each makes the browser complain. */
const EVERY = 2000
const RARELY = 10_000

/** What is kept, in seconds; and the least that is drawn. */
const SPAN = 900
const LEAST = 60

const CODES = 3

const CHARTS = [
	{ name: "Sockets", series: ({ sockets }) => [sockets], say: ([open]) => number(open) },
	{
		name: "Running",
		series: ({ invocations: of }) => [(of?.running ?? 0) + (of?.input_required ?? 0)],
		say: ([running]) => number(running),
	},
	{ name: "Invocations per s", series: ({ rates }) => [rates?.invocations_per_second], say: ([rate]) => number(rate) },
	{ name: "Chunks per s", series: ({ rates }) => [rates?.chunks_per_second], say: ([rate]) => number(rate) },
	{
		name: "First chunk p50 / p99",
		series: ({ latencies }) => {
			const { p50, p99 } = latencies?.time_to_first_chunk ?? {}
			return [p50 ?? undefined, p99 ?? undefined]
		},
		say: ([p50, p99]) => `${duration(p50)} / ${duration(p99)}`,
	},
]

export class Health {
	#daemon
	#onState
	#samples = []
	#timer = 0
	#isAsking = false
	#tiles
	#errors = { chart: new Chart(), value: h("strong", {}), codes: h("ul", { class: "codes" }) }

	constructor(daemon, onState) {
		this.#daemon = daemon
		this.#onState = onState
		this.#tiles = CHARTS.map((described) => {
			const chart = new Chart(described.name.includes("/") ? 2 : 1)
			return { ...described, chart, value: h("strong", {}, "–") }
		})
		const { chart, value, codes } = this.#errors
		byId("health-charts").append(
			...this.#tiles.map((tile) => h("div", { class: "tile" }, h("p", {}, h("span", {}, tile.name), tile.value), tile.chart.element)),
			h("div", { class: "tile" }, h("p", {}, h("span", {}, "Errors, 15 min"), value), chart.element, codes),
		)
		this.#draw()
		this.ask()
	}

	async ask() {
		if (this.#isAsking) return
		clearTimeout(this.#timer)
		const { state } = this.#daemon
		if (state === "locked" || this.#daemon.isRefused) return this.#later()
		this.#isAsking = true
		try {
			this.#take(await this.#daemon.fetch("console/state"))
			tell(byId("health-trouble"))
		} catch (error) {
			tell(byId("health-trouble"), `No news from the daemon: ${error.message}`)
		}
		this.#isAsking = false
		this.#later()
	}

	#later() {
		const delay = this.#daemon.state === "open" ? EVERY : RARELY
		this.#timer = window.setTimeout(() => this.ask(), delay)
	}

	#take(state) {
		const at = performance.now() / 1000
		this.#samples.push({ at, state })
		while (this.#samples[0].at < at - SPAN) this.#samples.shift()
		this.#onState(state)
		this.#draw()
	}

	get #span() {
		const first = this.#samples[0]?.at ?? 0
		return Math.min(SPAN, Math.max(LEAST, (this.#samples.at(-1)?.at ?? 0) - first))
	}

	#draw() {
		const span = this.#span
		setText(byId("health-span"), `of this replica, last ${count(Math.ceil(span / 60), "minute")}`)
		for (const { name, series, say, chart, value } of this.#tiles) {
			const points = this.#samples.map(({ at, state }) => ({ at, values: series(state) }))
			const last = points.length > 0 ? say(points[points.length - 1].values) : "–"
			setText(value, last)
			chart.draw(points, `${name}: now ${last}`, span)
		}
		this.#drawErrors()
	}

	/** Errors are counted since the start; told is how many came in between. */
	#drawErrors() {
		const { chart, value, codes } = this.#errors
		const sums = new Map()
		const points = this.#samples.map(({ at, state }, index) => {
			const before = index > 0 ? this.#samples[index - 1].state : state
			let all = 0
			for (const [code, total] of Object.entries(state.errors ?? {})) {
				const had = state.uptime < before.uptime ? 0 : (before.errors?.[code] ?? 0)
				const more = Math.max(0, total - had)
				if (more > 0) sums.set(code, (sums.get(code) ?? 0) + more)
				all += more
			}
			return { at, values: [all] }
		})
		const total = points.reduce((sum, { values }) => sum + values[0], 0)
		const told = [...sums].sort(([, a], [, b]) => b - a)
		setText(value, number(total))
		chart.draw(points, `Errors in the last 15 minutes: ${[...told.map(([code, many]) => `${many} ${code}`)].join(", ") || "none"}`, this.#span)
		codes.replaceChildren(...told.slice(0, CODES).map(([code, many]) => h("li", {}, `${number(many)} × `, h("code", {}, code))))
		if (told.length > CODES) codes.append(h("li", {}, `${told.length - CODES} more`))
	}
}
