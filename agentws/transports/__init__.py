"""How clients are spoken to: by framed and raw sockets, over HTTP, in event streams.

In come requests and messages, out go answers and frames, at the pace of each client. It calls the
verbs of the invocation table, follows logs, and knows nothing of who is let in.

- **One middleware names, admits and answers**, because each costs every open socket a frame. What
  it admits is decided before the route's handler runs, so a new route is closed unless it is a
  probe.
- **What no route matches is a route, too** (`routing`), and `Expect` is looked at by whoever reads
  the body: aiohttp would look at it before any middleware, so before a caller is admitted.
- **aiohttp's `handler_cancellation` is on**, because an HTTP client that leaves must count at once.
  Sockets have tasks of their own and outlive that cancellation where they must.
"""
