/**
 * A client of agentws whose runs survive the socket: it reconnects, attaches, and delivers every chunk
 * once and in order. One module without dependencies, for browsers, workers, Node and Deno.
 *
 * From the outside in: a `Client` has runs, and asks; its `Connection` keeps one `Link` (a socket) open.
 * A `Run` is what a user holds of an invocation; behind it a `Follower` decides what frames mean, and an
 * `Inbox` holds what was not read yet. What is decided without them stands first. `agentws.d.ts` tells
 * users what there is. Times are in seconds.
 */

const DEFAULTS = {
  headers: {},
  query: {},
  connectTimeout: 10,
  silence: 60,
  maxRetryDelay: 10,
  giveUpAfter: 300,
  maxQueue: 1024,
}

/** The longest first delay; each one after it may be twice as long. */
const FIRST_DELAY = 0.1

/** The milliseconds that a timer can be set to. */
const LONGEST_TIMER = 2 ** 31 - 1

/** How long closing waits for the server's own close. */
const CLOSING = 2

/** How long a socket that will be closed is used, at most, before another one is tried. */
const LEAVING = 1

/** A WebSocket's `readyState` before it is open. */
const CONNECTING = 0

/** The code with which a socket is closed for the size of a message. */
const TOO_LARGE = 1009

/** The answers to a handshake that another one like it would get again. */
const FINAL = new Set([400, 401, 403, 404, 426])

/** The refusals that say nothing of what was asked. */
const RETRYABLE = new Set(["store_unavailable", "shutting_down"])

/** The refusals that a repetition gets where the first time had its effect. */
const DONE_ALREADY = new Set(["already_finished", "input_not_expected"])

/** The frames that answer what was asked. */
const ANSWERS = new Set(["accepted", "result", "invocations", "error"])

/** The frames that are numbered. */
const ENTRIES = new Set(["stream_chunk", "input_required", "input_received"])

/** What identifies an invocation or a session. */
const IDENTIFIER = /^(?!\.+$)[\w.:-]{1,256}$/

/** Schemes of servers. */
const SCHEME = /^(ws|http)s?:$/

/** The end of a path that leads to a framed socket. */
const SOCKET_ROUTE = /\/invocations_ws(\/ws)?\/?$/

// --- errors ---

const ADVICE = new Map([
  ["already_exists", "Attach to that invocation, or invoke with another id."],
  ["already_finished", "Get its record for what came of it."],
  ["cancelled", "Invoke again if its work is still wanted."],
  ["input_not_expected", "Its question is closed; wait for the next one."],
  ["lost", "Invoke again if its work is still wanted; some of it may be done."],
  ["not_found", "It never was, belongs to another caller, or its retention is over; invoke anew."],
  ["payload_too_large", "Send less, or raise the server's websocket.max_message_size."],
  ["replay_gap", 'Attach with onGap: "skip" to go on from what is left, or get the record.'],
  ["session_busy", 'Attach to running_invocation_id, or invoke with ifSessionBusy: "interrupt".'],
  ["shutting_down", "Try again in a while, when another replica is there."],
  ["timeout", "Ask for less at a time, or raise the server's invocations.timeout."],
])

const AGAIN = "Try again in a while."

const ADVICE_BY_SOURCE = new Map([
  ["user", "Correct what was asked."],
  ["upstream", "The agent failed; its log says why."],
  ["platform", "The server's log says why."],
])

const ADVICE_404 = "Check the URL: the framed socket is at /invocations_ws/ws."

const CONNECTION_ADVICE = new Map([
  [401, "Give connect() a token or an apiKey that the server takes."],
  [403, "Use credentials that may do this, or have this origin allowed by the server."],
  [404, ADVICE_404],
])

const REACH = "Check the URL and that the server runs; more patience is connect()'s to give."

function adviceOn({ code, retryable, source }) {
  return ADVICE.get(code) ?? ((!retryable && ADVICE_BY_SOURCE.get(source)) || AGAIN)
}

export class InvocationFailed extends Error {
  constructor(error) {
    const advice = adviceOn(error)
    const { code, message, retryable, source } = error
    super(`${code}: ${`${message ?? ""}`.replace(/\.$/, "") || "no reason was given"}. ${advice}`)
    Object.assign(this, { name: new.target.name, code, retryable, source, error, advice })
  }
}

export class Cancelled extends InvocationFailed {
  get reason() {
    return this.error.reason
  }
}

export class Lost extends InvocationFailed {}

export class ReplayGap extends InvocationFailed {
  get firstAvailable() {
    return this.error.first_available
  }
}

export class ConnectionFailed extends Error {
  name = "ConnectionFailed"

  constructor(reason, { status, advice = CONNECTION_ADVICE.get(status) ?? REACH, cause } = {}) {
    super(`${reason}. ${advice}`, { cause })
    this.reason = reason
    this.status = status
    this.advice = advice
  }
}

export class Closed extends Error {
  name = "Closed"
}

const CLASSES = new Map([
  ["cancelled", Cancelled],
  ["lost", Lost],
  ["replay_gap", ReplayGap],
])

/** Return the exception for the error object of a frame. */
function failure(error) {
  return new (CLASSES.get(error.code) ?? InvocationFailed)(error)
}

/** Return the exception for what this side finds out by itself. */
function ownFailure(code, message, fields) {
  return failure({ code, message, retryable: false, source: "user", ...fields })
}

// --- what users give ---

/** Return an id, undefined for none. */
function checkedId(name, id) {
  if (id === undefined || id === null) return undefined
  if (typeof id === "string" && IDENTIFIER.test(id)) return id
  throw new TypeError(`${name} must be 1 to 256 characters of A-Z a-z 0-9 . _ : - and not dots only`)
}

/** Return the options of `connect`, with what is not given. */
function checkedOptions(given) {
  const fields = Object.entries(given).filter(([, value]) => value !== undefined && value !== null)
  // The server makes up a session for each socket; a client has one for all of its sockets.
  const defaults = { ...DEFAULTS, WebSocket: globalThis.WebSocket, sessionId: newId() }
  const options = { ...defaults, ...Object.fromEntries(fields) }
  checkedId("sessionId", options.sessionId)
  for (const name of ["connectTimeout", "silence", "giveUpAfter", "maxQueue"]) {
    const isEnough = typeof options[name] === "number" && options[name] > 0
    if (!isEnough) throw new RangeError(`${name} must be a number above 0`)
  }
  if (!(options.maxRetryDelay >= 0)) throw new RangeError("maxRetryDelay must be 0 or more")
  return options
}

// --- decisions ---

/**
 * Return the address of the socket, without credentials. One of HTTP that leads to no socket stands for
 * the server's; a relative one begins at `base`.
 */
function socketUrl(url, { sessionId, query }, base) {
  const address = URL.canParse(url, base) ? new URL(url, base) : {}
  if (!SCHEME.test(address.protocol) || address.port === "0") {
    throw new TypeError(`"${url}" is no URL of a server: ws, wss, http or https and a host`)
  }
  if (address.protocol.startsWith("http")) {
    address.protocol = address.protocol.replace("http", "ws")
    if (!SOCKET_ROUTE.test(address.pathname)) {
      address.pathname = address.pathname.replace(/\/?$/, "/invocations_ws/ws")
    }
  }
  address.hash = "" // which a WebSocket refuses
  for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value)
  address.searchParams.set("agent_session_id", sessionId)
  return address
}

/** Return the address of another route of the server that has the socket. */
function routeUrl(socket, route) {
  const root = socket.pathname.replace(SOCKET_ROUTE, "").replace(/\/$/, "")
  return new URL(root + route, socket.origin.replace("ws", "http"))
}

/** Return a delay: any up to a bound that doubles each time (full jitter). */
function retryDelay(attempt, longest, random = Math.random()) {
  return random * Math.min(longest, FIRST_DELAY * 2 ** attempt)
}

function isForCredentials(status) {
  return status === 401 || status === 403
}

/**
 * Return how long to wait after a refused handshake, Infinity where no other makes sense. A token that
 * was refused is asked for anew at once, if that can be done and was not (`canRenew`).
 */
function delayAfter({ status, retryAfter, isHopeless }, canRenew, backoff) {
  if (isForCredentials(status) && canRenew) return 0
  return isHopeless || FINAL.has(status) ? Infinity : (retryAfter ?? backoff)
}

/**
 * Say what follows the refusal of an "invoke", "attach", "cancel", "input", "get" or "list": "retry",
 * "done" or "raise". What is refused the first time is the user's to repeat.
 */
function verdict(code, kind, isRepeated) {
  if (isRepeated && RETRYABLE.has(code)) return "retry"
  const canBeDone = kind === "cancel" || kind === "input"
  return canBeDone && isRepeated && DONE_ALREADY.has(code) ? "done" : "raise"
}

/** Say what a link does that has heard nothing for so long: "wait", "ping", or be "lost". */
function onSilence(seconds, silence) {
  if (seconds >= silence) return "lost"
  return seconds >= silence / 2 ? "ping" : "wait"
}

/** Tell whether a frame ends its invocation; with an action, it is the answer to that. */
function isEnd({ type, action }) {
  if (type === "error") return action === undefined || action === "invoke"
  return type === "stream_end" || (type === "result" && action === undefined)
}

/** Return the status of what ended by an error, undefined where it may go on. */
function statusAfter(error) {
  if (error instanceof Lost) return "lost"
  if (error instanceof Cancelled) return "cancelled"
  return error instanceof InvocationFailed ? "failed" : undefined
}

/** Return what a numbered frame is to the reader; `answer` is what answers a question. */
function eventOf({ type, sequence_number: number, request_id: requestId, ...frame }, answer) {
  const { payload, schema, withdrawn = false } = frame
  if (type === "stream_chunk") return { type: "chunk", number, payload }
  if (type === "input_received") return { type: "answered", number, requestId, withdrawn }
  return { type: "question", number, requestId, payload, schema, answer }
}

/** Return the JSON of a message. Half a character, which is no Unicode, becomes U+FFFD. */
function encode(message) {
  const text = JSON.stringify(message)
  if (!text.includes("\\ud")) return text
  return text.replace(/(?<!\\)((?:\\\\)*)\\ud[89a-f][0-9a-f]{2}/g, "$1\\ufffd")
}

/** Return the object that a message is, undefined if it is none. */
function decode(data) {
  try {
    const value = JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data))
    return Object(value) === value && !Array.isArray(value) ? value : undefined
  } catch {
    return undefined
  }
}

/** Return the text of an invoke as it is repeated: its payload is what it was the first time. */
function orAttach(text) {
  return `${text.slice(0, -1)},"if_exists":"attach"}`
}

/** For tests only. */
export const decisions = { socketUrl, routeUrl, retryDelay, delayAfter, verdict, onSilence, encode }

/** Return a new id; `randomUUID` is there on pages of a secure origin only. */
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID()
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
}

function now() {
  return performance.now() / 1000
}

function ignore() {}

/** Do something in so many seconds, be they Infinity: a timer that is set too far goes off at once. */
function later(seconds, action) {
  return setTimeout(action, Math.min(seconds * 1000, LONGEST_TIMER))
}

// --- a run, from the inside out ---

/** What a run's reader has not read yet. */
class Inbox {
  /** Whether the reader has come to the end. */
  wasRead = false
  #events = []
  #readers = []
  #isEnded = false
  #error
  #onRead

  /** `onRead` is called with each event when it is read. */
  constructor(onRead) {
    this.#onRead = onRead
  }

  get size() {
    return this.#events.length
  }

  push(event) {
    if (!this.#readers.length) return this.#events.push(event)
    const item = this.#read(event, this.#readers[0].toItem)
    if (item !== undefined) this.#readers.shift().resolve(item)
  }

  /**
   * Return, in a promise, what `toItem` makes of the next event that it makes something of; `atEnd` at
   * the end, unless that is an error. Nothing is awaited in between: readers have to keep up.
   */
  next(toItem, atEnd) {
    while (this.#events.length) {
      const item = this.#read(this.#events.shift(), toItem)
      if (item !== undefined) return Promise.resolve(item)
    }
    return new Promise((resolve, reject) => {
      this.#readers.push({ toItem, atEnd, resolve, reject })
      if (this.#isEnded) this.end(this.#error)
    })
  }

  /** End it, by an error or without; what waits can still be read. */
  end(error) {
    this.#isEnded = true
    this.#error = error
    this.wasRead ||= this.#readers.length > 0
    for (const { atEnd, resolve, reject } of this.#readers.splice(0)) {
      if (error) reject(error)
      else resolve(atEnd)
    }
  }

  /** End it without what waits. */
  discard() {
    this.#events = []
    this.end()
  }

  #read(event, toItem) {
    this.#onRead(event)
    return toItem(event)
  }
}

/**
 * What is known of a run. It takes frames from whatever socket they come, in doubt twice, and makes of
 * them each event once and in order.
 */
class Follower {
  status = "pending"
  /** The number of the last entry that was taken, after which to attach. */
  received
  /** The number of the last entry that was read. */
  cursor
  /** Whether the server is known to have it. */
  isKnown = false
  isOver = false
  isDetached = false
  isBackground = false
  /** Whether something else was asked of it. */
  isAsked = false
  /** What a coroutine returned; of a stream, nothing. */
  value
  isStream = false
  /** The request by which it was invoked or attached to last. */
  opening
  #inbox = new Inbox((event) => this.#onRead(event))
  /** The highest number that came in, above `received` where entries were dropped. */
  #seen
  /** Whether entries are dropped until the reader is there again. */
  #isBehind = false
  /** Whether what the socket brought before it was attached to may still come. */
  #isCatchingUp
  /** Whether that may be the end, as an earlier run of that id was left on this socket. */
  #isUnsure
  #asked = new Set()
  #open = new Set()

  /**
   * `verbs` are the client's: attach(run), leave(run), cancel(run), send(run, payload, requestId) and
   * ended(run).
   */
  constructor(id, verbs, { after = 0, onGap, maxQueue, wasLeft }) {
    Object.assign(this, { id, verbs, onGap, maxQueue })
    this.received = this.cursor = this.#seen = after
    this.#isCatchingUp = this.#isUnsure = wasLeft
  }

  /** Whether the reader has come to the end. */
  get wasRead() {
    return this.#inbox.wasRead
  }

  /** See `Inbox.next`. */
  next(toItem, atEnd) {
    return this.#inbox.next(toItem, atEnd)
  }

  /** Whether it is to be attached to, and not to be invoked. */
  get isStarted() {
    return this.isKnown || this.opening.kind === "attach"
  }

  /** Whether what is asked of it need not wait: the server has it, or will not have it. */
  get mayBeAsked() {
    return this.isStarted || this.opening.isSettled
  }

  /** Whether the socket may follow it though an attachment was refused, from an earlier one. */
  get mayBeFollowed() {
    return this.#isCatchingUp
  }

  /** Note that the server has it. */
  accepted() {
    this.isKnown = true
    if (this.status === "pending") this.status = "running"
  }

  /** Note that it goes on on a new socket, which brings nothing else of it. */
  changeSocket() {
    this.#seen = this.received
    this.#isBehind = this.#isCatchingUp = this.#isUnsure = false
  }

  /** Tell the reader of a new connection; one that is far behind need not know. */
  reconnected(event) {
    if (!this.#isFull) this.#inbox.push(event)
  }

  /** Take a numbered frame; return false if it is nonsense, as when one before it is missing. */
  takeEntry(frame) {
    const number = frame.sequence_number
    if (!Number.isInteger(number)) return false
    if (this.isOver) return true
    this.#seen = Math.max(this.#seen, number)
    if (number === this.received + 1) return this.#takeNext(frame)
    const isExpected = number <= this.received || this.#isBehind || this.#isCatchingUp
    if (frame.type !== "input_required") return isExpected
    // Whoever attaches is told what is still asked, wherever that stands.
    if (number <= this.received || !isExpected) this.#tell(frame)
    return true
  }

  #takeNext(frame) {
    this.#isCatchingUp = this.#isUnsure = false
    this.#isBehind = this.#isFull
    if (this.#isBehind) return true
    this.received++
    this.#tell(frame)
    return true
  }

  /** Take a frame that is the end. */
  takeEnd(frame) {
    // Where entries were dropped, the attachment that brings them again brings the end, too.
    if ((this.#isBehind || this.#isCatchingUp) && this.received < this.#seen) return
    if (this.#isUnsure) {
      this.#isUnsure = false // for one such end can come, and a new attachment has its own
      this.#attach()
    } else if (frame.type === "error") {
      this.fail(failure(frame.error))
    } else {
      this.value = frame.payload
      this.isStream = frame.type === "stream_end"
      this.status = "completed"
      this.end()
    }
  }

  /** Take the news that entries are no longer held; return false if it is nonsense. */
  takeGap(error) {
    const firstAvailable = error.first_available
    if (!Number.isInteger(firstAvailable)) return false
    if (firstAvailable <= this.received + 1) return this.#isCatchingUp // then it is old news
    if (this.onGap === "skip") {
      this.received = firstAvailable - 1
      this.#inbox.push({ type: "gap", firstAvailable })
      this.#attach()
    } else {
      this.end(failure(error))
      this.verbs.leave(this) // for what was attached to before goes on
    }
    return true
  }

  fail(error) {
    if (!this.isOver) this.status = statusAfter(error) ?? this.status
    this.end(error)
  }

  end(error) {
    if (this.isOver) return
    this.isOver = true
    this.#isBehind = false
    this.#inbox.end(error)
    this.verbs.ended(this)
  }

  /** Let the reader have nothing more, and no error either. */
  detach() {
    this.isDetached = true
    this.#inbox.discard()
    this.end()
  }

  /** Detach, and tell the server, unless all was read. */
  leave() {
    if (this.wasRead) return
    const isFollowed = !this.isOver && this.isStarted
    this.detach()
    if (isFollowed) this.verbs.leave(this)
  }

  #onRead(event) {
    if (event.number > this.cursor) this.cursor = event.number
    if (event.type === "gap") this.cursor = event.firstAvailable - 1
    if (this.#isBehind && this.#inbox.size <= this.maxQueue / 2) this.#attach()
  }

  get #isFull() {
    return this.#inbox.size >= this.maxQueue
  }

  #attach() {
    this.#isBehind = false
    this.#isCatchingUp = true
    this.verbs.attach(this)
  }

  /** Tell the reader, once of each question. */
  #tell(frame) {
    const { type, request_id: requestId } = frame
    if (type === "stream_chunk") return this.#inbox.push(eventOf(frame))
    if (type === "input_received") this.#open.delete(requestId)
    else if (this.#asked.has(requestId)) return
    else this.#asked.add(requestId) && this.#open.add(requestId)
    this.status = this.#open.size ? "input_required" : "running"
    this.#inbox.push(eventOf(frame, (payload) => this.verbs.send(this, payload, requestId)))
  }
}

/** An invocation in the hands of a user. */
class Run {
  #follower
  #result

  constructor(follower) {
    this.#follower = follower
  }

  get id() {
    return this.#follower.id
  }

  get cursor() {
    return this.#follower.cursor
  }

  get status() {
    return this.#follower.status
  }

  cancel() {
    return this.#follower.verbs.cancel(this.#follower)
  }

  send(payload) {
    return this.#follower.verbs.send(this.#follower, payload)
  }

  detach() {
    this.#follower.leave()
  }

  then(onResult, onError) {
    this.#result ??= this.#read()
    return this.#result.then(onResult, onError)
  }

  catch(onError) {
    return this.then(undefined, onError)
  }

  finally(onEnd) {
    return this.then().finally(onEnd)
  }

  events() {
    return this.#iterate((event) => ({ value: event, done: false }))
  }

  [Symbol.asyncIterator]() {
    return this.#iterate(({ type, payload }) => {
      return type === "chunk" ? { value: payload, done: false } : undefined
    })
  }

  /** Read to the end and return the outcome. */
  async #read() {
    const follower = this.#follower
    const chunks = follower.wasRead ? undefined : []
    await follower.next(({ type, payload }) => {
      if (type === "chunk") chunks.push(payload)
    })
    if (follower.isDetached) throw new Closed("The run was detached; attach to its id for the rest")
    return follower.isStream ? chunks : follower.value
  }

  #iterate(toItem) {
    return {
      next: () => this.#follower.next(toItem, { value: undefined, done: true }),
      return: async (value) => {
        this.detach()
        return { value, done: true }
      },
      [Symbol.asyncIterator]() {
        return this
      },
    }
  }
}

// --- a socket, and the keeping of one ---

/** An open socket: reads and writes messages, and notices when the other side has gone silent. */
class Link {
  /** Whether the server has said that it will close it. */
  isLeaving = false
  /** Whether something came, and all of it made sense. */
  madeSense = false
  /** How long after its opening it still made sense. */
  goodFor = 0
  #socket
  #silence
  #user
  #openedAt = now()
  #heardAt = this.#openedAt
  #timer
  #closed

  /** `user` has `receive(link, frame)`, false for nonsense, and `lost(link, closeCode)`. */
  constructor(socket, silence, user) {
    this.#socket = socket
    this.#silence = silence
    this.#user = user
    socket.onmessage = ({ data }) => this.#hear(data)
    socket.onclose = ({ code }) => this.#lose(code)
    socket.onerror = null // a close follows
    this.#listen()
  }

  /** Send a text; on a socket that is being lost it goes nowhere, and is repeated on the next. */
  send(text) {
    this.#socket.send(text)
  }

  /** Close it and hear no more of it; the promise is fulfilled once it is closed, or soon after. */
  close() {
    clearTimeout(this.#timer)
    this.#socket.onmessage = null
    this.#closed ??= new Promise((resolve) => {
      const timer = later(CLOSING, resolve)
      this.#socket.onclose = () => resolve(clearTimeout(timer))
      this.#socket.close(1000)
    })
    return this.#closed
  }

  /** Take it for lost: it is, or it is silent, or talks nonsense. */
  #lose(code) {
    this.close()
    this.#user.lost(this, code)
  }

  #hear(data) {
    this.#heardAt = now()
    const frame = decode(data)
    if (frame?.type === "ping") this.send('{"action":"pong"}')
    if (this.madeSense) this.goodFor = this.#heardAt - this.#openedAt
    this.madeSense = frame !== undefined && this.#user.receive(this, frame) !== false
    if (!this.madeSense) this.#lose()
  }

  #listen() {
    const silence = now() - this.#heardAt
    const step = onSilence(silence, this.#silence)
    if (step === "lost") return this.#lose()
    if (step === "ping") this.send('{"action":"ping"}')
    const next = step === "ping" ? this.#silence : this.#silence / 2
    this.#timer = later(next - silence, () => this.#listen())
  }
}

/** Ask other routes why a handshake failed: return what `ConnectionFailed` takes, and `retryAfter`. */
async function probe(socket, headers, signal) {
  const failed = `The handshake with ${socket.origin}${socket.pathname} failed`
  try {
    const readiness = await fetch(routeUrl(socket, "/readiness"), { signal })
    const reason = `${failed}, and GET /readiness answers ${readiness.status}`
    if (readiness.status >= 500) return { reason, advice: AGAIN, retryAfter: retryAfterOf(readiness) }
    // Credentials are for the server that was named, and for no other that it may lead to.
    const asked = { headers, signal, redirect: "error" }
    const list = await fetch(routeUrl(socket, "/invocations?limit=1"), asked)
    const { ok, status } = list
    if (ok) return { reason: `${failed}, and yet HTTP takes what is given here`, advice: LOOK_AT }
    // Who has none of these routes may be a gateway that lets nothing but sockets through.
    if (status === 404 && !readiness.ok) return { reason, advice: ADVICE_404 }
    const told = `${failed}, and GET /invocations answers ${status}`
    return { reason: told, status, retryAfter: retryAfterOf(list) }
  } catch (cause) {
    const why = cause.cause?.message || cause.cause?.code || cause.message
    return { reason: `${failed}, and so does HTTP (${why})`, cause, advice: originAdvice() }
  }
}

const LOOK_AT =
  "Check that queryParameter is the server's auth.query_parameter, its auth.allowed_origins, and what " +
  "stands before it."

/** A page cannot tell a server that is away from one that refuses it. */
function originAdvice() {
  const origin = globalThis.location?.origin
  return origin && `Check that the server runs, that its auth.allowed_origins has ${origin}, and the URL.`
}

/** Tell why there is no socket: those of browsers send no headers. */
function notMade(headers, cause) {
  if (!headers.length) return { reason: cause.message, cause, isHopeless: true }
  const reason = `The WebSocket of this platform sends no headers (${headers.join(", ")})`
  return { reason, advice: NO_HEADERS, cause, isHopeless: true }
}

const NO_HEADERS = "Give connect() queryParameter, the server's auth.query_parameter, for the credential."

function retryAfterOf({ headers }) {
  const seconds = headers.get("retry-after") ?? ""
  return /^\d{1,9}$/.test(seconds) ? Number(seconds) : undefined
}

/** Keeps one link open for a user, until it is ended or has to give up. */
class Connection {
  state = "connecting"
  /** Why it is closed. */
  reason
  #url
  #options
  #user
  #link = null
  /** Whether `#open` is at work. */
  #isOpening = false
  /** Ends the pause between two handshakes, with whether the link in use was lost. */
  #wake = ignore
  #attempt = new AbortController()
  /** When to give up, unless there is a link then. */
  #deadline
  /** How many delays there were since a run was last heard of. */
  #delays = 0
  /** When the connection was lost, and how many handshakes have failed since. */
  #lostAt
  #handshakes = 0

  /**
   * `user` has `receive(frame)`, false for nonsense; `opened(loss)`, with what is to be told of the loss
   * before it, if there was one; `lost(closeCode)`; and `changed()`, which is about the state.
   */
  constructor(url, options, user) {
    this.#options = options
    this.#user = user
    this.#url = socketUrl(url, options, globalThis.location?.href)
    this.#deadline = now() + options.connectTimeout
    this.#open(0)
  }

  get isOpen() {
    return this.#link !== null
  }

  /** Send a text, if there is a link. */
  send(text) {
    this.#link?.send(text)
  }

  /** Note that a run was heard of: the connection is good. */
  isGood() {
    this.#delays = 0
  }

  /** Try nothing any more; wait until the link, if there is one, is closed. */
  async end(reason) {
    if (this.reason) return
    this.reason = reason
    const closed = this.#link?.close()
    this.#link = null
    this.#attempt.abort(reason)
    this.#wake(false)
    this.#change("closed")
    await closed
  }

  #change(state) {
    if (state === this.state) return
    this.state = state
    this.#user.changed()
  }

  /** Whether there is no link, or one that will be closed. */
  get #needsLink() {
    return !this.reason && (this.#link === null || this.#link.isLeaving)
  }

  /** How long it may take from now on to open a link. */
  get #patience() {
    return this.#link ? Infinity : this.#deadline - now()
  }

  /** Open a link, however often it takes. */
  async #open(delay) {
    this.#isOpening = true
    let canRenew = typeof this.#options.token === "function"
    let refusal = { reason: "The connection was lost" }
    while (this.#needsLink) {
      // With an endless delay, there is no use in trying again.
      const patience = delay === Infinity && this.#link === null ? 0 : this.#patience
      if (await this.#pause(Math.min(delay, patience))) {
        delay = this.#backoff()
      } else if (delay > patience) {
        return void this.end(new ConnectionFailed(refusal.reason, refusal))
      } else if (this.#needsLink) {
        refusal = (await this.#try()) ?? refusal
        this.#handshakes++
        if (this.#needsLink) delay = delayAfter(refusal, canRenew, this.#backoff())
        if (isForCredentials(refusal.status)) canRenew = false
      }
    }
    this.#isOpening = false
  }

  #backoff() {
    return retryDelay(this.#delays++, this.#options.maxRetryDelay)
  }

  /** Wait, and return whether that was cut short because the link in use was lost. */
  #pause(seconds) {
    return new Promise((resolve) => {
      const timer = seconds < Infinity && later(seconds, () => resolve(false))
      this.#wake = (wasLost) => {
        clearTimeout(timer)
        resolve(wasLost)
      }
    })
  }

  /** Try to open a link; return why there is none, undefined where more is known. */
  async #try() {
    const attempt = (this.#attempt = new AbortController())
    const { signal } = attempt
    const { connectTimeout } = this.#options
    const seconds = Math.min(connectTimeout, this.#patience)
    const isShort = this.#handshakes > 0 && seconds < connectTimeout / 2
    const late = isShort ? undefined : { reason: `No answer within ${Number(seconds.toPrecision(3))} s` }
    const aborted = new Promise((resolve) => signal.addEventListener("abort", () => resolve(late)))
    const timer = later(seconds, () => attempt.abort())
    try {
      return await Promise.race([this.#shakeHands(signal), aborted])
    } finally {
      clearTimeout(timer)
    }
  }

  async #shakeHands(signal) {
    let credentials
    try {
      credentials = await this.#credentials()
    } catch (cause) {
      return { reason: `The token function failed: ${cause}`, cause, advice: "Correct it, or try again." }
    }
    if (signal.aborted) return {}
    const { url, headers, httpHeaders } = credentials
    let socket
    try {
      const { WebSocket } = this.#options
      socket = Object.keys(headers).length ? new WebSocket(url, { headers }) : new WebSocket(url)
    } catch (cause) {
      return notMade(Object.keys(headers), cause)
    }
    socket.binaryType = "arraybuffer"
    signal.addEventListener("abort", () => {
      if (socket.readyState === CONNECTING) socket.close()
    })
    const isOpen = await new Promise((resolve) => {
      socket.onopen = () => resolve(this.reason ? socket.close() : this.#use(socket))
      socket.onerror = socket.onclose = () => resolve(false)
    })
    return isOpen ? {} : probe(this.#url, httpHeaders, signal)
  }

  /** Return the address and headers with credentials, which are asked for each time. */
  async #credentials() {
    const { token, apiKey, headers, queryParameter } = this.#options
    const secret = (typeof token === "function" ? await token() : token) ?? undefined
    const httpHeaders = { ...headers }
    if (apiKey !== undefined) httpHeaders["api-key"] = apiKey
    if (secret !== undefined) httpHeaders.authorization = `Bearer ${secret}`
    const url = new URL(this.#url)
    if (queryParameter === undefined) return { url, headers: httpHeaders, httpHeaders }
    const visible = secret ?? apiKey
    if (visible !== undefined) url.searchParams.set(queryParameter, visible)
    return { url, headers, httpHeaders }
  }

  /** Use a socket that has just opened in place of the link there was, if any. */
  #use(socket) {
    const earlier = this.#link
    this.#link = new Link(socket, this.#options.silence, {
      receive: (link, frame) => this.#receive(link, frame),
      lost: (link, code) => this.#lost(link, code),
    })
    const loss = { attempts: this.#handshakes + 1, seconds: now() - this.#lostAt }
    this.#user.opened(this.state === "reconnecting" ? loss : undefined)
    earlier?.close()
    this.#change("open")
    return true
  }

  #receive(link, frame) {
    if (frame.type !== "going_away") return this.#user.receive(frame)
    link.isLeaving = true // and stays in use until there is another
    // Not all that leave a server should come to the next one at once.
    const most = Math.min(LEAVING, frame.grace_seconds / 2 || 0)
    if (!this.#isOpening) this.#open(Math.random() * most)
    return true
  }

  #lost(link, code) {
    if (link !== this.#link) return
    this.#link = null
    // A link that ends in nonsense gives no new patience, and uses up none while it makes sense.
    const isNew = link.madeSense || this.#lostAt === undefined
    this.#deadline = isNew ? now() + this.#options.giveUpAfter : this.#deadline + link.goodFor
    this.#lostAt = now()
    this.#handshakes = 0
    this.#user.lost(code)
    this.#change("reconnecting")
    if (this.#isOpening) this.#wake(true)
    else this.#open(this.#backoff())
  }
}

// --- the client ---

/** The runs on a connection, and what else is asked over it. A run is a `Follower` here. */
class Client extends EventTarget {
  #options
  #connection
  /** What has not ended, by invocation id. */
  #runs = new Map()
  /** The ids of runs that were left on this socket before their end, which may still come. */
  #left = new Set()
  /** What was asked and not answered, by query id, in the order in which it was asked. */
  #requests = new Map()
  #queries = 0
  #verbs = {
    attach: (run) => this.#attach(run),
    leave: (run) => this.#leave(run),
    cancel: (run) => this.#cancel(run),
    send: (run, payload, requestId) => this.#send(run, payload, requestId),
    ended: (run) => this.#ended(run),
  }

  constructor(url, options) {
    super()
    this.#options = checkedOptions(options)
    this.#connection = new Connection(url, this.#options, {
      receive: (frame) => this.#receive(frame),
      opened: (loss) => this.#opened(loss),
      lost: (code) => code === TOO_LARGE && this.#refuseLongest(),
      changed: () => this.#changed(),
    })
  }

  get state() {
    return this.#connection.state
  }

  invoke(payload, { id: givenId, signal, background, onGap, ...options } = {}) {
    const id = checkedId("id", givenId) ?? newId()
    const invoke = this.#request("invoke", {
      action: "invoke",
      invocation_id: id,
      session_id: checkedId("sessionId", options.sessionId),
      background,
      on_disconnect: options.onDisconnect,
      if_session_busy: options.ifSessionBusy,
      payload,
    })
    const run = this.#follow(id, { onGap })
    this.#cancelWhenAborted(run, signal)
    run.isBackground = background
    this.#openBy(run, invoke)
    if (signal?.aborted) {
      const message = "The invocation was cancelled before it was sent"
      this.#settle(invoke).reject(ownFailure("cancelled", message, { reason: "client" }))
    } else this.#ask(invoke)
    return new Run(run)
  }

  attach(id, { after = 0, onGap } = {}) {
    checkedId("id", id ?? "")
    if (!Number.isInteger(after) || after < 0) throw new TypeError("after must be an integer, 0 or more")
    const run = this.#follow(id, { after, onGap })
    this.#attach(run)
    return new Run(run)
  }

  get(id) {
    return this.#query("get", { action: "get_invocation", invocation_id: id })
  }

  async *list({ sessionId, status } = {}) {
    const fields = { action: "list_invocations", session_id: sessionId, status, limit: 100 }
    let page = {}
    do {
      page = await this.#query("list", { ...fields, after: page.next })
      yield* page.invocations ?? []
    } while (page.next)
  }

  close() {
    return this.#connection.end(new Closed("The client was closed; connect anew and attach"))
  }

  // --- runs ---

  #follow(id, options) {
    const earlier = this.#runs.get(id)
    const wasLeft = this.#left.has(id) || earlier !== undefined
    const { maxQueue } = this.#options
    const run = new Follower(id, this.#verbs, { ...options, maxQueue, wasLeft })
    this.#runs.delete(id) // so that the new one comes last
    this.#runs.set(id, run)
    if (earlier) this.#replace(earlier)
    return run
  }

  #replace(run) {
    this.#settle(run.opening)
    run.detach()
    this.#transmitHeld(run)
  }

  #cancelWhenAborted(run, signal) {
    // Nothing is returned: Node would throw what a listener's promise rejects with.
    const cancel = () => void this.#cancel(run)
    signal?.addEventListener("abort", cancel)
    run.forgetSignal = () => signal?.removeEventListener("abort", cancel)
  }

  #ended(run) {
    run.forgetSignal?.()
    if (!run.isStarted) return // it is invoked first, and left then
    this.#forget(run)
    this.#settle(run.opening)
  }

  #forget(run) {
    if (this.#runs.get(run.id) === run) this.#runs.delete(run.id)
  }

  #cancel(run) {
    return this.#query("cancel", { action: "cancel_invocation", invocation_id: run.id }, run)
  }

  #send(run, payload, requestId) {
    const address = { invocation_id: run.id, request_id: requestId, input_id: newId() }
    const taken = this.#query("input", { action: "send_input", ...address, payload }, run).then(ignore)
    taken.catch(ignore) // nobody has to wait for it
    return taken
  }

  /** Have the server follow a run no longer, unless there is another of the same id. */
  #leave(run) {
    this.#forget(run)
    if (this.#runs.has(run.id)) return
    this.#left.add(run.id)
    this.#connection.send(encode({ action: "detach_invocation", invocation_id: run.id }))
  }

  #attach(run) {
    const fields = { invocation_id: run.id, starting_after: run.received }
    const attach = this.#request("attach", { action: "attach_invocation", ...fields })
    if (run.opening) attach.sent = run.opening.sent
    if (run.opening?.isSettled === false) attach.refusals = this.#settle(run.opening).refusals
    this.#openBy(run, attach)
    this.#ask(attach)
  }

  #openBy(run, request) {
    run.opening = request
    request.promise.then(
      () => this.#accepted(run),
      (error) => this.#refused(run, error),
    )
  }

  #accepted(run) {
    run.accepted()
    this.#transmitHeld(run)
    if (run.isBackground) run.end()
    else if (run.isDetached) this.#leave(run)
  }

  #refused(run, error) {
    if (!run.isKnown) run.fail(error)
    else if (error.code === "not_found") run.fail(new Lost(error.error))
    else run.end(error) // and may go on
    if (run.mayBeFollowed) this.#leave(run)
    else this.#forget(run)
    for (const request of this.#heldFor(run)) this.#settle(request).reject(error)
  }

  #transmitHeld(run) {
    for (const request of this.#heldFor(run)) this.#transmit(request)
  }

  /** Return what waits for the server to have a run. */
  #heldFor(run) {
    if (!run.isAsked) return []
    return [...this.#requests.values()].filter((request) => request.run === run && !request.sent)
  }

  // --- what is asked, until it is answered ---

  /** Ask something; of a run, once the server has that. */
  #query(kind, fields, run) {
    const request = this.#request(kind, fields, run)
    if (run) run.isAsked = true
    this.#ask(request)
    return request.promise
  }

  #request(kind, fields, run) {
    const id = `q${++this.#queries}`
    // Ids come first: the server tells them of a message whose payload is no JSON to it.
    const text = encode({ action: fields.action, query_id: id, ...fields })
    const refusals = { count: 0, since: 0 }
    const request = { id, kind, text, run, sent: 0, refusals, isSettled: false }
    request.promise = new Promise((resolve, reject) => Object.assign(request, { resolve, reject }))
    request.promise.catch(ignore) // nobody has to wait for it
    return request
  }

  #ask(request) {
    const { reason } = this.#connection
    if (reason) return request.reject(reason)
    this.#requests.set(request.id, request)
    this.#transmit(request)
  }

  #transmit(request) {
    if (!this.#connection.isOpen || request.run?.mayBeAsked === false) return
    const isAgain = request.sent++ > 0 && request.kind === "invoke"
    this.#connection.send(isAgain ? orAttach(request.text) : request.text)
  }

  #settle(request) {
    request.isSettled = true
    this.#requests.delete(request.id)
    return request
  }

  #answer(request, frame) {
    if (frame.type === "error") this.#refuse(request, failure(frame.error))
    else this.#settle(request).resolve(frame.type === "result" ? frame.payload : frame)
  }

  #refuse(request, error) {
    const step = verdict(error.code, request.kind, request.sent > 1)
    const again = () => request.isSettled || this.#transmit(request)
    if (step === "retry" && this.#again(request.refusals, again)) return
    this.#settle(request)
    if (step === "done") request.resolve()
    else request.reject(error)
  }

  /** Do what was refused again after a while and return true, unless that takes too long. */
  #again(refusals, action) {
    const { maxRetryDelay, giveUpAfter } = this.#options
    if (refusals.count === 0) refusals.since = now()
    const delay = retryDelay(refusals.count++, maxRetryDelay)
    if (now() + delay > refusals.since + giveUpAfter) return false
    later(delay, action).unref?.() // no reason for Node to stay
    return true
  }

  /** Refuse the longest message of those unanswered: its size is why the socket was closed. */
  #refuseLongest() {
    const sent = [...this.#requests.values()].filter((request) => request.sent > 0)
    const [longest] = sent.sort((a, b) => b.text.length - a.text.length)
    const error = ownFailure("payload_too_large", "The message is longer than the server takes")
    if (longest) this.#refuse(longest, error)
  }

  // --- what comes in ---

  /** Take a frame; return false if it is nonsense. */
  #receive(frame) {
    if (frame.type === "error" && Object(frame.error) !== frame.error) return false
    const run = this.#runs.get(frame.invocation_id)
    const isGap = run && frame.error?.first_available !== undefined
    const request = isGap ? undefined : this.#requests.get(frame.query_id)
    if (request && ANSWERS.has(frame.type)) return this.#answer(request, frame)
    if (!run) return this.#passOver(frame)
    if (isGap) return run.takeGap(frame.error) && this.#heardOf(run)
    if (ENTRIES.has(frame.type)) return run.takeEntry(frame) && this.#heardOf(run)
    if (isEnd(frame)) this.#heardOf(run) && run.takeEnd(frame)
    return true
  }

  /** Take a frame that is nobody's. What an error without ids is about would wait for ever. */
  #passOver(frame) {
    if (isEnd(frame)) this.#left.delete(frame.invocation_id)
    return frame.type !== "error" || (frame.invocation_id ?? frame.query_id) !== undefined
  }

  /** Note that a frame of a run has come: the connection is good, and the server has the run. */
  #heardOf(run) {
    this.#connection.isGood()
    run.accepted()
    if (!run.opening.isSettled) this.#settle(run.opening).resolve()
    return true
  }

  /** Have a new link serve all that goes on; runs come first. */
  #opened(loss) {
    this.#left.clear()
    for (const run of this.#runs.values()) {
      if (loss && run.opening.sent) run.reconnected({ type: "reconnected", ...loss })
      run.changeSocket()
      if (run.isStarted) this.#attach(run)
      else this.#transmit(run.opening)
    }
    for (const request of this.#requests.values()) {
      if (request.kind !== "invoke" && request.kind !== "attach") this.#transmit(request)
    }
  }

  #changed() {
    const { state, reason: error } = this.#connection
    if (error) {
      for (const run of [...this.#runs.values()]) run.fail(error)
      for (const request of [...this.#requests.values()]) this.#settle(request).reject(error)
    }
    this.dispatchEvent(new CustomEvent("state", { detail: { state, error } }))
  }
}

export function connect(url, options = {}) {
  return new Client(url, options)
}
