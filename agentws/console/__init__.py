"""The console at `/console/`: its files, and what its page asks this replica for.

In come requests, and the parts whose numbers are shown; out go files and a few numbers. It knows
nothing of other callers: what the page shows of invocations, it asks for by the public protocol.

- **The files are read once**, at the start, and made small then (no comments, compressed): nothing
  that is asked for reaches the disk, and no path can lead out of the folder.
- **The client in JavaScript is a link** in the folder (`static/agentws.js`), see CONTRIBUTING.md.
- **What the page must know is in the page** (`<meta>`), so that it can ask for a key before the
  first request that needs one.
- **Numbers cost nobody who does not look**: a tally beside the instruments takes a microsecond an
  invocation, once a second the chunks are added up for their rate, and without the console there is
  neither.
"""
