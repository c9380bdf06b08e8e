"""The wire as values: identifiers, errors, records, frames, their JSON and its description.

In come texts and bytes, out go checked values, and the other way round. It does no I/O and knows
nothing else of ours; everything else knows it. Section numbers (§), here and in all other wings,
refer to the protocol in docs/protocol.md, RFC numbers to the IETF's documents.

- **The AsyncAPI document has a channel for each direction**, though there is but one socket:
  generators name one type after a channel, and what the server sends took the place of what clients
  send. It has a name for each enumeration, as they would number it.
- **A schema that comes under a taken name gets another** (`Components`), compared as generators
  spell: an agent's type may be called like a frame, and both are in one document.
"""
