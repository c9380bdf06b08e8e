"""What an agent author writes, and how the daemon gets hold of it.

In come functions, a class or the place of either; out go an `Agent`, or an object in class style,
whose every handler was checked, and the context that handlers are called with. It knows neither
sockets nor stores nor who calls.
"""
