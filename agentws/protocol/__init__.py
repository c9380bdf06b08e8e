"""The wire as values: identifiers, errors, records, frames, their JSON and its description.

In come texts and bytes, out go checked values, and the other way round. It does no I/O and knows
nothing else of ours; everything else knows it. Section numbers (§) refer to the wire protocol, RFC
numbers to the IETF's documents.
"""
