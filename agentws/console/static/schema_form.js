/** A form from a JSON Schema. What no field can hold is JSON. Whether a value fits, the server says. */

import { h } from "./dom.js"
import { pretty } from "./format.js"
import { parseJson } from "./json_text.js"

/** How deep objects stand in each other before they are JSON. */
const DEEPEST = 3

/** A longer text gets several lines, and so do those named like prose. */
const LONG = 80
const PROSE = /text|message|prompt|question|content|description|note/i

let fields = 0

/** What is left out, as its field is empty and need not be there. */
const ABSENT = Symbol("absent")

/** A field holds what is no value: `message` says why, `field` has the focus then. */
export class FieldError extends Error {
	constructor(message, field) {
		super(message)
		this.field = field
	}
}

/** Read a form: its `value`, or the `error` to be told and the `field` it is of. */
export function readForm(form) {
	try {
		return { value: form.read() }
	} catch (error) {
		if (!(error instanceof FieldError)) throw error
		return { error: error.message, field: error.field }
	}
}

/**
 * Return the form for a schema without references: `element`; `read()`, which may throw FieldError; and
 * `write(value)`, which returns whether the form can hold it.
 */
export function schemaForm(schema) {
	const part = partOf(schema, { name: schema.title ?? "Answer", required: true, depth: 0 })
	part.write(undefined)
	return {
		element: part.element,
		read: () => {
			const value = part.read()
			return value === ABSENT ? null : value
		},
		write: part.write,
	}
}

/** Take apart what is "this or null", and unions of one. */
function simplified(schema) {
	if (schema === null || typeof schema !== "object") return {}
	const { allOf, anyOf, oneOf, type, ...rest } = schema
	if (allOf?.length === 1) return simplified({ ...allOf[0], ...rest })
	const union = anyOf ?? oneOf ?? (Array.isArray(type) ? type.map((each) => ({ type: each })) : undefined)
	if (union === undefined) return schema
	const some = union.filter((option) => option?.type !== "null")
	const nullable = some.length < union.length
	if (some.length === 1) return { ...simplified(some[0]), ...rest, nullable }
	return some.every((option) => "const" in option) ? { ...rest, nullable, enum: some.map((option) => option.const) } : rest
}

function partOf(given, place) {
	const schema = simplified(given)
	if ("const" in schema) return constant(schema.const)
	if (Array.isArray(schema.enum)) return choice(schema, place)
	const isObject = Object.keys(schema.properties ?? {}).length > 0
	if (isObject && place.depth < DEEPEST) return object(schema, place)
	if (schema.type === "boolean" && !schema.nullable) return checkbox(schema, place)
	if (schema.type === "integer" || schema.type === "number") return numeric(schema, place)
	return schema.type === "string" ? text(schema, place) : json(schema, place)
}

function constant(value) {
	return { element: "", isEmpty: () => true, read: () => value, write: (other) => other === value || other === undefined }
}

function object(schema, { name, required, depth }) {
	const needed = new Set(schema.required)
	const parts = Object.entries(schema.properties).map(([key, property]) => {
		return { key, ...partOf(property, { name: key, required: needed.has(key), depth: depth + 1 }) }
	})
	const hint = schema.description && h("p", { class: "hint" }, schema.description)
	const inner = h("div", { class: "fields" }, hint, parts.map((part) => part.element))
	const isEmpty = () => parts.every((part) => part.isEmpty())
	return {
		element: depth === 0 ? inner : h("fieldset", {}, h("legend", {}, name), inner),
		isEmpty,
		read: () => {
			if (!required && isEmpty()) return ABSENT
			return Object.fromEntries(parts.map((part) => [part.key, part.read()]).filter(([, value]) => value !== ABSENT))
		},
		write: (value = {}) => {
			if (value === null || typeof value !== "object" || Array.isArray(value)) return false
			const hasRoom = Object.keys(value).every((key) => parts.some((part) => part.key === key))
			return parts.map((part) => part.write(value[part.key])).every(Boolean) && hasRoom
		},
	}
}

function checkbox(schema, place) {
	const input = h("input", { type: "checkbox" })
	const usual = schema.default ?? false
	return {
		element: labelled(input, schema, place),
		isEmpty: () => input.checked === usual,
		read: () => (input.checked === schema.default && !place.required ? ABSENT : input.checked),
		write: (value) => {
			input.checked = value ?? usual
			return value === undefined || typeof value === "boolean"
		},
	}
}

/** A field of text: `parse` makes the value of it, `format` the text of a value, if it can. */
function field(input, schema, place, parse, format) {
	const usual = input.localName === "select" && schema.default !== undefined ? (format(schema.default) ?? "") : ""
	return {
		element: labelled(input, schema, place),
		isEmpty: () => input.value === usual,
		read: () => {
			if (!input.checkValidity() && (input.value || input.validity.badInput)) {
				throw new FieldError(`${place.name}: ${input.validationMessage}`, input)
			}
			if (input.value.trim() !== "") return parse(input.value)
			if (!place.required || schema.default !== undefined) return ABSENT
			if (schema.nullable) return null
			if (schema.type === "string" && !schema.minLength) return input.value
			throw new FieldError(`${place.name} is missing`, input)
		},
		write: (value) => {
			const known = value === undefined || (value === null && schema.nullable) ? usual : format(value)
			input.value = known ?? ""
			return known !== undefined
		},
	}
}

function choice(schema, place) {
	const option = (value) => h("option", { value: JSON.stringify(value) }, typeof value === "string" ? value : JSON.stringify(value))
	const input = h("select", {}, !place.required && h("option", { value: "" }, "not given"), schema.enum.map(option))
	return field(input, schema, place, JSON.parse, (value) => (schema.enum.includes(value) ? JSON.stringify(value) : undefined))
}

function numeric(schema, place) {
	const input = h("input", {
		type: "number",
		step: schema.multipleOf ?? (schema.type === "integer" ? 1 : "any"),
		min: schema.minimum ?? schema.exclusiveMinimum,
		max: schema.maximum ?? schema.exclusiveMaximum,
		placeholder: schema.default,
	})
	return field(input, schema, place, Number, (value) => (typeof value === "number" ? String(value) : undefined))
}

function text(schema, place) {
	const isLong = schema.maxLength > LONG || PROSE.test(place.name)
	const common = { placeholder: schema.default ?? schema.examples?.[0], maxlength: schema.maxLength, autocomplete: "off" }
	const input = isLong ? h("textarea", { ...common, rows: 3 }) : h("input", { ...common, type: "text", pattern: schema.pattern })
	return field(input, schema, place, (value) => value, (value) => (typeof value === "string" ? value : undefined))
}

function json(schema, place) {
	const placeholder = schema.default === undefined ? "JSON" : JSON.stringify(schema.default)
	const input = h("textarea", { class: "mono", rows: 2, placeholder })
	const parse = (typed) => {
		const { value, error } = parseJson(typed)
		if (error) throw new FieldError(`${place.name}: ${error}`, input)
		return value
	}
	return field(input, schema, place, parse, pretty)
}

function labelled(input, schema, { name, required }) {
	const { minimum: low = schema.exclusiveMinimum, maximum: high = schema.exclusiveMaximum } = schema
	const range = [low !== undefined && `from ${low}`, high !== undefined && `to ${high}`].filter(Boolean).join(" ")
	const told = [schema.description, range].filter(Boolean).join(" · ")
	const id = (input.id = `field-${fields++}`)
	const label = h("label", { for: id }, name)
	const hint = told && h("p", { class: "hint", id: `${id}-hint` }, told)
	if (hint) input.setAttribute("aria-describedby", hint.id)
	if (input.type === "checkbox") return h("div", { class: "field check" }, input, label, hint || null)
	const isOptional = !required || schema.default !== undefined
	return h("div", { class: "field" }, label, isOptional && h("span", { class: "optional", "aria-hidden": "true" }, "optional"), input, hint || null)
}
