/** A run as one would start it elsewhere. A key is never part of it, but a variable of the environment. */

import { pretty } from "./format.js"

const KEY = "AGENTWS_API_KEY"

export function asCommand({ payload, options, url, hasKey }) {
	const words = ["agentws invoke", quoted(base(url)), quoted(JSON.stringify(payload))]
	if (options.sessionId) words.push(`--session ${quoted(options.sessionId)}`)
	if (options.background) words.push("--background")
	if (hasKey) words.push(`--api-key "$${KEY}"`)
	return words.join(" ")
}

export function asCurl({ payload, options, url, hasKey }) {
	const query = options.sessionId ? `?agent_session_id=${encodeURIComponent(options.sessionId)}` : ""
	const headers = [
		"content-type: application/json",
		options.background && "prefer: respond-async",
		options.onDisconnect && `x-agent-on-disconnect: ${options.onDisconnect}`,
		options.ifSessionBusy && `x-agent-if-session-busy: ${options.ifSessionBusy}`,
	].filter(Boolean)
	const lines = [
		`curl -N ${quoted(`${base(url)}/invocations${query}`)}`,
		...headers.map((header) => `-H ${quoted(header)}`),
		...(hasKey ? [`-H "authorization: Bearer $${KEY}"`] : []),
		`-d ${quoted(JSON.stringify(payload))}`,
	]
	return lines.join(" \\\n  ")
}

export function asPython({ payload, options, url, hasKey }) {
	const given = [
		options.sessionId && `session_id=${python(options.sessionId)}`,
		options.background && "background=True",
		options.onDisconnect && `on_disconnect=${python(options.onDisconnect)}`,
		options.ifSessionBusy && `if_session_busy=${python(options.ifSessionBusy)}`,
	].filter(Boolean)
	const key = hasKey ? `, api_key=os.environ["${KEY}"]` : ""
	const invoke = `client.invoke(${[python(payload), ...given].join(", ")})`
	const reading = options.background
		? ["await run  # it is accepted", "print(run.id)"]
		: ["async for chunk in run:", "    print(chunk)", "if (result := await run) is not None:", "    print(result)"]
	return [
		"import asyncio",
		...(hasKey ? ["import os"] : []),
		"",
		"from agentws.client import connect",
		"",
		"",
		"async def main():",
		`    async with connect(${python(base(url))}${key}) as client:`,
		...[`run = ${invoke}`, ...reading].map((line) => `        ${line}`),
		"",
		"",
		"asyncio.run(main())",
		"",
	].join("\n")
}

export function asJavaScript({ payload, options, url, hasKey }) {
	const given = Object.entries(options).filter(([, value]) => value !== undefined)
	const credentials = hasKey ? `, { apiKey: process.env.${KEY} }` : ""
	const invoke = `client.invoke(${[pretty(payload), ...(given.length ? [pretty(Object.fromEntries(given))] : [])].join(", ")})`
	const reading = options.background
		? ["await run // it is accepted", "console.log(run.id)"]
		: ["for await (const chunk of run) console.log(chunk)", "const result = await run", "if (result !== undefined) console.log(result)"]
	return [
		'import { connect } from "agentws"',
		"",
		`const client = connect(${JSON.stringify(base(url))}${credentials})`,
		`const run = ${invoke}`,
		...reading,
		"await client.close()",
		"",
	].join("\n")
}

function base(url) {
	return url.href.replace(/\/$/, "")
}

function quoted(text) {
	return `'${text.replaceAll("'", "'\\''")}'`
}

function python(value) {
	if (value === null || value === undefined) return "None"
	if (value === true) return "True"
	if (value === false) return "False"
	if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`
	if (typeof value === "object") return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${python(item)}`).join(", ")}}`
	return JSON.stringify(value)
}
