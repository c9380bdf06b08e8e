"""Who is let in: by key, by token, from which pages.

In comes a request; it is let in, with what its caller proved to be, or refused. It knows nothing of
invocations.

- **PyJWT's key client fetches, but does not keep**: its cache would end with the key server. Keys
  are fetched every five minutes and for an unknown `kid`, three times in five seconds at most.
"""
