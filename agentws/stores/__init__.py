"""The log of every invocation: written by one, followed by many, kept for a while.

In come a record, numbered chunks and an outcome; out they go to whoever follows, at his pace and
from where he left off, on any replica. It knows nothing of sockets, requests and agents.
"""
