"""The process: the parts put together, served, and ended in good order.

In come the settings and the agent; out goes an exit code, when a signal has come and all has ended.
It knows every wing below, and nothing of how it was started.

- **Signals are Python's, not the loop's**, so that a second one ends a process whose loop is
  blocked by a handler. They are handled before the agent's module is imported: until then, the
  kernel drops those for process 1.
- **The loop goes on until the daemon's life is over** (`event_loop`), though the agent stops it, or
  raises what ends a program.
- **Garbage is looked for when memory has grown** (`garbage`), as Python's own rule has thousands of
  sockets looked through in the middle of all streams.
"""
