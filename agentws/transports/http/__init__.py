"""HTTP: the verbs of the table, the methods of an agent in class style, events, errors, probes.

- **An answer that has begun is noted before its head is written**, by a signal of aiohttp's, so
  that a second head is impossible, whoever writes it. What cannot be finished is cut: aborted, and
  reset where the body has neither length nor chunks, as such a body would seem to be complete.
- **What an agent in class style writes is seen through its request's writer** (`sse_comments`), as
  only the bytes tell whether a comment would come amid a line; aiohttp's hook tells how many there
  are.
- **In class style, aiohttp inflates bodies**, and refuses in its own way what it does not know:
  the agent reads the body by aiohttp's request. Elsewhere `content_coding` does.
- **SSE is written here**, not with aiohttp-sse: it writes each event by itself and took 38 times
  the CPU time of writing together what is ready together (100,000 small events to one client).
- **The result of a POST is written by us, head and body at once** (`whole_answers`), where nothing
  is to be told but what every answer tells: through aiohttp's headers and signals, a POST took a
  fifth more. All other answers are aiohttp's, whose signals add to them (CORS, drain, errors).
"""
