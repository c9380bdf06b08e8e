"""What an agent author writes, and how the daemon gets hold of it.

In come functions, a class or the place of either; out go an `Agent`, or an object in class style,
whose every handler was checked, and the context that handlers are called with. It knows neither
sockets nor stores nor who calls.

- **The annotations of the invoke handler are read when it is registered** (`payloads`): a type that
  cannot be understood is the author's to hear of, never the client's. msgspec converts, in
  `json_schema` and `converter` alike; pydantic does where a type is made of its parts and of no
  Struct, as it knows what they say (`type_parts`). Where either would pass over what a part of the
  other's says, such as `Field` in a Struct, the type is refused.
- **pydantic converts from JSON, not from what was decoded**: its strict mode takes a text for a
  datetime, and base64 for bytes, only there.
"""
