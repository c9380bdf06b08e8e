/**
 * A client of agentws whose runs survive the socket: it reconnects, attaches, and delivers every chunk
 * once and in order.
 *
 * Times are in seconds. Records and payloads are as they are on the wire, events are in camelCase.
 */

/** A value that JSON can hold. Payloads are typed by who knows them, so that this is `any`. */
export type Json = any

/**
 * Connect to a server and keep the connection, until it is closed or given up. This does not wait:
 * runs that need the connection fail with `ConnectionFailed`.
 *
 * @param url Where the framed socket is. `http://host` stands for its `/invocations_ws/ws`; in a page,
 *   a relative address begins at the page's.
 * @throws TypeError if the URL or the session's id is none.
 * @throws RangeError if a duration or `maxQueue` leaves no time or room at all.
 */
export function connect(url: string | URL, options?: ConnectOptions): Client

export interface ConnectOptions {
  /** Headers of the handshake, for platforms whose WebSocket takes them: Node does, browsers do not. */
  headers?: Record<string, string>
  /** The API key: a header, or under `queryParameter` where there is no `token`. */
  apiKey?: string
  /** The token, or what returns one, which is asked at every connect. */
  token?: string | (() => string | Promise<string>)
  /**
   * The name of the query parameter in which the token goes, since browsers can put it nowhere else: the
   * server's `auth.query_parameter`.
   */
  queryParameter?: string
  /** The session of all that names none. By default the client makes one up. */
  sessionId?: string
  /** Further parameters of the query. */
  query?: Record<string, string>
  /** How long the first connection may take, retries included, and any one handshake. Default: 10. */
  connectTimeout?: number
  /** After how long without a message the socket is taken for lost. Default: 60. */
  silence?: number
  /** The longest delay between two attempts, unless the server asks for more. Default: 10. */
  maxRetryDelay?: number
  /** How long a lost connection is tried again before everything fails. Default: 300. */
  giveUpAfter?: number
  /**
   * How many chunks of a run wait for its reader. What comes beyond is dropped and asked for again once
   * half of them are read. Default: 1024.
   */
  maxQueue?: number
  /** What sockets are made with: for tools that want to see frames, or to cut. Default: the platform's. */
  WebSocket?: new (url: string | URL, options?: any) => WebSocketLike
}

/** What the client needs of a WebSocket. */
export interface WebSocketLike {
  binaryType: string
  readonly readyState: number
  onopen: ((event: any) => unknown) | null
  onmessage: ((event: any) => unknown) | null
  onerror: ((event: any) => unknown) | null
  onclose: ((event: any) => unknown) | null
  send(data: string): void
  close(code?: number): void
}

/** "closed" is final: it was closed, or the connection was given up. */
export type ClientState = "connecting" | "open" | "reconnecting" | "closed"

export interface StateEvent extends CustomEvent<{ state: ClientState; error?: ConnectionFailed | Closed }> {
  type: "state"
}

/** One connection, and the runs on it. Dispatches a `StateEvent` "state" whenever the state changes. */
export interface Client extends EventTarget {
  readonly state: ClientState

  /**
   * Invoke the agent, as soon as there is a connection. If the connection is lost before the server has
   * acknowledged it, it is sent again so that it runs once.
   *
   * @param payload Any JSON; `undefined` leaves it to the server, which takes `{}`.
   * @throws TypeError if the payload is no JSON, or an id is none.
   */
  invoke<Result = Json, Chunk = Json>(payload?: Json, options?: InvokeOptions): Run<Result, Chunk>

  /**
   * Follow an invocation that was started before, here or elsewhere.
   *
   * @throws TypeError if the id is none, or `after` no integer.
   */
  attach<Result = Json, Chunk = Json>(id: string, options?: AttachOptions): Run<Result, Chunk>

  /**
   * Return the record of an invocation, or what the agent's own handler says of it.
   *
   * @throws InvocationFailed, ConnectionFailed, Closed
   */
  get<Answer = InvocationRecord>(id: string): Promise<Answer>

  /**
   * List one's own invocations, the newest first; pages are fetched as they are needed.
   *
   * @throws InvocationFailed, ConnectionFailed, Closed
   */
  list(filter?: { sessionId?: string; status?: InvocationStatus }): AsyncGenerator<InvocationRecord, void>

  /** Close the connection. Invocations are left to their `on_disconnect`; runs fail with `Closed`. */
  close(): Promise<void>

  addEventListener(
    type: "state",
    listener: ((event: StateEvent) => unknown) | { handleEvent(event: StateEvent): unknown } | null,
    options?: boolean | AddEventListenerOptions,
  ): void
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void
  removeEventListener(
    type: "state",
    listener: ((event: StateEvent) => unknown) | { handleEvent(event: StateEvent): unknown } | null,
    options?: boolean | EventListenerOptions,
  ): void
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions,
  ): void
}

export interface FollowOptions {
  /** What happens when chunks are no longer held: end by `ReplayGap`, the default, or go on behind. */
  onGap?: "raise" | "skip"
}

export interface InvokeOptions extends FollowOptions {
  /** The invocation's id. By default one is made up. */
  id?: string
  sessionId?: string
  /** Whether it is only to be started; then awaiting the run waits until it was accepted. */
  background?: boolean
  /** What becomes of it when nobody listens any more. Default: the server's setting. */
  onDisconnect?: "continue" | "cancel"
  /** What happens if the session has a running invocation. Default: the server's setting. */
  ifSessionBusy?: "parallel" | "reject" | "interrupt"
  /** Cancels the invocation when it is aborted. */
  signal?: AbortSignal
}

export interface AttachOptions extends FollowOptions {
  /** The number after which to begin: an earlier run's `cursor`. Default: 0, the beginning. */
  after?: number
}

/**
 * An invocation. It is read once: iterating it, its `events()` and awaiting it are three ways of the same
 * reading. Leaving a loop detaches; nothing but `cancel()`, or the signal, cancels.
 *
 * Awaiting it returns what a coroutine returned, or the list of a stream's chunks that were not read
 * before, `undefined` if it was read to its end. It fails with `InvocationFailed` or a class below it, `ConnectionFailed` or `Closed`,
 * and so does iterating it. Nobody has to await it.
 */
export interface Run<Result = Json, Chunk = Json> extends PromiseLike<Result>, AsyncIterable<Chunk> {
  readonly id: string
  /** The number of the last chunk, question or answer that was read; to attach after it loses nothing. */
  readonly cursor: number
  readonly status: RunStatus

  /** Iterate over the chunks. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Chunk>
  /** Iterate over all that happens. */
  events(): AsyncIterableIterator<RunEvent<Chunk>>

  /**
   * Cancel the invocation; return the server's answer, `undefined` if it had been cancelled already.
   *
   * @throws InvocationFailed (`already_finished`, `not_found`), ConnectionFailed, Closed
   */
  cancel(): Promise<Json>
  /**
   * Say something to the agent, which hears it once.
   *
   * @throws InvocationFailed (`already_finished`, `too_many_inputs`), ConnectionFailed, Closed
   */
  send(payload?: Json): Promise<void>
  /** End the reading: loops end quietly, awaiting fails with `Closed`, and the invocation goes on. */
  detach(): void

  catch<Other = never>(onError?: ((error: any) => Other | PromiseLike<Other>) | null): Promise<Result | Other>
  finally(onEnd?: (() => void) | null): Promise<Result>
}

/** "pending" until the server's first answer, then as in its record. */
export type RunStatus = "pending" | InvocationStatus

export type RunEvent<Chunk = Json> =
  | ChunkEvent<Chunk>
  | QuestionEvent
  | AnsweredEvent
  | GapEvent
  | ReconnectedEvent

export interface ChunkEvent<Chunk = Json> {
  type: "chunk"
  number: number
  payload: Chunk
}

/** The agent asks, and waits. */
export interface QuestionEvent {
  type: "question"
  number: number
  requestId: string
  payload: Json
  /** A JSON Schema of the answer, where the agent gave one. */
  schema?: Json
  /**
   * Answer it.
   *
   * @throws InvocationFailed (`input_not_expected`, `invalid_request`), ConnectionFailed, Closed
   */
  answer(payload?: Json): Promise<void>
}

/** A question is closed: somebody has answered it, or the agent has `withdrawn` it. */
export interface AnsweredEvent {
  type: "answered"
  number: number
  requestId: string
  withdrawn: boolean
}

/** Chunks before `firstAvailable` are no longer held; only told with `onGap: "skip"`. */
export interface GapEvent {
  type: "gap"
  firstAvailable: number
}

/** The connection was lost, and is there again, after so many attempts and seconds. */
export interface ReconnectedEvent {
  type: "reconnected"
  attempts: number
  seconds: number
}

export type InvocationStatus =
  | "running"
  | "input_required"
  | "completed"
  | "failed"
  | "cancelled"
  | "lost"

/** What the server knows of an invocation. Times are in RFC 3339, UTC. */
export interface InvocationRecord {
  invocation_id: string
  session_id: string
  status: InvocationStatus
  created_at: string
  finished_at?: string
  result?: Json
  error?: { code: string; message: string; reason?: CancelReason; superseded_by?: string }
  awaiting?: { request_id: string; sequence_number: number; payload: Json; schema?: Json }[]
  progress?: Json
  stream?: { first_available: number; last_sequence_number: number }
}

export type CancelReason = "client" | "deserted" | "superseded"

/** The error object of a frame. */
export interface ErrorObject {
  code: string
  message: string
  retryable: boolean
  source: ErrorSource
  first_available?: number
  running_invocation_id?: string
  reason?: CancelReason
  superseded_by?: string
  [field: string]: Json
}

/** Whose fault it is: the caller's, the handler's, or the daemon's. */
export type ErrorSource = "user" | "upstream" | "platform"

/**
 * An invocation failed, or something asked was refused. `message` has the code, what the server says, and
 * the advice.
 */
export class InvocationFailed extends Error {
  constructor(error: ErrorObject)
  /** What to do about it, in a sentence. */
  readonly advice: string
  readonly code: string
  readonly retryable: boolean
  readonly source: ErrorSource
  /** The whole error object. */
  readonly error: ErrorObject
}

/** The invocation was cancelled. */
export class Cancelled extends InvocationFailed {
  readonly reason: CancelReason | undefined
}

/** The server has lost the invocation. */
export class Lost extends InvocationFailed {}

/** Chunks that were asked for are no longer held. */
export class ReplayGap extends InvocationFailed {
  /** The number of the first chunk that is held. */
  readonly firstAvailable: number
}

/** There is no connection, and none is tried for any more. */
export class ConnectionFailed extends Error {
  constructor(reason: string, more?: { status?: number; advice?: string; cause?: unknown })
  /** Why; `message` has the advice, too. */
  readonly reason: string
  /** What the handshake was answered with, where that is known. */
  readonly status: number | undefined
  /** What to do about it, in a sentence. */
  readonly advice: string
}

/** The client was closed, or the run left, before there was an outcome. */
export class Closed extends Error {
  constructor(reason?: string)
}
