/** The page, put together. */

import { payloadSchema } from "./agent_schema.js"
import { Composer } from "./composer.js"
import { Daemon } from "./daemon.js"
import { announce, attribute, badge, byId, setText, show, tell } from "./dom.js"
import { clock, duration } from "./format.js"
import { Frames } from "./frames.js"
import { Health } from "./health.js"
import { Invocations } from "./invocations.js"
import { bindKeys } from "./keyboard.js"
import { Runs } from "./runs.js"

/** For how many seconds "drop for" keeps the socket away. */
const AWAY = 10

/** By how much later, in s, a process has begun that is another; an answer takes less time. */
const LATER = 0.5

let frames
const daemon = new Daemon((direction, data) => frames.add(direction, data))
frames = new Frames((text) => daemon.redact(text))

let runs
const invocations = new Invocations(daemon, (id, after, session) => runs.attach(id, after, session))
const composer = new Composer((request) => runs.start(request))
runs = new Runs(daemon, {
	edit: (payload, session) => composer.edit(payload, session),
	changed: () => invocations.refresh(),
})
const health = new Health(daemon, (state) => heard(state))

// --- the connection ---

const WORDS = {
	connecting: ["pending", "connecting"],
	open: ["completed", "connected"],
	reconnecting: ["lost", "reconnecting"],
	closed: ["failed", "disconnected"],
	locked: ["pending", "needs a key"],
}

let before = daemon.state

daemon.addEventListener("state", () => {
	const { state } = daemon
	drawConnection(state)
	if (state === before) return
	if (state === "reconnecting") runs.disconnected()
	if (state === "open") connected()
	announce(`Socket: ${WORDS[state][1]}`)
	before = state
})

function connected() {
	invocations.refresh(0)
	health.ask()
	learnTypes()
}

function drawConnection(state) {
	const [look, word] = WORDS[daemon.isRefused ? "locked" : state]
	byId("connection").replaceChildren(badge(look, word))
	const isLocked = state === "locked" || daemon.isRefused || (state === "connecting" && daemon.needsKey && !daemon.hasKey)
	show(byId("key-form"), isLocked)
	for (const id of ["drop", "drop-for", "slow"]) byId(id).disabled = isLocked
	byId("run").disabled = isLocked
	drawRefusal(daemon.isRefused)
	const isDown = state === "closed" && !daemon.isRefused
	show(byId("down"), isDown || state === "reconnecting")
	show(byId("connect"), isDown)
	setText(byId("down-text"), isDown ? `Disconnected. ${daemon.failure?.message ?? ""}` : "The socket was lost. The page reconnects by itself, and runs attach where they were.")
}

function drawRefusal(isRefused) {
	const told = daemon.hasKey ? `The daemon refuses this key or token (${daemon.failure?.status}).` : "This daemon wants a key or token."
	tell(byId("key-trouble"), isRefused && told)
	attribute(byId("key"), "aria-invalid", isRefused || null)
	if (isRefused) byId("key").focus()
}

byId("key-form").addEventListener("submit", (event) => {
	event.preventDefault()
	const field = byId("key")
	if (field.value.trim() === "") return field.focus()
	daemon.unlock(field.value)
	field.value = ""
})
byId("connect").addEventListener("click", () => daemon.connect())

async function learnTypes() {
	try {
		composer.use(await payloadSchema(daemon))
	} catch {
		composer.use(undefined) // then it is JSON
	}
}

// --- what the network does to sockets ---

byId("drop").addEventListener("click", drop)
byId("drop-for").addEventListener("click", () => daemon.tap.dropFor(AWAY))
byId("slow").addEventListener("click", () => {
	runs.isSlow = !runs.isSlow
	attribute(byId("slow"), "aria-pressed", runs.isSlow)
})

function drop() {
	if (!daemon.tap.drop()) announce("There is no socket to drop")
}

// --- what the daemon tells of itself ---

let known
let begun = Infinity

function heard(state) {
	setText(byId("version"), state.version ?? "")
	const told = [`up ${duration(state.uptime)}`]
	if (state.draining) told.push("draining: takes no new runs")
	if (state.store && state.store !== "ok") told.push(`store: ${state.store}`)
	setText(byId("daemon-state"), told.join(" · "))
	attribute(byId("daemon-state"), "data-trouble", Boolean(state.draining || (state.store && state.store !== "ok")))
	if (daemon.isDevelopment) heardOfReload(state)
	known = state
}

function heardOfReload(state) {
	const now = performance.now() / 1000 - state.uptime
	const hasRestarted = now > begun + LATER
	begun = hasRestarted ? now : Math.min(begun, now)
	const failure = state.import_error
	if (hasRestarted) {
		const told = `restarted, ${clock(Date.now() - state.uptime * 1000)}`
		tell(byId("reload"), told)
		announce(told)
	}
	show(byId("import-error"), Boolean(failure))
	if (failure) {
		const { file, line, message } = failure
		setText(byId("import-place"), [file, line].filter((part) => part != null).join(", line "))
		setText(byId("import-text"), message)
	} else if (hasRestarted || known?.import_error) {
		learnTypes()
	}
}

// --- keys ---

const goTo = (id) => () => {
	byId(id).focus()
	byId(id).scrollIntoView({ block: "nearest" })
}

bindKeys([
	{ key: "p", does: "Write a payload", action: () => composer.focus() },
	{ key: "r", does: "Go to the runs", action: goTo("runs") },
	{ key: "f", does: "Go to the frames", action: goTo("frames") },
	{ key: "i", does: "Go to the invocations", action: goTo("invocations") },
	{ key: "h", does: "Go to the health", action: goTo("health") },
	{ key: "x", does: "Stop the newest run", action: () => runs.stopNewest() },
	{ key: "d", does: "Drop my socket", action: drop },
])

drawConnection(daemon.state)
if (daemon.needsKey) byId("key").focus()
else daemon.connect()
