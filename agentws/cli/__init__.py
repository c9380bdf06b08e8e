"""The commands: a file each, and what several of them share.

In come arguments; out goes an exit code, and what there is to say on stdout and stderr. It starts
the daemon and reaches for nothing behind it.
"""
