// @ts-check
/**
 * A form from a JSON Schema, for the shapes that agents declare. What a form cannot hold is a field of
 * JSON in its place. Whether a value fits, the server says; the form only keeps people from slips.
 */

import { attribute, h } from "./dom.js"
import { pretty } from "./format.js"
import { parseJson } from "./json_text.js"

/** How deep objects stand in each other before they are JSON. */
const DEEPEST = 3

/** A text longer than that, by its default or the schema, gets several lines. */
const LONG = 80

let fields = 0

/** A value that is left out, as its field is empty and need not be there. */
const ABSENT = Symbol("absent")

/** Raised where a field holds what is no value; `message` says what, `field` has the focus then. */
export class FieldError extends Error {
  constructor(message, field) {
    super(message)
    this.field = field
  }
}

/**
 * @typedef {object} Form
 * @property {any} element
 * @property {() => any} read returns the value, or throws FieldError
 * @property {(value: any) => boolean} write returns whether the form can hold it
 */

/** Return the form for a schema without references. @returns {Form} */
export function schemaForm(schema) {
  const part = partOf(schema, { name: schema.title ?? "Answer", required: true, depth: 0 })
  const element = h("div", { class: "schema-form" }, part.element)
  return {
    element,
    read: () => {
      const value = part.read()
      return value === ABSENT ? null : value
    },
    write: (value) => part.write(value),
  }
}

/** Take apart what is "this or null", and single unions. */
function simplified(schema) {
  if (schema === null || typeof schema !== "object") return {}
  const { allOf, anyOf, oneOf, ...rest } = schema
  if (allOf?.length === 1) return simplified({ ...rest, ...allOf[0] })
  const union = anyOf ?? oneOf
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((type) => type !== "null")
    if (types.length === 1) return { ...schema, type: types[0], nullable: types.length < schema.type.length }
  }
  if (!Array.isArray(union)) return schema
  const some = union.filter((option) => option?.type !== "null")
  if (some.length === 1) return { ...simplified(some[0]), ...rest, nullable: some.length < union.length }
  const values = some.map((option) => option?.const)
  if (values.every((value) => value !== undefined)) return { ...rest, enum: values }
  return schema
}

function partOf(given, place) {
  const schema = simplified(given)
  if ("const" in schema) return constant(schema.const)
  if (Array.isArray(schema.enum)) return choice(schema, place)
  if (schema.type === "object" && isPlain(schema.properties) && place.depth < DEEPEST) return object(schema, place)
  if (schema.type === "boolean" && !schema.nullable) return checkbox(schema, place)
  if (schema.type === "integer" || schema.type === "number") return numeric(schema, place)
  if (schema.type === "string") return text(schema, place)
  return json(schema, place)
}

function isPlain(properties) {
  return properties && Object.keys(properties).length > 0
}

function constant(value) {
  return { element: "", read: () => value, write: (other) => other === value }
}

function object(schema, place) {
  const required = new Set(schema.required ?? [])
  const parts = Object.entries(schema.properties).map(([name, property]) => {
    const isRequired = required.has(name)
    return { name, isRequired, ...partOf(property, { name, required: isRequired, depth: place.depth + 1 }) }
  })
  const children = parts.map((part) => part.element)
  const element =
    place.depth === 0
      ? h("div", { class: "fields" }, hint(schema, place), children)
      : h("fieldset", {}, h("legend", {}, place.name), hint(schema, place), h("div", { class: "fields" }, children))
  return {
    element,
    read: () => {
      const entries = parts.map((part) => [part.name, part.read()]).filter(([, value]) => value !== ABSENT)
      return entries.length === 0 && !place.required ? ABSENT : Object.fromEntries(entries)
    },
    write: (value) => {
      if (value === undefined) return parts.every((part) => part.write(undefined))
      if (value === null || typeof value !== "object" || Array.isArray(value)) return false
      const known = new Set(parts.map((part) => part.name))
      if (Object.keys(value).some((name) => !known.has(name))) return false
      return parts.every((part) => part.write(value[part.name]))
    },
  }
}

function choice(schema, place) {
  const values = schema.nullable ? [...schema.enum, null] : schema.enum
  const select = h(
    "select",
    {},
    !place.required && h("option", { value: "" }, "not given"),
    values.map((value, index) => h("option", { value: index }, typeof value === "string" ? value : JSON.stringify(value))),
  )
  const start = values.indexOf(schema.default)
  if (start >= 0) select.value = String(start)
  return {
    element: labelled(select, schema, place),
    read: () => (select.value === "" ? ABSENT : values[Number(select.value)]),
    write: (value) => {
      const index = values.indexOf(value)
      select.value = index < 0 && value === undefined && !place.required ? "" : String(index)
      return value === undefined || index >= 0
    },
  }
}

function checkbox(schema, place) {
  const input = h("input", { type: "checkbox", prop: { checked: schema.default === true } })
  const id = identify(input)
  const text = hint(schema, place)
  describe(input, text)
  return {
    element: h("div", { class: "field check" }, input, h("label", { for: id }, place.name), text),
    read: () => (input.checked === schema.default && !place.required ? ABSENT : input.checked),
    write: (value) => {
      input.checked = value ?? schema.default ?? false
      return value === undefined || typeof value === "boolean"
    },
  }
}

function numeric(schema, place) {
  const isWhole = schema.type === "integer"
  const input = h("input", {
    type: "number",
    step: schema.multipleOf ?? (isWhole ? 1 : "any"),
    min: schema.minimum ?? schema.exclusiveMinimum,
    max: schema.maximum ?? schema.exclusiveMaximum,
    inputmode: isWhole ? "numeric" : "decimal",
    placeholder: ghost(schema),
    required: place.required && schema.default === undefined,
  })
  return {
    element: labelled(input, schema, place),
    read: () => {
      if (input.validity.badInput || (input.value !== "" && !input.checkValidity())) throw wrong(input, place)
      if (input.value !== "") return Number(input.value)
      return empty(input, schema, place)
    },
    write: (value) => {
      input.value = value ?? ""
      return value === undefined || typeof value === "number" || (value === null && schema.nullable === true)
    },
  }
}

function text(schema, place) {
  const isLong = String(schema.default ?? "").length > LONG || (schema.maxLength ?? 0) > LONG
  const isProse = place.depth <= 1 && /text|message|prompt|question|content|description|note/i.test(place.name)
  const common = {
    placeholder: ghost(schema),
    maxlength: schema.maxLength,
    spellcheck: "false",
    autocomplete: "off",
    required: place.required && (schema.minLength ?? 0) > 0,
  }
  const field = isLong || isProse
    ? h("textarea", { ...common, rows: 3 })
    : h("input", { ...common, type: "text", pattern: schema.pattern })
  return {
    element: labelled(field, schema, place),
    read: () => {
      if (field.value !== "") return field.value
      return place.required && schema.default === undefined && !schema.nullable ? "" : empty(field, schema, place)
    },
    write: (value) => {
      field.value = value ?? ""
      return value === undefined || typeof value === "string" || (value === null && schema.nullable === true)
    },
  }
}

/** An empty field is left out, where that is allowed. */
function empty(field, schema, place) {
  if (!place.required || schema.default !== undefined) return ABSENT
  if (schema.nullable) return null
  throw new FieldError(`${place.name} is missing`, field)
}

function json(schema, place) {
  const field = h("textarea", { class: "mono", rows: 3, spellcheck: "false", placeholder: "JSON" })
  if (schema.default !== undefined) field.value = pretty(schema.default)
  return {
    element: labelled(field, schema, place),
    read: () => {
      if (field.value.trim() === "") return empty(field, schema, place)
      const { value, error } = parseJson(field.value)
      if (error) throw new FieldError(`${place.name}: ${error}`, field)
      return value
    },
    write: (value) => {
      field.value = value === undefined ? "" : pretty(value)
      return true
    },
  }
}

function wrong(input, place) {
  return new FieldError(`${place.name}: ${input.validationMessage}`, input)
}

/** What is taken where nothing is given. */
function ghost(schema) {
  if (schema.default === undefined || schema.default === null) return schema.examples?.[0]
  return typeof schema.default === "string" ? schema.default : JSON.stringify(schema.default)
}

function identify(field) {
  field.id = `field-${fields++}`
  return field.id
}

function labelled(field, schema, place) {
  const id = identify(field)
  const text = hint(schema, place)
  describe(field, text)
  const isOptional = !place.required || schema.default !== undefined
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, place.name),
    isOptional && h("span", { class: "optional", "aria-hidden": "true" }, "optional"),
    field,
    text,
  )
}

function describe(field, text) {
  if (!text) return
  text.id = `${field.id}-hint`
  attribute(field, "aria-describedby", text.id)
}

function hint(schema, place) {
  const { minimum: low = schema.exclusiveMinimum, maximum: high = schema.exclusiveMaximum } = schema
  const range = low !== undefined && high !== undefined ? `${low} to ${high}` : low !== undefined ? `from ${low}` : high !== undefined && `up to ${high}`
  const told = [schema.description, range].filter(Boolean).join(" · ")
  return told && place.depth >= 0 ? h("p", { class: "hint" }, told) : null
}
