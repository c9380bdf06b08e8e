/** What payload the agent takes. The socket's description is asked first: browsers complain of a 404. */

export async function payloadSchema(daemon) {
	const described = await daemon.fetch("invocations_ws/docs/asyncapi.json")
	const schemas = described.components?.schemas ?? {}
	const payload = schemas.Invoke?.properties?.payload
	if (payload === undefined) return undefined // the agent's own description, or one from the future
	if (!says(resolve(payload, described))) return undefined
	const document = await daemon.fetch("invocations/docs/openapi.json")
	const body = resolve(document.paths?.["/invocations"]?.post?.requestBody, document)
	const schema = body?.content?.["application/json"]?.schema
	return says(resolve(schema, document)) ? inlined(schema, document) : undefined
}

function says(schema) {
	if (schema === null || typeof schema !== "object") return false
	return ["type", "properties", "anyOf", "oneOf", "allOf", "enum", "const"].some((key) => key in schema)
}

function resolve(schema, document) {
	let value = schema
	for (let depth = 0; depth < 20 && typeof value?.$ref === "string"; depth++) {
		if (!value.$ref.startsWith("#/")) return undefined
		const steps = value.$ref.slice(2).split("/").map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"))
		value = steps.reduce((within, step) => within?.[step], document)
	}
	return value
}

/** Return a schema that needs no document; types that hold themselves end as "anything". */
export function inlined(schema, document = schema, depth = 0) {
	if (depth > 12) return {}
	if (Array.isArray(schema)) return schema.map((item) => inlined(item, document, depth))
	if (schema === null || typeof schema !== "object") return schema
	if (typeof schema.$ref === "string") {
		const { $ref, ...beside } = schema
		return { ...inlined(resolve({ $ref }, document) ?? {}, document, depth + 1), ...beside }
	}
	const entries = Object.entries(schema).filter(([key]) => key !== "$defs" && key !== "definitions")
	return Object.fromEntries(entries.map(([key, value]) => [key, inlined(value, document, depth + 1)]))
}
