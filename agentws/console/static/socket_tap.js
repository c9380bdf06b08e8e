/** WebSockets for the client, of which the page sees every frame, and which it cuts. */

const CONNECTING = 0
const CLOSED = 3

/** What the server finds in its log. */
const CUT = { code: 4000, reason: "dropped by the console" }

export class SocketTap {
	WebSocket
	#onFrame
	#sockets = new Set()
	#blockedUntil = 0

	constructor(onFrame) {
		this.#onFrame = onFrame
		const tap = this
		this.WebSocket = class extends TappedSocket {
			constructor(url) {
				super(url, tap)
			}
		}
	}

	get isBlocked() {
		return performance.now() < this.#blockedUntil
	}

	drop() {
		const sockets = [...this.#sockets]
		for (const socket of sockets) socket.cut()
		return sockets.length > 0
	}

	dropFor(seconds) {
		this.#blockedUntil = performance.now() + seconds * 1000
		this.drop()
	}

	saw(direction, data) {
		this.#onFrame(direction, data)
	}

	opened(socket) {
		this.#sockets.add(socket)
	}

	closed(socket) {
		this.#sockets.delete(socket)
	}
}

/** What the client needs of a WebSocket, around one of the platform's. */
class TappedSocket {
	onopen = null
	onmessage = null
	onerror = null
	onclose = null
	binaryType = "arraybuffer"
	#real
	#tap
	#isCut = false

	constructor(url, tap) {
		this.#tap = tap
		if (tap.isBlocked) {
			// It fails as one does that finds no network: later, and without saying why.
			setTimeout(() => this.#lose())
			return
		}
		const real = (this.#real = new WebSocket(url))
		real.binaryType = "arraybuffer"
		real.onopen = (event) => {
			tap.opened(this)
			this.onopen?.(event)
		}
		real.onmessage = (event) => {
			tap.saw("in", event.data)
			this.onmessage?.(event)
		}
		real.onerror = (event) => this.onerror?.(event)
		real.onclose = (event) => {
			tap.closed(this)
			this.onclose?.(event)
		}
	}

	get readyState() {
		if (this.#isCut) return CLOSED
		return this.#real?.readyState ?? CONNECTING
	}

	send(data) {
		if (this.#isCut) return
		this.#tap.saw("out", data)
		this.#real.send(data)
	}

	close(code, reason) {
		if (!this.#isCut) this.#real?.close(code, reason)
	}

	/** Be lost, at once and with all that is on its way, as when the network goes. */
	cut() {
		const real = this.#real
		real.onmessage = real.onerror = real.onclose = null
		real.close(CUT.code, CUT.reason)
		this.#tap.closed(this)
		this.#lose()
	}

	#lose() {
		if (this.#isCut) return
		this.#isCut = true
		this.onerror?.(new Event("error"))
		this.onclose?.(new CloseEvent("close", { code: 1006 }))
	}
}
