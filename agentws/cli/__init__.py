"""The commands: a file each, and what several of them share.

In come arguments; out goes an exit code, and what there is to say on stdout and stderr. It starts
the daemon and reaches for nothing behind it, or speaks to one through the client.

What a command needs is imported when it runs, and `rich` only where something is shown by it, since
`--help` and an invocation that answers at once should take no longer than they must. Nothing waits
for the terminal: what is printed, and what is typed, passes through the event loop, so that Ctrl-C
and the connection are never held up by a reader that stops.
"""
