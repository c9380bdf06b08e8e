"""Invocations: begun, found again, cancelled, ended, each by its id.

In come a payload and who calls; out go the log that the invocation writes, and answers about it. It
calls the agent, and knows neither sockets nor HTTP.

The way of an invoke: `table` admits it (`limits`) and makes an `Invocation` (`invocation`), which
calls the handler and writes its log. Every other verb finds it by `lookup`, which tells only its
owner of it (`ownership`).

- **The handler has a task of its own, in which nothing else is awaited.** The store is told to
  claim an id and to end a log, and tells when it has: no task waits for it that the agent could
  cancel, and a slow store delays neither the reader nor other invocations. Who asks for an
  invocation whose claim is under way waits for it. Other handlers of the agent run apart, too.
- **A handler is stopped with a reason** (`Invocation.stop`): cancel, time-out, leaving and shutdown
  are one mechanism, and the reason, not the exception that came out, decides the outcome.
- **What a socket asks takes effect in the order of its messages, whatever it waits for.** The verbs
  of the table look for the invocation when they are called and work when they are awaited.
- **A context does not know its invocation, but where to find it while it runs** (`live`): timers
  and tasks that the agent leaves behind keep the context, by way of the trace, and would keep all
  chunks.
- **Hot objects know their event loop**: on Python 3.11, `asyncio.get_running_loop()` is a system
  call.
"""
