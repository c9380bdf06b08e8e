/** What users write, which the compiler has to take, or to refuse. */
import {
  Cancelled,
  Closed,
  ConnectionFailed,
  InvocationFailed,
  Lost,
  ReplayGap,
  connect,
  type Client,
  type ClientState,
  type InvocationRecord,
  type Run,
} from "../agentws.js"

const client: Client = connect("https://host", {
  token: async () => "secret",
  queryParameter: "access_token",
  sessionId: "s1",
  maxQueue: 64,
  WebSocket: class extends WebSocket {},
})

client.addEventListener("state", ({ detail }) => {
  const state: ClientState = detail.state
  const status: number | undefined =
    detail.error instanceof ConnectionFailed ? detail.error.status : undefined
  console.log(state, status)
})

interface Answer {
  text: string
}

export async function use(): Promise<void> {
  const answer: Answer = await client.invoke<Answer>({ message: "hi" })
  console.log(answer.text, await client.invoke({ message: "hi" }, { background: true }))

  const { signal } = new AbortController()
  const run: Run<Answer[], Answer> = client.invoke<Answer[], Answer>({}, { signal, onGap: "skip" })
  for await (const chunk of run) console.log(chunk.text.length)
  const chunks: Answer[] = await run
  console.log(chunks, run.cursor.toFixed(), run.status === "input_required")

  for await (const event of client.attach("r", { after: run.cursor }).events()) {
    switch (event.type) {
      case "chunk":
        console.log(event.number, event.payload)
        break
      case "question":
        await event.answer({ approve: true })
        console.log(event.requestId, event.schema)
        break
      case "answered":
        console.log(event.withdrawn)
        break
      case "gap":
        console.log(event.firstAvailable)
        break
      case "reconnected":
        console.log(event.attempts, event.seconds)
        break
      default: {
        const none: never = event
        console.log(none)
      }
    }
  }

  const record: InvocationRecord = await client.get(run.id)
  console.log(record.stream?.first_available)
  for await (const each of client.list({ sessionId: "s", status: "running" })) console.log(each.status)
  const all: [Answer, Answer] = await Promise.all([
    client.invoke<Answer>(1),
    client.invoke<Answer>(2).catch(() => ({ text: "" })),
  ])
  console.log(all)
  run.detach()
  await client.close()
}

export function tell(error: unknown): string {
  if (error instanceof Cancelled) return String(error.reason)
  if (error instanceof ReplayGap) return error.firstAvailable.toFixed()
  if (error instanceof Lost || error instanceof Closed) return error.message
  return error instanceof InvocationFailed ? `${error.code} ${error.error.superseded_by}` : ""
}

// @ts-expect-error: there is no such option
connect("ws://host", { retries: 3 })
// @ts-expect-error: nor such a policy
client.invoke(1, { ifSessionBusy: "wait" })
// @ts-expect-error: the cursor is the client's to move
client.attach("r").cursor = 3
